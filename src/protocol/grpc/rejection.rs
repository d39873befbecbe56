//! A rejection as a status.

use std::{error::Error, sync::OnceLock};

use http::{HeaderMap, Response};
use tonic::Status;

use super::status::{Pushback, of_rejection};
use crate::{Rejected, RejectedKind, call::Lead};

impl Error for Lead {
    /// Returns a [`tonic::Status`] with the code for gRPC callers.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(status_of(self.kind()))
    }
}

/// Returns the status among the causes of a client's rejection.
///
/// There is one for each kind, made once. Rejections stay comparable and need no further
/// allocation. A [`tonic::Status`] keeps the error that it was made from, which has the name and
/// the hint.
fn status_of(kind: RejectedKind) -> &'static Status {
    static STATUSES: [OnceLock<Status>; KINDS] = [const { OnceLock::new() }; KINDS];
    STATUSES[kind as usize].get_or_init(|| Status::new(of_rejection(kind), kind.description()))
}

/// Builds the response of a server: trailers only.
///
/// As over HTTP, it has the names of rate limits, which callers may know, and no other names.
pub(super) fn response<B: Default>(rejected: Rejected) -> Response<B> {
    let message = match (rejected.kind, rejected.name) {
        (RejectedKind::RateLimited, Some(name)) => {
            format!("{} ({name})", rejected.kind.description())
        }
        _ => rejected.kind.description().to_owned(),
    };
    let mut response = Status::new(of_rejection(rejected.kind), message).into_http();
    write_pushback(&rejected, response.headers_mut());
    response.extensions_mut().insert(rejected);
    response
}

fn write_pushback(rejected: &Rejected, headers: &mut HeaderMap) {
    let pushback = match (rejected.kind, rejected.retry_after) {
        // The call would never be admitted.
        (RejectedKind::CostTooHigh, _) => Pushback::Never,
        (_, Some(wait)) => Pushback::After(wait),
        (_, None) => Pushback::None,
    };
    pushback.write(headers);
}

/// More than the existing kinds, which a test checks.
const KINDS: usize = 16;

#[cfg(test)]
mod tests {
    use std::{error::Error, time::Duration};

    use proptest::prelude::*;
    use tonic::{Code, body::Body};

    use super::*;

    const ALL: [(RejectedKind, Code); 10] = [
        (RejectedKind::CircuitOpen, Code::Unavailable),
        (RejectedKind::RateLimited, Code::ResourceExhausted),
        (RejectedKind::CostTooHigh, Code::ResourceExhausted),
        (RejectedKind::MissingKey, Code::InvalidArgument),
        (RejectedKind::BulkheadFull, Code::ResourceExhausted),
        (RejectedKind::Throttled, Code::Unavailable),
        (RejectedKind::DeadlineExceeded, Code::DeadlineExceeded),
        (RejectedKind::TimedOut, Code::DeadlineExceeded),
        (RejectedKind::Draining, Code::Unavailable),
        (RejectedKind::StoreDown, Code::Unavailable),
    ];

    #[test]
    fn the_last_cause_of_each_kind_is_its_status() {
        for (kind, code) in ALL {
            assert!((kind as usize) < KINDS);
            let rejected = Rejected::new(kind, "test");
            let lead = rejected.source().unwrap();
            let status = lead.source().unwrap().downcast_ref::<Status>().unwrap();
            assert_eq!(
                (status.code(), status.message()),
                (code, kind.description())
            );
        }
    }

    #[test]
    fn tonic_makes_a_status_that_keeps_the_rejection() {
        for (kind, code) in ALL {
            let mut rejected = Rejected::new(kind, "test");
            rejected.name = Some("payments");
            let status = Status::from_error(Box::new(rejected.clone()));
            assert_eq!(status.code(), code);
            assert_eq!(Rejected::find(&status), Some(&rejected));
        }
    }

    #[test]
    fn a_cost_that_never_fits_is_not_to_be_tried_again() {
        let answer = response::<Body>(Rejected::new(RejectedKind::CostTooHigh, "rate_limit"));
        assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "-1");
    }

    proptest! {
        #[test]
        fn any_name_travels_percent_encoded(name in any::<String>(), millis in any::<u32>()) {
            let mut rejected = Rejected::new(RejectedKind::RateLimited, "rate_limit");
            rejected.name = Some(name.clone().leak());
            rejected.retry_after = Some(Duration::from_millis(millis.into()));
            let answer = response::<Body>(rejected);
            let message = answer.headers()["grpc-message"].as_bytes();
            prop_assert!(message.iter().all(|byte| (b' '..=b'~').contains(byte)));
            let read = Status::from_header_map(answer.headers()).unwrap();
            prop_assert_eq!(read.message(), format!("rate limit exceeded ({name})"));
        }
    }
}
