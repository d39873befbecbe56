//! The service.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    protocol::{Plain, Protocol},
    striped::Striped,
    timeout::{ResponseFuture, handle::State},
};

/// A service behind a [`TimeoutLayer`](super::TimeoutLayer).
#[derive(Debug, Clone)]
pub struct Timeout<S, P = Plain> {
    inner: S,
    state: Striped<State>,
    protocol: P,
}

impl<S, P> Timeout<S, P> {
    pub(super) fn new(inner: S, state: Striped<State>, protocol: P) -> Self {
        Self {
            inner,
            state,
            protocol,
        }
    }
}

impl<S, P, Req> Service<Req> for Timeout<S, P>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error>,
{
    type Response = P::Response<()>;
    type Error = P::Error;
    type Future = ResponseFuture<S::Future, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.protocol.not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(
            self.inner.call(request),
            self.protocol.clone(),
            self.state.for_call(),
        )
    }
}
