//! The service.

use std::{
    mem,
    task::{Context, Poll, ready},
};

use tower::Service;

use crate::{
    circuit_breaker::{
        Permit, ResponseFuture,
        handle::{State, admit},
        wait::Wait,
    },
    protocol::{Plain, Protocol},
    striped::Striped,
};

/// A service behind a [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
#[derive(Debug)]
pub struct CircuitBreaker<S, P = Plain> {
    inner: S,
    readiness: Readiness,
    /// Under backpressure, while the circuit refuses.
    wait: Option<Wait>,
    state: Striped<State>,
    protocol: P,
}

/// What is known of the inner service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// It was not asked, because the circuit refuses.
    Unasked,
    /// It is ready for one call.
    Ready,
}

impl<S, P> CircuitBreaker<S, P> {
    pub(super) fn new(inner: S, state: Striped<State>, protocol: P) -> Self {
        Self {
            inner,
            readiness: Readiness::Unasked,
            wait: None,
            state,
            protocol,
        }
    }

    /// Whether the circuit refuses; under backpressure, once it does not.
    fn poll_refuses(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.state.refuses() {
            if !self.state.backpressure {
                return Poll::Ready(true);
            }
            let wait = self
                .wait
                .get_or_insert_with(|| Wait::new(self.state.clone()));
            ready!(wait.poll(cx));
            self.wait = None;
        }
        self.wait = None;
        Poll::Ready(false)
    }
}

impl<S, P, Req> Service<Req> for CircuitBreaker<S, P>
where
    S: Service<Req> + Clone,
    P: Protocol<S::Response, S::Error>,
{
    type Response = P::Response<Permit>;
    type Error = P::Error;
    type Future = ResponseFuture<S, P, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        if !ready!(self.poll_refuses(cx)) {
            ready!(self.inner.poll_ready(cx)).map_err(|error| self.protocol.not_ready(error))?;
            self.readiness = Readiness::Ready;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let protocol = self.protocol.clone();
        match admit(&self.state) {
            // A readied inner service stays so, for the next call.
            Err(rejected) => ResponseFuture::rejected(protocol, rejected),
            Ok(permit)
                if mem::replace(&mut self.readiness, Readiness::Unasked) == Readiness::Ready =>
            {
                ResponseFuture::admitted(protocol, permit, || self.inner.call(request))
            }
            Ok(permit) => ResponseFuture::once_ready(protocol, permit, self.inner.clone(), request),
        }
    }
}

impl<S: Clone, P: Clone> Clone for CircuitBreaker<S, P> {
    fn clone(&self) -> Self {
        // The clone's inner service has not been asked.
        Self::new(
            self.inner.clone(),
            self.state.clone(),
            self.protocol.clone(),
        )
    }
}
