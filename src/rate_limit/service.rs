//! The service.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    protocol::{Plain, Protocol},
    rate_limit::{Actual, Meter, Metered, Permit, ResponseFuture, state::State},
    striped::Striped,
};

/// A service behind a [`RateLimitLayer`](super::RateLimitLayer) or a
/// [`KeyedRateLimitLayer`](super::KeyedRateLimitLayer).
///
/// Units are taken in `call`, or when a waiting call's turn comes, and not given back when the call
/// is dropped after that: the peer may have seen it. A call that waits leaves the inner service
/// ready for the next one and takes a clone, which it makes ready after the wait: nothing that the
/// inner service gives out with its readiness is held meanwhile.
#[derive(Debug, Clone)]
pub struct RateLimit<S, M = Metered<Plain>> {
    inner: S,
    state: Striped<State>,
    metered: M,
}

impl<S, M> RateLimit<S, M> {
    pub(super) fn new(inner: S, state: Striped<State>, metered: M) -> Self {
        Self {
            inner,
            state,
            metered,
        }
    }
}

impl<S, M, B, Req> Service<Req> for RateLimit<S, M>
where
    S: Service<Req> + Clone,
    M: Meter<Req, Bill = B>,
    B: Protocol<S::Response, S::Error> + Actual<S::Response>,
{
    type Response = B::Response<Permit>;
    type Error = B::Error;
    type Future = ResponseFuture<S, M, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), B::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.metered.bill().not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let admission = self.state.admit(&self.metered, &request);
        ResponseFuture::new(
            &mut self.inner,
            request,
            &self.metered,
            &self.state,
            admission,
        )
    }
}
