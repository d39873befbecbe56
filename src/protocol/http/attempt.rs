//! Which attempt a request is.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

/// Which attempt of its call a request is, from 1: an extension that a
/// [retry](crate::retry) leaves in what it sends again.
///
/// The first attempt carries none, so that it costs nothing; [`Attempt::of`] knows that.
///
/// ```
/// use tower_keep::protocol::http::Attempt;
///
/// assert_eq!(Attempt::of(http::Request::new(()).extensions()), Attempt(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u32);

impl Attempt {
    /// That of a request with these extensions.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self(1))
    }

    /// Tells the upstream, in place of what the caller may have said.
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
