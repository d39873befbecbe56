use std::fmt;
#[cfg(feature = "http2")]
use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tower::BoxError;

use super::*;
use crate::RejectedKind;

/// An error with a cause, as a user's client wraps it.
#[derive(Debug)]
struct Wrapped(BoxError);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

fn cause(error: impl Into<BoxError>) -> ErrorCause {
    let error = error.into();
    let bare = ErrorCause::of(&*error);
    assert_eq!(ErrorCause::of_any(&error), bare, "in a box");
    let within = match bare {
        // It is no proof either inside the error of a service that may have sent something before.
        ErrorCause::NotSent | ErrorCause::Unprocessed => ErrorCause::Unknown,
        cause => cause,
    };
    assert_eq!(ErrorCause::of(&Wrapped(error)), within, "as a cause");
    bare
}

#[test]
fn a_rejection_by_an_inner_layer_is_no_failure() {
    for kind in [
        RejectedKind::CircuitOpen,
        RejectedKind::RateLimited,
        RejectedKind::DeadlineExceeded,
    ] {
        let rejected = Rejected::new(kind, "inner");
        let expected = ErrorCause::Rejected { kind, after: None };
        assert_eq!(ErrorCause::of_any(&rejected), expected);
        assert_eq!(cause(rejected.clone()), expected);
        assert_eq!(cause(io::Error::other(rejected)), expected);
    }
}

#[test]
fn a_timeout_may_have_been_processed() {
    let timed_out = Rejected::new(RejectedKind::TimedOut, "timeout");
    assert_eq!(ErrorCause::of_any(&timed_out), ErrorCause::Unknown);
    assert_eq!(cause(timed_out), ErrorCause::Unknown);
}

#[test]
fn only_a_refused_connection_is_proof_among_io_errors() {
    use io::ErrorKind::*;
    for (kind, expected) in [
        (ConnectionRefused, ErrorCause::NotSent),
        (ConnectionReset, ErrorCause::Unknown),
        (ConnectionAborted, ErrorCause::Unknown),
        (BrokenPipe, ErrorCause::Unknown),
        (TimedOut, ErrorCause::Unknown),
        (UnexpectedEof, ErrorCause::Unknown),
    ] {
        assert_eq!(
            ErrorCause::of_any(&io::Error::from(kind)),
            expected,
            "{kind}"
        );
        assert_eq!(cause(io::Error::from(kind)), expected, "{kind}");
        let inside = io::Error::other(io::Error::from(kind));
        assert_eq!(cause(inside), expected, "{kind} inside another");
    }
}

#[test]
fn a_request_that_cannot_be_built_is_the_callers() {
    let unfit = http::Request::get("http://[").body(()).unwrap_err();
    assert_eq!(ErrorCause::of_any(&unfit), ErrorCause::Caller);
    assert_eq!(cause(unfit), ErrorCause::Caller);
}

#[test]
fn what_nothing_is_known_of_may_have_been_processed() {
    assert_eq!(cause("some error"), ErrorCause::Unknown);
    assert_eq!(ErrorCause::of_any(&()), ErrorCause::Unknown);
}

#[test]
fn each_cause_has_one_outcome_and_one_advice() {
    let retry = |sent| Advice::Retry { sent, after: None };
    let (kind, after) = (RejectedKind::CircuitOpen, Some(Duration::from_secs(1)));
    let rejected = ErrorCause::Rejected { kind, after };
    for (cause, outcome, advice) in [
        (rejected, Outcome::Ignore, Advice::Rejected { kind, after }),
        (ErrorCause::Caller, Outcome::Ignore, Advice::Stop),
        (ErrorCause::NotSent, Outcome::Failure, retry(Sent::No)),
        (ErrorCause::Unprocessed, Outcome::Failure, retry(Sent::No)),
        (ErrorCause::Unreadable, Outcome::Failure, Advice::Stop),
        (ErrorCause::Unknown, Outcome::Failure, retry(Sent::Maybe)),
    ] {
        assert_eq!((cause.outcome(), cause.advice()), (outcome, advice));
    }
}

/// The transport may be a service of this crate too.
#[cfg(feature = "http2")]
#[tokio::test]
async fn a_rejection_that_h2_wraps_is_found() {
    #[derive(Debug)]
    struct Full;

    impl tokio::io::AsyncRead for Full {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl tokio::io::AsyncWrite for Full {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            let rejected = Rejected::new(RejectedKind::BulkheadFull, "connections");
            Poll::Ready(Err(io::Error::other(rejected)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    let kind = RejectedKind::BulkheadFull;
    let error = h2::client::handshake(Full).await.err().unwrap();
    assert_eq!(cause(error), ErrorCause::Rejected { kind, after: None });
}

/// Resets that the upstream sends are tested over a connection. These are local ones.
#[cfg(feature = "http2")]
#[test]
fn a_reset_of_our_own_making_is_no_proof() {
    for reason in [h2::Reason::REFUSED_STREAM, h2::Reason::NO_ERROR] {
        assert_eq!(cause(h2::Error::from(reason)), ErrorCause::Unknown);
    }
}
