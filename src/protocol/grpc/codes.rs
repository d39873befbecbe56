//! The outcomes of status codes.

use std::time::Duration;

use http::Response;
use http_body::Body;
use tonic::Code;

use super::status::{CallStatus, Pushback};
use crate::{Outcome, Rejected};

/// The outcome of each code, in the order of their numbers.
///
/// A closure is called once for each code when it is set, and not again. The protocols therefore
/// need no type parameter for it, and copying one into a call costs 17 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codes([Outcome; CODES]);

/// Returns the outcome of a code: see the [table](crate::protocol::grpc).
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
        // A code newer than this crate is a failure, like an unknown one.
        let outcome = self.0.get(code as usize);
        outcome.copied().unwrap_or(Outcome::Failure)
    }

    /// Returns the outcome of the end of a call, and the upstream's hint.
    pub(super) fn read(&self, ended: CallStatus) -> (Outcome, Option<Duration>) {
        let outcome = self.outcome_of(ended.code);
        let hint = match ended.pushback {
            Pushback::After(wait) if outcome != Outcome::Success => Some(wait),
            _ => None,
        };
        (outcome, hint)
    }

    /// Returns the same for a head, if it ends the call, or if an inner layer of this crate made
    /// it.
    pub(super) fn read_head<B: Body>(
        &self,
        response: &Response<B>,
    ) -> Option<(Outcome, Option<Duration>)> {
        let rejected = response.extensions().get::<Rejected>();
        match rejected.and_then(Rejected::outcome) {
            Some(outcome) => Some((outcome, None)),
            None => CallStatus::of_head(response).map(|ended| self.read(ended)),
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

    /// Returns the numbers of the codes with an outcome.
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
