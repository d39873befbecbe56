//! The service.

use std::{
    mem,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    protocol::{Plain, Protocol, Replay},
    retry::{ResponseFuture, handle::State},
    striped::Striped,
};

/// A service behind a [`RetryLayer`](super::RetryLayer).
#[derive(Debug, Clone)]
pub struct Retry<S, P = Plain> {
    inner: S,
    state: Striped<State>,
    protocol: P,
}

impl<S, P> Retry<S, P> {
    pub(super) fn new(inner: S, state: Striped<State>, protocol: P) -> Self {
        Self { inner, state, protocol }
    }
}

impl<S, P, Req> Service<Req> for Retry<S, P>
where
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
{
    type Response = P::Response<()>;
    type Error = P::Error;
    type Future = ResponseFuture<S, P, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner.poll_ready(cx).map_err(|error| self.protocol.not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let protocol = self.protocol.clone();
        let (request, kept) = match self.state.may_retry() {
            true => protocol.prepare(request),
            false => (protocol.once(request), None),
        };
        let Some(kept) = kept else {
            return ResponseFuture::once(self.inner.call(request), protocol, self.state.clone());
        };
        // The readied service makes this call and its retries; the clone, not readied, stays for the next call.
        let clone = self.inner.clone();
        let mut readied = mem::replace(&mut self.inner, clone);
        ResponseFuture::again(readied.call(request), readied, kept, protocol, self.state.clone())
    }
}
