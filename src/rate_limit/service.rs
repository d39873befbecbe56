//! The service.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    protocol::{Plain, Protocol},
    rate_limit::{ResponseFuture, handle::State},
    striped::Striped,
};

/// A service behind a [`RateLimitLayer`](super::RateLimitLayer).
///
/// A token is taken in `call`, and not given back when the call is dropped: the peer may have seen it.
#[derive(Debug, Clone)]
pub struct RateLimit<S, P = Plain> {
    inner: S,
    state: Striped<State>,
    protocol: P,
}

impl<S, P> RateLimit<S, P> {
    pub(super) fn new(inner: S, state: Striped<State>, protocol: P) -> Self {
        Self { inner, state, protocol }
    }
}

impl<S, P, Req> Service<Req> for RateLimit<S, P>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error>,
{
    type Response = P::Response<()>;
    type Error = P::Error;
    type Future = ResponseFuture<S::Future, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner.poll_ready(cx).map_err(|error| self.protocol.not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let protocol = self.protocol.clone();
        match self.state.acquire() {
            Ok(()) => ResponseFuture::admitted(protocol, || self.inner.call(request)),
            Err(rejected) => ResponseFuture::rejected(protocol, rejected),
        }
    }
}
