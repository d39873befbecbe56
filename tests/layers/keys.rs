//! Keys of whatever type, wherever their layers are used.

use std::io;

use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    algorithm::TokenBucket,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    throttle::ThrottleLayer,
};

/// A key that is a reference.
fn route(_: &u32) -> Option<&'static str> {
    Some("/users/{id}")
}

fn echo()
-> impl Service<u32, Response = u32, Error = io::Error, Future: Send> + Clone + Send + Sync + 'static
{
    service_fn(async |n: u32| Ok(n))
}

fn second() -> Rate {
    Rate::per_second(9)
}

// It is enough that this compiles: the services themselves travel into the tasks, where the
// compiler takes the lifetime of a key for another at each place where it is written.
#[tokio::test]
async fn services_with_reference_keys_can_be_spawned() {
    let breaker = CircuitBreakerLayer::builder().keyed_by(route);
    let throttle = ThrottleLayer::builder().keyed_by(route);
    let limit = RateLimitLayer::builder(second()).keyed_by(route);
    let per_key = RateLimitLayer::builder(second())
        .per_key(route, |_| TokenBucket::new(second(), 9))
        .within(TokenBucket::new(second(), 9).unwrap());
    let bulkhead = BulkheadLayer::builder(9).keyed_by(route).limit_for(|_| 9);

    let gates = (
        breaker.gate().unwrap(),
        throttle.gate().unwrap(),
        limit.gate().unwrap(),
        per_key.gate().unwrap(),
    );
    let service = GateLayer::new(gates).protocol(Plain::new()).layer(echo());
    let all = tokio::spawn(async move { service.oneshot(1).await.unwrap() });
    assert_eq!(all.await.unwrap(), 1);

    let mut service = bulkhead.build().unwrap().layer(echo());
    let calls = tokio::spawn(async move { service.ready().await.unwrap().call(1).await.unwrap() });
    assert_eq!(calls.await.unwrap(), 1);
}

#[tokio::test]
async fn a_key_may_be_given_as_it_is_borrowed() {
    let limit = RateLimitLayer::builder(Rate::per_day(1))
        .burst(9)
        .keyed_by(|n: &u32| Some(format!("tenant-{n}")))
        .build()
        .unwrap();
    let service = limit.layer(echo());
    service.oneshot(7).await.unwrap();
    let handle = limit.handle();
    assert_eq!(handle.snapshot_of("tenant-7").available, 8);
    handle.charge("tenant-7", 2);
    assert_eq!(handle.snapshot_of(&"tenant-7".to_owned()).available, 6);
    handle.refund("tenant-7", 1);
    handle.reset("tenant-7");
    assert_eq!(handle.snapshot_of("tenant-7").available, 9);
}
