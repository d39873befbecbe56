//! The service.

use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    circuit_breaker::{Permit, ResponseFuture, handle::admit, keyed::circuits::Circuits},
    protocol::{Plain, Protocol},
};

/// A service behind a [`KeyedCircuitBreakerLayer`](super::KeyedCircuitBreakerLayer).
///
/// Its readiness is that of the inner service, whatever the circuits: the key is known only with
/// the request.
pub struct KeyedCircuitBreaker<S, K, F, P = Plain> {
    inner: S,
    circuits: Arc<Circuits<K>>,
    key: F,
    protocol: P,
}

impl<S, K, F, P> KeyedCircuitBreaker<S, K, F, P> {
    pub(super) fn new(inner: S, circuits: Arc<Circuits<K>>, key: F, protocol: P) -> Self {
        Self {
            inner,
            circuits,
            key,
            protocol,
        }
    }
}

impl<S, K, F, P, Req> Service<Req> for KeyedCircuitBreaker<S, K, F, P>
where
    S: Service<Req>,
    K: Hash + Eq + Clone,
    F: Fn(&Req) -> K,
    P: Protocol<S::Response, S::Error>,
{
    type Response = P::Response<Permit>;
    type Error = P::Error;
    type Future = ResponseFuture<S, P, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.protocol.not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let protocol = self.protocol.clone();
        match admit(&self.circuits.circuit((self.key)(&request))) {
            Ok(permit) => ResponseFuture::admitted(protocol, permit, || self.inner.call(request)),
            // The readied inner service stays so, for the next call.
            Err(rejected) => ResponseFuture::rejected(protocol, rejected),
        }
    }
}

impl<S: Clone, K, F: Clone, P: Clone> Clone for KeyedCircuitBreaker<S, K, F, P> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.circuits.clone(),
            self.key.clone(),
            self.protocol.clone(),
        )
    }
}

impl<S: fmt::Debug, K, F, P> fmt::Debug for KeyedCircuitBreaker<S, K, F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreaker")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
