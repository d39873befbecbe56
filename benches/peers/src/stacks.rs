//! Retry, circuit breaker, rate limit, bulkhead and timeout, outermost first, as each crate has
//! them. No limit is ever reached and no call fails: what is compared is the cost of a call that
//! succeeds.

use std::{fmt, num::NonZeroU32, time::Duration};

use governor::Quota;
use recloser::Recloser;
use seatbelt::{RecoveryInfo, ResilienceContext};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, util::MapErr,
};
use tower_keep::{
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::{Always, ErrIsFailure, Plain},
    rate_limit::{Rate, RateLimitBuilder, RateLimitLayer},
    retry::RetryLayer,
    stack,
    timeout::TimeoutLayer,
};
use tower_resilience::{bulkhead, circuitbreaker, ratelimiter, retry, timelimiter};

use crate::mixed::{Attempts, governor_layer, recloser_layer};

const SECOND: Duration = Duration::from_secs(1);
const RATE: u32 = 100_000_000;
const PLACES: usize = 1000;

/// What every stack takes and is: one that a task may own.
pub trait Stack:
    Service<u64, Response = u64, Error: Send, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Stack for S where
    S: Service<u64, Response = u64, Error: Send, Future: Send> + Clone + Send + Sync + 'static
{
}

/// A service that fails with tower's error, as the bottom of a stack.
pub trait Leaf: Stack + Service<u64, Response = u64, Error = BoxError> {}

impl<S> Leaf for S where S: Stack + Service<u64, Response = u64, Error = BoxError> {}

/// tower-keep, each layer by itself.
pub fn keep_five(leaf: impl Leaf) -> impl Stack {
    ServiceBuilder::new()
        .layer(keep_retry())
        .layer(
            CircuitBreakerLayer::builder()
                .protocol(Plain::new())
                .build()
                .unwrap(),
        )
        .layer(keep_limit())
        .layer(BulkheadLayer::builder(PLACES).build().unwrap())
        .layer(keep_timeout())
        .service(leaf)
}

/// tower-keep, with breaker, rate limit and bulkhead in one layer.
pub fn keep_gates(leaf: impl Leaf) -> impl Stack {
    let gates = (
        CircuitBreakerLayer::builder().gate().unwrap(),
        keep_limits().gate().unwrap(),
        BulkheadLayer::builder(PLACES).gate().unwrap(),
    );
    ServiceBuilder::new()
        .layer(keep_retry())
        .layer(GateLayer::new(gates).protocol(Plain::new()))
        .layer(keep_timeout())
        .service(leaf)
}

/// tower-keep's ready-made client stack, with a rate and places, for calls of any kind.
pub fn keep_client(leaf: impl Leaf, name: Option<&'static str>) -> impl Stack {
    let client = stack::client()
        .plain(Plain::new().idempotent())
        .rate_limit(keep_limits())
        .max_in_flight(PLACES)
        .total_timeout(30 * SECOND)
        .attempt_timeout(SECOND);
    let client = match name {
        Some(name) => client.name(name),
        None => client,
    };
    client.build().unwrap().layer(leaf)
}

/// tower-keep's timeout.
pub fn keep_timeout() -> TimeoutLayer {
    TimeoutLayer::builder(SECOND).build().unwrap()
}

fn keep_limits() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(RATE.into())).burst(RATE)
}

/// tower-keep's rate limit.
pub fn keep_limit() -> RateLimitLayer {
    keep_limits().build().unwrap()
}

/// tower-keep's retry, of any request.
pub fn keep_retry() -> RetryLayer<Plain<ErrIsFailure, Always>> {
    RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap()
}

/// The best that a user can put together: governor, recloser, and tower's retry, concurrency limit
/// and timeout.
pub fn mixed_five(leaf: impl Leaf) -> impl Stack {
    ServiceBuilder::new()
        .retry(Attempts(3))
        .layer(recloser_layer(Recloser::custom().build()))
        .layer(governor_layer(quota()))
        .layer(GlobalConcurrencyLimitLayer::new(PLACES))
        .timeout(SECOND)
        .service(leaf)
}

/// governor's quota.
pub fn quota() -> Quota {
    let rate = NonZeroU32::new(RATE).unwrap();
    Quota::per_second(rate).allow_burst(rate)
}

/// seatbelt's retry, breaker and timeout. It has no limits: governor and tower stand in. The
/// bulkhead is outermost, because seatbelt's retry calls a clone that was never polled ready, at
/// which tower's concurrency limit panics.
///
/// Needs tokio's context, which its clock looks for.
pub fn seatbelt_five(leaf: impl Leaf) -> impl Stack {
    let context = seatbelt_context();
    let retry = seatbelt::retry::Retry::layer("retry", &context)
        .clone_input()
        .recovery_with(|result, _| recovery(result));
    let timeout = seatbelt::timeout::Timeout::layer("timeout", &context)
        .timeout(SECOND)
        .timeout_error(|_| "out of time".into());
    ServiceBuilder::new()
        .layer(GlobalConcurrencyLimitLayer::new(PLACES))
        .layer(retry)
        .layer(seatbelt_breaker())
        .layer(governor_layer(quota()))
        .layer(timeout)
        .service(leaf)
}

/// seatbelt's breaker.
pub fn seatbelt_breaker() -> Configured {
    seatbelt::breaker::Breaker::layer("breaker", &seatbelt_context())
        .recovery_with(|result, _| recovery(result))
        .rejected_input_error(|_, _| "the circuit is open".into())
}

type Configured = seatbelt::breaker::BreakerLayer<
    u64,
    Result<u64, BoxError>,
    seatbelt::typestates::Set,
    seatbelt::typestates::Set,
>;

fn seatbelt_context() -> ResilienceContext<u64, Result<u64, BoxError>> {
    ResilienceContext::new(tick::Clock::new_tokio())
}

fn recovery(result: &Result<u64, BoxError>) -> RecoveryInfo {
    match result {
        Ok(_) => RecoveryInfo::never(),
        Err(_) => RecoveryInfo::retry(),
    }
}

/// tower-resilience. Its retry wants a `Clone` error, which its other layers do not have.
pub fn resilience_five(leaf: impl Leaf) -> impl Stack {
    let beneath = ServiceBuilder::new()
        .layer(resilience_breaker())
        .layer(resilience_limit())
        .layer(resilience_bulkhead())
        .layer(
            timelimiter::TimeLimiterLayer::builder()
                .timeout_duration(SECOND)
                .build(),
        )
        .service(MapErr::new(leaf, |_| Failed));
    retry::RetryLayer::<u64, u64, Failed>::builder()
        .max_attempts(3)
        .build()
        .layer(MapErr::new(beneath, |_| Failed))
}

/// tower-resilience's circuit breaker.
pub fn resilience_breaker() -> circuitbreaker::CircuitBreakerLayer {
    circuitbreaker::CircuitBreakerLayer::builder()
        .build()
        .unwrap()
}

/// tower-resilience's rate limit.
pub fn resilience_limit() -> ratelimiter::RateLimiterLayer {
    ratelimiter::RateLimiterLayer::builder()
        .limit_for_period(1_000_000_000)
        .refresh_period(SECOND)
        .timeout_duration(SECOND)
        .build()
        .unwrap()
}

/// tower-resilience's bulkhead.
pub fn resilience_bulkhead() -> bulkhead::BulkheadLayer {
    bulkhead::BulkheadLayer::builder()
        .max_concurrent_calls(PLACES)
        .build()
        .unwrap()
}

#[derive(Debug, Clone)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}
