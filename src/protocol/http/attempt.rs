//! The number of an attempt.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

/// The number of an attempt of its call, from 1. A [retry](crate::retry) adds it as an extension to
/// the requests that it replays.
///
/// The first attempt has no extension, so that it costs nothing. [`Attempt::of`] returns 1 for it.
/// A layer beneath another one that sends calls again, as a [hedge](crate::hedge) beneath a retry,
/// counts on from the number that it finds.
///
/// ```
/// use tower_keep::protocol::http::Attempt;
///
/// assert_eq!(Attempt::of(http::Request::new(()).extensions()), Attempt(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u32);

impl Attempt {
    /// Returns the number of the attempt with these extensions.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self(1))
    }

    /// Returns the number of a layer's `attempt`, counted from 1, at a request whose number is
    /// that of these extensions before.
    pub(super) fn counted_on(extensions: &Extensions, attempt: u32) -> Self {
        let Self(before) = Self::of(extensions);
        Self(before.saturating_add(attempt.saturating_sub(1)))
    }

    /// Writes the number for the upstream, in place of the caller's fields.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.insert(ENVOY_ATTEMPT, HeaderValue::from(self.0));
        if self.0 > 1 {
            headers.insert(GRPC_PREVIOUS, HeaderValue::from(self.0 - 1));
        } else {
            // gRFC A6: absent on the first attempt.
            headers.remove(GRPC_PREVIOUS);
        }
    }
}

const ENVOY_ATTEMPT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const GRPC_PREVIOUS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
