use std::{
    future::Ready,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::{
    Rejected, RejectedKind,
    ambient::clock::Now,
    bulkhead::{BulkheadGate, BulkheadLayer},
    circuit_breaker::{BreakerState, CircuitBreakerLayer, CircuitGate},
    gate::{Asking, Chain, GateLayer, Permit, ResponseFuture},
    protocol::Plain,
    rate_limit::{LimitGate, Rate, RateLimitLayer},
};

mod asked;
mod forwarding;
mod readiness;

const SECOND: Duration = Duration::from_secs(1);

async fn echo(n: u32) -> Result<u32, BoxError> {
    Ok(n)
}

fn kind(error: &BoxError) -> RejectedKind {
    Rejected::find(&**error).expect("a rejection").kind
}

fn one_a_second() -> Asking<LimitGate> {
    RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .max_wait(SECOND)
        .gate()
        .unwrap()
}

#[test]
fn what_a_call_holds_is_small() {
    type Future<G> = ResponseFuture<tower::util::ServiceFn<fn(u64) -> Answer>, G, Plain, u64>;
    type Answer = Ready<Result<u64, BoxError>>;
    type Three = Chain<CircuitGate, Chain<Asking<LimitGate>, BulkheadGate>>;

    assert_eq!(size_of::<Permit<CircuitGate>>(), 16);
    assert_eq!(size_of::<Permit<BulkheadGate>>(), 16);
    assert_eq!(size_of::<Permit<Three>>(), 32);
    assert_eq!(size_of::<Answer>(), 24);
    for size in [
        size_of::<Future<CircuitGate>>(),
        size_of::<Future<BulkheadGate>>(),
        size_of::<Future<Asking<LimitGate>>>(),
    ] {
        assert!(size <= 48, "{size}");
    }
    assert!(size_of::<Future<Three>>() <= 64);
}

#[tokio::test(start_paused = true)]
async fn a_later_rejection_costs_earlier_gates_nothing() {
    let breaker = CircuitBreakerLayer::builder()
        .jitter(false)
        .probes(1)
        .gate()
        .unwrap();
    let circuit = breaker.handle();
    let limit = RateLimitLayer::builder(Rate::per_day(1))
        .burst(2)
        .gate()
        .unwrap();
    let units = limit.handle();
    let bulkhead = BulkheadLayer::builder(1).gate().unwrap();
    let layer = GateLayer::new((breaker, limit, bulkhead)).protocol(Plain::new());
    let mut held = Box::pin(
        layer
            .layer(service_fn(async |_: u32| {
                std::future::pending::<Result<u32, BoxError>>().await
            }))
            .oneshot(0),
    );
    assert!((&mut held).now_or_never().is_none());
    let service = layer.layer(service_fn(echo));
    for _ in 0..10 {
        let error = service.clone().oneshot(1).await.unwrap_err();
        assert_eq!(kind(&error), RejectedKind::BulkheadFull);
    }
    assert_eq!(units.snapshot().available, 1);
    assert_eq!(circuit.snapshot().counts.total(), 0);
    drop(held);
    assert_eq!(service.oneshot(1).await.unwrap(), 1);
    assert_eq!(
        (
            units.snapshot().available,
            circuit.snapshot().counts.successes
        ),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_later_gate_rejects_is_free_again() {
    let breaker = CircuitBreakerLayer::builder()
        .min_calls(1)
        .jitter(false)
        .probes(1)
        .open_for(SECOND)
        .gate()
        .unwrap();
    let circuit = breaker.handle();
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .gate()
        .unwrap();
    let units = limit.handle();
    let layer = GateLayer::new((breaker, limit)).protocol(Plain::new());
    let failing = layer.layer(service_fn(async |_: u32| {
        Err::<u32, BoxError>("down".into())
    }));
    failing.oneshot(1).await.unwrap_err();
    assert_eq!(circuit.state(), BreakerState::Open);
    advance(SECOND).await;
    units.charge(1);
    let service = layer.layer(service_fn(echo));
    let error = service.clone().oneshot(1).await.unwrap_err();
    assert_eq!(kind(&error), RejectedKind::RateLimited);
    assert_eq!(circuit.state(), BreakerState::HalfOpen);
    units.refund(1);
    assert_eq!(service.oneshot(1).await.unwrap(), 1);
    assert_eq!(circuit.state(), BreakerState::Closed);
}

#[test]
fn a_closure_that_panics_leaves_earlier_gates_whole() {
    let bulkhead = BulkheadLayer::builder(1).gate().unwrap();
    let places = bulkhead.handle();
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .cost(|n: &u32| 1 / (n - 1) + 1)
        .gate()
        .unwrap();
    let mut service = GateLayer::new((bulkhead, limit))
        .protocol(Plain::new())
        .layer(service_fn(echo));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(service.call(1)))).is_err();
    assert_eq!((panicked, places.snapshot().in_flight), (true, 0));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opened_during_a_wait_elsewhere_rejects() {
    let breaker = CircuitBreakerLayer::builder().gate().unwrap();
    let circuit = breaker.handle();
    let limit = one_a_second();
    let units = limit.handle();
    let service = GateLayer::new((breaker, limit))
        .protocol(Plain::new())
        .layer(service_fn(echo));
    service.clone().oneshot(0).await.unwrap();
    let waits = tokio::spawn(service.oneshot(1));
    tokio::task::yield_now().await;
    assert_eq!(units.snapshot().waiting, 1);
    circuit.force_open();
    let error = waits.await.unwrap().unwrap_err();
    assert_eq!(kind(&error), RejectedKind::CircuitOpen);
    // The unit that it waited for is free for another call.
    assert_eq!(units.snapshot().available, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_gives_back_what_the_first_granted() {
    let bulkhead = BulkheadLayer::builder(1).gate().unwrap();
    let places = bulkhead.handle();
    let service = GateLayer::new((bulkhead, one_a_second()))
        .protocol(Plain::new())
        .layer(service_fn(echo));
    service.clone().oneshot(0).await.unwrap();
    let mut waits = Box::pin(service.clone().oneshot(1));
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(places.snapshot().in_flight, 1);
    drop(waits);
    assert_eq!(places.snapshot().in_flight, 0);
    advance(SECOND).await;
    assert_eq!(service.oneshot(2).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_fails_before_the_call_counts() {
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(1)
        .build()
        .unwrap();
    let circuit = breaker.handle();
    circuit.force_open();
    let mut service = breaker.layer(Broken);
    service.ready().await.unwrap();
    circuit.close();
    // Admitted, though the inner service was not polled: it is polled now, and fails.
    let error = service.call(1).await.unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert_eq!(circuit.state(), BreakerState::Open);
}

#[derive(Clone)]
struct Broken;

impl Service<u32> for Broken {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("broken".into()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        unreachable!("it was never ready")
    }
}

#[tokio::test(start_paused = true)]
async fn the_present_of_a_decision_is_read_once() {
    let now = Now::unread();
    let first = now.instant();
    advance(SECOND).await;
    assert_eq!(now.instant(), first);
}
