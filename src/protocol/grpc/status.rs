//! `grpc-status` and `grpc-retry-pushback-ms`, read and written.
//!
//! Only these two fields are read, not a whole [`tonic::Status`]: tonic's own parser panics on a
//! `grpc-status-details-bin` that is not base64, and an upstream may send anything.

use std::{error::Error, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use tonic::{Code, Status, TimeoutExpired};

use crate::{Rejected, RejectedKind, call::causes};

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallStatus {
    pub(super) code: Code,
    pub(super) pushback: Pushback,
}

/// The upstream's pushback on a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// No pushback.
    None,
    /// A retry after exactly this time.
    After(Duration),
    /// No retry.
    Never,
}

impl CallStatus {
    /// Creates an end without pushback.
    pub(super) fn with(code: Code) -> Self {
        Self {
            code,
            pushback: Pushback::None,
        }
    }

    /// Reads trailers, or a head without a body. `None` if there is no status.
    pub(super) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let status = headers.get(GRPC_STATUS)?;
        Some(Self {
            code: Code::from_bytes(status.as_bytes()),
            pushback: Pushback::read(headers),
        })
    }

    /// Reads the head, if it ends the call.
    pub(super) fn of_head<B: Body>(response: &Response<B>) -> Option<Self> {
        Self::of_headers(response.headers()).or_else(|| {
            if response.status() != StatusCode::OK {
                Some(Self::with(of_http(response.status())))
            } else if response.body().is_end_stream() {
                Some(Self::with(Code::Unknown))
            } else {
                None
            }
        })
    }
}

impl CallStatus {
    /// Describes the end for people.
    pub(super) fn in_words(ended: Option<Self>) -> String {
        ended.map_or_else(
            || "a response that means a failure".into(),
            |ended| format!("status {:?}", ended.code),
        )
    }
}

impl Pushback {
    fn read(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(&PUSHBACK).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(value), None) => milliseconds(value.as_bytes()).map_or(Self::Never, |number| {
                Self::After(Duration::from_millis(number))
            }),
            // The gRPC specification does not define which of several counts.
            (Some(_), Some(_)) => Self::Never,
        }
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let value = match self {
            Self::None => return,
            Self::After(wait) => HeaderValue::from(rounded_up(wait)),
            Self::Never => HeaderValue::from_static("-1"),
        };
        headers.insert(&PUSHBACK, value);
    }
}

/// Returns the code of the first of an error's causes that has one.
pub(super) fn code_of(error: &(dyn Error + 'static)) -> Option<Code> {
    causes(error).find_map(|cause| {
        if let Some(status) = cause.downcast_ref::<Status>() {
            return Some(status.code());
        }
        if let Some(rejected) = cause.downcast_ref::<Rejected>() {
            return Some(of_rejection(rejected.kind));
        }
        cause
            .is::<TimeoutExpired>()
            .then_some(Code::DeadlineExceeded)
    })
}

/// Returns the code of a rejection.
pub(super) fn of_rejection(kind: RejectedKind) -> Code {
    match kind {
        RejectedKind::RateLimited | RejectedKind::CostTooHigh | RejectedKind::BulkheadFull => {
            Code::ResourceExhausted
        }
        RejectedKind::MissingKey => Code::InvalidArgument,
        RejectedKind::CircuitOpen
        | RejectedKind::Throttled
        | RejectedKind::Draining
        | RejectedKind::StoreDown => Code::Unavailable,
        RejectedKind::DeadlineExceeded | RejectedKind::TimedOut => Code::DeadlineExceeded,
    }
}

/// Parses ASCII digits and nothing else.
fn milliseconds(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.iter().try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// Returns whole milliseconds, rounded up, because a call that comes earlier is rejected again. At
/// most the largest value that a 32-bit parser can read.
fn rounded_up(wait: Duration) -> u32 {
    const MAX: u32 = i32::MAX.unsigned_abs();
    u32::try_from(wait.as_nanos().div_ceil(1_000_000)).map_or(MAX, |number| number.min(MAX))
}

const GRPC_STATUS: &str = "grpc-status";
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Returns the code of an HTTP status without a `grpc-status`, as gRPC maps it.
pub(super) fn of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&[u8]]) -> Pushback {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PUSHBACK, HeaderValue::from_bytes(value).unwrap());
        }
        Pushback::read(&headers)
    }

    #[test]
    fn pushback_is_a_number_and_anything_else_means_never() {
        let after = |number| Pushback::After(Duration::from_millis(number));
        assert_eq!(read(&[]), Pushback::None);
        assert_eq!(read(&[b"0"]), after(0));
        assert_eq!(read(&[b"1500"]), after(1500));
        assert_eq!(read(&[b"18446744073709551615"]), after(u64::MAX));
        for garbage in [
            "-1",
            "",
            "+5",
            "1.5",
            " 5",
            "5ms",
            "1e3",
            "18446744073709551616",
        ] {
            assert_eq!(read(&[garbage.as_bytes()]), Pushback::Never, "{garbage:?}");
        }
        assert_eq!(read(&[b"5", b"5"]), Pushback::Never);
    }

    #[test]
    fn pushback_is_written_in_milliseconds_rounded_up() {
        for (micros, written) in [
            (0, "0"),
            (1, "1"),
            (1_000, "1"),
            (1_001, "2"),
            (u64::MAX, "2147483647"),
        ] {
            let mut headers = HeaderMap::new();
            Pushback::After(Duration::from_micros(micros)).write(&mut headers);
            assert_eq!(headers[PUSHBACK], written);
        }
    }

    proptest! {
        #[test]
        fn any_fields_are_read_without_a_panic(
            fields in prop::collection::vec(
                (0..4_usize, prop::collection::vec(any::<u8>(), 0..24)),
                0..6,
            )
        ) {
            let names = [
                GRPC_STATUS,
                "grpc-message",
                "grpc-status-details-bin",
                "grpc-retry-pushback-ms",
            ];
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(HeaderName::from_static(names[name]), value);
                }
            }
            let ended = CallStatus::of_headers(&headers);
            prop_assert_eq!(ended.is_some(), headers.contains_key(GRPC_STATUS));
        }

        #[test]
        fn what_is_written_is_read_again(millis in 0..=i32::MAX.unsigned_abs()) {
            let pushback = Pushback::After(Duration::from_millis(millis.into()));
            let mut headers = HeaderMap::new();
            pushback.write(&mut headers);
            prop_assert_eq!(Pushback::read(&headers), pushback);
        }
    }
}
