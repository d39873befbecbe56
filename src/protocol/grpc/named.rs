//! Layered services keep their names, so that they still go into `Server::add_service`.

use tonic::server::NamedService;

use crate::{
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, KeyedCircuitBreaker},
    rate_limit::{ListedRateLimit, RateLimit},
    retry::Retry,
    timeout::Timeout,
};

impl<S: NamedService, P> NamedService for CircuitBreaker<S, P> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, K, F, P> NamedService for KeyedCircuitBreaker<S, K, F, P> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, P> NamedService for Bulkhead<S, P> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, M> NamedService for RateLimit<S, M> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, K, F, M> NamedService for ListedRateLimit<S, K, F, M> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, P> NamedService for Timeout<S, P> {
    const NAME: &'static str = S::NAME;
}

impl<S: NamedService, P> NamedService for Retry<S, P> {
    const NAME: &'static str = S::NAME;
}
