//! The service.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    bulkhead::{
        Permit, ResponseFuture,
        handle::{State, enter},
    },
    protocol::{Plain, Protocol},
    striped::Striped,
};

/// A service behind a [`BulkheadLayer`](super::BulkheadLayer).
#[derive(Debug, Clone)]
pub struct Bulkhead<S, P = Plain> {
    inner: S,
    state: Striped<State>,
    protocol: P,
}

impl<S, P> Bulkhead<S, P> {
    pub(super) fn new(inner: S, state: Striped<State>, protocol: P) -> Self {
        Self {
            inner,
            state,
            protocol,
        }
    }
}

impl<S, P, Req> Service<Req> for Bulkhead<S, P>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error>,
{
    type Response = P::Response<Permit>;
    type Error = P::Error;
    type Future = ResponseFuture<S::Future, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.protocol.not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let protocol = self.protocol.clone();
        match enter(&self.state) {
            Ok(permit) => ResponseFuture::admitted(protocol, permit, || self.inner.call(request)),
            Err(rejected) => ResponseFuture::rejected(protocol, rejected),
        }
    }
}
