//! Stacks of five that reject every call, by one of their parts.

use std::{
    future::{Future, Pending, Ready, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use governor::Quota;
use recloser::Recloser;
use tower::{BoxError, Layer, Service, ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_keep::{
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    timeout::TimeoutLayer,
};

use crate::{
    leaf::Echo,
    mixed::{Attempts, governor_layer, recloser_layer},
    stacks::{Stack, keep_limit, keep_retry, quota},
};

/// The part that rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The rate limit, whose units are spent.
    Limit,
    /// The circuit breaker, which is open.
    Circuit,
    /// The bulkhead, which is full.
    Bulkhead,
}

/// tower-keep's five, each layer by itself.
pub fn keep(part: Part) -> impl Stack {
    let breaker = CircuitBreakerLayer::builder().protocol(Plain::new());
    let breaker = breaker.build().unwrap();
    let spent = RateLimitLayer::builder(Rate::per_day(1)).burst(1);
    let limit = match part {
        Part::Limit => spent.build().unwrap(),
        _ => keep_limit(),
    };
    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    match part {
        Part::Limit => limit.handle().charge(1),
        Part::Circuit => breaker.handle().force_open(),
        Part::Bulkhead => fill(bulkhead.layer(Hangs)),
    }
    ServiceBuilder::new()
        .layer(keep_retry())
        .layer(breaker)
        .layer(limit)
        .layer(bulkhead)
        .layer(TimeoutLayer::builder(SECOND).build().unwrap())
        .service(Echo)
}

/// The mixed stack, by its rate limit or its circuit breaker. Its bulkhead is tower's concurrency
/// limit, which lets calls wait and rejects none.
///
/// Needs tokio's context for its timeouts.
pub fn mixed(part: Part) -> impl Stack {
    let quota = match part {
        Part::Limit => Quota::with_period(24 * 3600 * SECOND).unwrap(),
        _ => quota(),
    };
    let fails = Arc::new(AtomicBool::new(part == Part::Circuit));
    let breaker = Recloser::custom().error_rate(0.1).closed_len(1).build();
    let mut stack = ServiceBuilder::new()
        .retry(Attempts(1))
        .layer(recloser_layer(breaker))
        .layer(governor_layer(quota))
        .layer(GlobalConcurrencyLimitLayer::new(1000))
        .timeout(SECOND)
        .service(Fails(fails.clone()));
    // Spends the unit, or opens the circuit.
    for _ in 0..10 {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stack.poll_ready(&mut cx).is_ready());
        assert!(pin!(stack.call(0)).poll(&mut cx).is_ready());
    }
    fails.store(false, Ordering::Relaxed);
    stack
}

/// Takes the one place of a bulkhead for good.
fn fill<S: Service<u64>>(mut bulkhead: S) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(bulkhead.poll_ready(&mut cx).is_ready());
    let mut call = Box::pin(bulkhead.call(0));
    assert!(call.as_mut().poll(&mut cx).is_pending());
    std::mem::forget(call);
}

/// Never answers.
#[derive(Clone)]
struct Hangs;

impl Service<u64> for Hangs {
    type Response = u64;
    type Error = BoxError;
    type Future = Pending<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        std::future::pending()
    }
}

/// Fails while it is told to.
#[derive(Clone)]
struct Fails(Arc<AtomicBool>);

impl Service<u64> for Fails {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(match self.0.load(Ordering::Relaxed) {
            true => Err("failed".into()),
            false => Ok(request),
        })
    }
}

const SECOND: Duration = Duration::from_secs(1);
