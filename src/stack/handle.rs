//! The control surface of a whole stack.

use crate::{
    bulkhead::{BulkheadHandle, KeyedBulkheadHandle},
    circuit_breaker::KeyedCircuitBreakerHandle,
    keyed::Host,
    rate_limit::RateLimitHandle,
    retry::RetryHandle,
    timeout::TimeoutHandle,
};

/// The handles of a client's parts. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientHandle {
    /// How long a call may take with all its attempts.
    pub total_timeout: TimeoutHandle,
    /// The retries, and the budget that pays for them.
    pub retry: RetryHandle,
    /// A circuit for each host.
    pub circuit_breaker: KeyedCircuitBreakerHandle<Host>,
    /// The rate, if there is one.
    pub rate_limit: Option<RateLimitHandle>,
    /// A bulkhead for each host.
    pub bulkhead: KeyedBulkheadHandle<Host>,
    /// How long one attempt may take.
    pub attempt_timeout: TimeoutHandle,
}

/// The handles of a server's parts. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerHandle {
    /// The rate, if there is one.
    pub rate_limit: Option<RateLimitHandle>,
    /// What is in flight.
    pub bulkhead: BulkheadHandle,
    /// How long a call may take.
    pub timeout: TimeoutHandle,
}
