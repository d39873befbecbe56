//! The service of a timeout.

use std::{
    marker::PhantomData,
    mem,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    CarryDeadline,
    protocol::{Plain, Protocol},
    sync::Striped,
    timeout::{ResponseFuture, TimeoutScope, ToResponse, future::TimedCall, state::State},
};

/// A service behind a [`TimeoutLayer`](super::TimeoutLayer).
#[derive(Debug)]
pub struct Timeout<S, P = Plain, M = ToResponse> {
    inner: S,
    readiness: Readiness,
    state: Striped<State>,
    protocol: P,
    scope: PhantomData<fn() -> M>,
}

/// The inner service's last answer to `poll_ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Unasked,
    Pending,
    Ready,
}

impl<S, P, M> Timeout<S, P, M> {
    pub(super) fn new(inner: S, state: Striped<State>, protocol: P) -> Self {
        Self {
            inner,
            readiness: Readiness::Unasked,
            state,
            protocol,
            scope: PhantomData,
        }
    }

    /// Takes the inner service that was polled, and leaves a fresh clone. Whatever the old one has
    /// reserved is freed when it is dropped, or used when it is called.
    fn take_inner(&mut self) -> S
    where
        S: Clone,
    {
        let fresh = self.inner.clone();
        mem::replace(&mut self.inner, fresh)
    }
}

impl<S, P, M, Req> Service<Req> for Timeout<S, P, M>
where
    S: Service<Req> + Clone,
    P: Protocol<S::Response, S::Error> + CarryDeadline<Req>,
    M: TimeoutScope<P::Response<()>>,
{
    type Response = M::Response;
    type Error = P::Error;
    type Future = ResponseFuture<S, P, Req, M>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        match self.inner.poll_ready(cx) {
            // In total, the call waits for readiness, within its time.
            Poll::Pending if self.state.covers_readiness() => {
                self.readiness = Readiness::Pending;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                self.readiness = Readiness::Ready;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.protocol.not_ready(error))),
        }
    }

    #[inline]
    fn call(&mut self, mut request: Req) -> Self::Future {
        let readiness = mem::replace(&mut self.readiness, Readiness::Unasked);
        let state = self.state.here();
        let mut within = TimedCall::of(self.protocol.clone(), state);
        let limit = match within.begin(state, &mut request) {
            Ok(limit) => limit,
            Err(rejected) => {
                drop(self.take_inner());
                return ResponseFuture::rejected(rejected, within);
            }
        };
        if readiness == Readiness::Pending {
            return ResponseFuture::unready(self.take_inner(), request, limit, within);
        }
        ResponseFuture::sent(self.inner.call(request), limit, within)
    }
}

impl<S: Clone, P: Clone, M> Clone for Timeout<S, P, M> {
    /// Clones the service. The clone has not been polled for readiness.
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.state.clone(),
            self.protocol.clone(),
        )
    }
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, P, M> tonic::server::NamedService for Timeout<S, P, M> {
    const NAME: &'static str = S::NAME;
}
