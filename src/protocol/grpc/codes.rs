//! Status codes: what they mean, and where they come from if the upstream gives none.

use std::time::Duration;

use http::Response;
use http_body::Body;
use tonic::Code;

use super::status::{Ended, Pushback};
use crate::{Outcome, Rejected};

/// What each code means, in the order of their numbers.
///
/// A closure is asked once for each code when it is set, and not again. So the protocols need no
/// type parameter for it, and copying one into a call costs 17 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codes([Outcome; CODES]);

/// What a code says of the upstream: see the [table](crate::protocol::grpc).
#[must_use]
pub fn outcome_of(code: Code) -> Outcome {
    match code {
        Code::Unavailable
        | Code::Internal
        | Code::Unknown
        | Code::DataLoss
        | Code::DeadlineExceeded => Outcome::Failure,
        Code::ResourceExhausted => Outcome::Overload,
        Code::Cancelled => Outcome::Ignore,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Outcome::Success,
    }
}

impl Codes {
    pub(super) fn new(outcome: impl Fn(Code) -> Outcome) -> Self {
        let mut outcomes = [Outcome::Failure; CODES];
        for (number, slot) in (0..).zip(&mut outcomes) {
            *slot = outcome(Code::from_i32(number));
        }
        Self(outcomes)
    }

    pub(super) fn outcome_of(&self, code: Code) -> Outcome {
        // A code that is newer than this crate is a failure, as an unknown one is.
        let outcome = self.0.get(code as usize);
        outcome.copied().unwrap_or(Outcome::Failure)
    }

    /// What the end of a call means, and when the upstream wants the next call.
    pub(super) fn read(&self, ended: Ended) -> (Outcome, Option<Duration>) {
        let outcome = self.outcome_of(ended.code);
        let hint = match ended.pushback {
            Pushback::After(wait) if outcome != Outcome::Success => Some(wait),
            _ => None,
        };
        (outcome, hint)
    }

    /// The same of a head, if the call has ended with it, or an inner layer of ours has made it.
    pub(super) fn read_head<B: Body>(
        &self,
        response: &Response<B>,
    ) -> Option<(Outcome, Option<Duration>)> {
        let rejected = response.extensions().get::<Rejected>();
        match rejected.and_then(Rejected::outcome) {
            Some(outcome) => Some((outcome, None)),
            None => Ended::of_head(response).map(|ended| self.read(ended)),
        }
    }
}

impl Default for Codes {
    fn default() -> Self {
        Self::new(outcome_of)
    }
}

/// `OK` to `UNAUTHENTICATED`.
const CODES: usize = Code::Unauthenticated as usize + 1;

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::protocol::grpc::status::of_http;

    /// The numbers of the codes that mean an outcome.
    fn numbers(codes: &Codes, outcome: Outcome) -> Vec<usize> {
        (0..CODES)
            .filter(|&number| codes.0[number] == outcome)
            .collect()
    }

    #[test]
    fn each_code_means_what_the_table_says() {
        let codes = Codes::new(outcome_of);
        assert_eq!(numbers(&codes, Outcome::Failure), [2, 4, 13, 14, 15]);
        assert_eq!(numbers(&codes, Outcome::Overload), [8]);
        assert_eq!(numbers(&codes, Outcome::Ignore), [1]);
        assert_eq!(
            numbers(&codes, Outcome::Success),
            [0, 3, 5, 6, 7, 9, 10, 11, 12, 16]
        );
    }

    #[test]
    fn a_closure_changes_the_table() {
        let codes = Codes::new(|code| match code {
            Code::Aborted => Outcome::Failure,
            code => outcome_of(code),
        });
        assert_eq!(codes.outcome_of(Code::Aborted), Outcome::Failure);
        assert_eq!(codes.outcome_of(Code::OutOfRange), Outcome::Success);
    }

    #[test]
    fn http_statuses_map_as_grpc_maps_them() {
        for (status, code) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (302, Code::Unknown),
        ] {
            assert_eq!(of_http(StatusCode::from_u16(status).unwrap()), code);
        }
    }
}
