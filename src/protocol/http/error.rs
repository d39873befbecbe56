//! The cause of an error, and whether the request was sent.
//!
//! A circuit breaker, a retry and a budget must read the same error in the same way, so all of them
//! use [`ErrorCause`].

use std::{error::Error, io, time::Duration};

use hyper_util::client::legacy;

use crate::{
    Outcome, Rejected, RejectedKind,
    call::{CutShort, causes},
    protocol::{Advice, Proof, Sent, Settle, as_error},
};

#[cfg(test)]
mod tests;

/// The reason why a call ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum ErrorCause {
    /// An inner layer of this crate rejected the call.
    Rejected {
        kind: RejectedKind,
        after: Option<Duration>,
    },
    /// The caller's deadline ended the call.
    CutShort(CutShort),
    /// A fault of the caller: the request could not be sent, or its body failed.
    Caller,
    /// The upstream received nothing of the request: there was no connection, or it closed before
    /// the request was written.
    NotSent,
    /// The upstream received the request, and reports that it did not process it.
    #[cfg_attr(
        not(any(feature = "http2", test)),
        expect(dead_code, reason = "only HTTP/2 has a way to say so")
    )]
    Unprocessed,
    /// The upstream's response is not HTTP. The same request gets the same response.
    Unreadable,
    /// Anything else: the upstream may have acted on the request.
    Unknown,
}

impl ErrorCause {
    /// Returns the proof in an error, given the `advice` on it, that the upstream did not act on
    /// the request.
    pub(in crate::protocol) fn proof(self, advice: Advice) -> Proof {
        match self {
            Self::Unprocessed if Proof::from(advice) == Proof::NotSent => Proof::Unprocessed,
            _ => advice.into(),
        }
    }

    /// Reads the causes, the outermost first. The first one with a meaning decides.
    ///
    /// A report of an unsent or unprocessed request counts only in errors of hyper and of std, and
    /// not inside another type of error. A service that follows redirects, or that calls several
    /// services, may report its last request with it.
    pub(in crate::protocol) fn of(error: &(dyn Error + 'static)) -> Self {
        Self::read(error, 0)
    }

    /// Reads an error of tonic's channel, which wraps it in a type that exists only with a feature
    /// of tonic.
    #[cfg(feature = "tonic-014")]
    pub(in crate::protocol) fn of_channel(error: &(dyn Error + 'static)) -> Self {
        Self::read(error, 1)
    }

    /// Reads the causes. `channels` is the number of errors of unknown types in which a report
    /// still counts.
    fn read(error: &(dyn Error + 'static), mut channels: usize) -> Self {
        if let Some(rejected) = Rejected::find(error) {
            if let Some(cut_short) = rejected.cut_short() {
                return Self::CutShort(cut_short);
            }
            if rejected.kind.is_local() {
                return Self::Rejected {
                    kind: rejected.kind,
                    after: rejected.retry_after,
                };
            }
        }
        let mut strangers = 0;
        let told = causes(error).find_map(|cause| {
            let told = Self::of_one(cause);
            let unsent = matches!(told, Some(Self::NotSent | Self::Unprocessed));
            let believed = told.filter(|_| !unsent || strangers <= channels);
            if vouches(cause) {
                channels += 1;
            } else if !carries(cause) {
                strangers += 1;
            }
            believed
        });
        told.unwrap_or(Self::Unknown)
    }

    /// Reads an error of any type. A type that [`as_error`] does not know has no meaning.
    pub(in crate::protocol) fn of_any<E: 'static>(error: &E) -> Self {
        as_error(error).map_or(Self::Unknown, Self::of)
    }

    fn of_one(error: &(dyn Error + 'static)) -> Option<Self> {
        #[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
        if crate::reqwest::is_users_fault(error) {
            return Some(Self::Caller);
        }
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            return of_client(error);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return of_connection(error);
        }
        #[cfg(feature = "http2")]
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return is_unprocessed(error).then_some(Self::Unprocessed);
        }
        if error.is::<http::Error>() {
            return Some(Self::Caller);
        }
        let refused = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        refused.then_some(Self::NotSent)
    }

    /// Returns the outcome of the call.
    pub(in crate::protocol) fn outcome(self) -> Outcome {
        match self {
            Self::Rejected { .. } | Self::Caller | Self::CutShort(CutShort::Early) => {
                Outcome::Ignore
            }
            Self::NotSent
            | Self::Unprocessed
            | Self::Unreadable
            | Self::Unknown
            | Self::CutShort(CutShort::Late) => Outcome::Failure,
        }
    }

    /// Settles a call that ended with this cause.
    pub(in crate::protocol) fn settle<T: Settle>(self, permit: T) {
        match self {
            Self::CutShort(cut_short) => permit.cut_short(cut_short == CutShort::Late),
            _ => permit.settle(self.outcome(), None),
        }
    }

    /// Returns what a retry may do.
    pub(in crate::protocol) fn advice(self) -> Advice {
        let retry = |sent| Advice::Retry { sent, after: None };
        match self {
            Self::Rejected { kind, after } => Advice::Rejected { kind, after },
            Self::Caller | Self::Unreadable => Advice::Stop,
            Self::NotSent | Self::Unprocessed => retry(Sent::No),
            Self::Unknown | Self::CutShort(_) => retry(Sent::Maybe),
        }
    }
}

/// Returns whether the cause of such an error is always that of the same request.
fn carries(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "http2")]
    if error.is::<h2::Error>() {
        return true;
    }
    error.is::<legacy::Error>() || error.is::<hyper::Error>() || error.is::<io::Error>()
}

/// Returns whether an error guarantees that the next one, of an unknown type, belongs to the same
/// request.
fn vouches(error: &(dyn Error + 'static)) -> bool {
    #[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
    if super::reqwest::is_untaken(error) {
        return true;
    }
    let _ = error;
    false
}

/// Reads an error of hyper-util's client, which names its kind only in its text. A test with the
/// real client checks that text.
fn of_client(error: &legacy::Error) -> Option<ErrorCause> {
    if error.is_connect() {
        let unfit = causes(error).any(|cause| cause.to_string().starts_with("invalid URL"));
        return Some(if unfit {
            ErrorCause::Caller
        } else {
            ErrorCause::NotSent
        });
    }
    let text = error.to_string();
    if text.contains("(User") {
        return Some(ErrorCause::Caller);
    }
    // The client dropped a connection before it wrote to it.
    let given_up = text.contains("(Canceled)") || text.contains("(ChannelClosed)");
    given_up.then_some(ErrorCause::NotSent)
}

fn of_connection(error: &hyper::Error) -> Option<ErrorCause> {
    if error.is_user() {
        return Some(ErrorCause::Caller);
    }
    if error.is_parse() {
        return Some(ErrorCause::Unreadable);
    }
    (error.is_canceled() || error.is_closed()).then_some(ErrorCause::NotSent)
}

/// Returns whether the upstream reports that it did not, and will not, process the request (RFC
/// 9113, section 8.7).
///
/// A GOAWAY names the last stream that the upstream processes (section 6.8), and would be a proof
/// for later streams. But hyper gives the same error to a request that it has just sent when the
/// GOAWAY arrives. When nginx closed its connections, some of those requests were processed, and
/// would have been processed twice (`tests/real_peers/goaway.rs`).
#[cfg(feature = "http2")]
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}
