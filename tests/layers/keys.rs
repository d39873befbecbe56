//! Keys of whatever type, wherever their layers are used.

use std::{
    io,
    task::{Context, Poll},
};

use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    algorithm::TokenBucket,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    observe::Totals,
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

/// A call of a key succeeds or fails; no key is 0.
async fn call<S: Service<(u32, bool)> + Clone>(service: &S, key: u32, fails: bool) {
    let _ = service.clone().oneshot((key, fails)).await;
}

fn by_key((key, _): &(u32, bool)) -> Option<u32> {
    (*key > 0).then_some(*key)
}

/// Key 3 succeeds once; key 1 succeeds twice and fails once; key 2 succeeds once, which where there
/// is room for two evicts key 3; and two calls without a key succeed.
async fn calls<L, S>(layer: &L)
where
    L: Layer<Upstream, Service = S>,
    S: Service<(u32, bool)> + Clone,
{
    let service = layer.layer(Upstream);
    for (key, fails) in [(3, false), (1, false), (1, true), (1, false), (2, false)] {
        call(&service, key, fails).await;
    }
    call(&service, 0, false).await;
    call(&service, 0, false).await;
}

#[derive(Clone)]
struct Upstream;

impl Service<(u32, bool)> for Upstream {
    type Response = ();
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (_, fails): (u32, bool)) -> Self::Future {
        std::future::ready(match fails {
            true => Err(io::Error::other("as told")),
            false => Ok(()),
        })
    }
}

/// Of each key: admitted, success, failure.
fn of(totals: Totals) -> [u64; 3] {
    [totals.admitted, totals.success, totals.failure]
}

#[tokio::test]
async fn each_key_counts_its_own_calls() {
    let breaker = CircuitBreakerLayer::builder().protocol(Plain::new());
    let breaker = breaker.keyed_by(by_key).build().unwrap();
    calls(&breaker).await;
    let handle = breaker.handle();
    let key = |key| of(handle.key(&key).unwrap().snapshot().totals);
    assert_eq!([key(1), key(2), key(3)], [[3, 2, 1], [1, 1, 0], [1, 1, 0]]);
    assert_eq!(of(handle.shared().snapshot().totals), [2, 2, 0]);
    assert_eq!(of(handle.totals()), [7, 6, 1]);

    let bulkhead = BulkheadLayer::builder(9).keyed_by(by_key).max_keys(2);
    let bulkhead = bulkhead.build().unwrap();
    calls(&bulkhead).await;
    let handle = bulkhead.handle();
    let key = |key| of(handle.key(&key).unwrap().snapshot().totals);
    assert_eq!([key(1), key(2)], [[3, 2, 1], [1, 1, 0]]);
    assert!(handle.key(&3).is_none());
    assert_eq!(of(handle.shared().snapshot().totals), [2, 2, 0]);
    assert_eq!(of(handle.totals()), [7, 6, 1]);

    let throttle = ThrottleLayer::builder().protocol(Plain::new());
    let throttle = throttle.keyed_by(by_key).build().unwrap();
    calls(&throttle).await;
    let handle = throttle.handle();
    let key = |key| of(handle.key(&key).unwrap().snapshot().totals);
    assert_eq!([key(1), key(2), key(3)], [[3, 2, 1], [1, 1, 0], [1, 1, 0]]);
    assert_eq!(of(handle.shared().snapshot().totals), [2, 2, 0]);
    assert_eq!(of(handle.totals()), [7, 6, 1]);
}

#[tokio::test]
async fn each_key_counts_what_its_limit_decides() {
    let wide = || TokenBucket::new(Rate::per_second(100), 100).unwrap();
    for within in [false, true] {
        let per_key = RateLimitLayer::builder(Rate::per_second(100))
            .per_key(by_key, |_| TokenBucket::new(Rate::per_day(1), 2));
        let per_key = match within {
            true => per_key.within(wide()),
            false => per_key,
        };
        let per_key = per_key.build().unwrap();
        calls(&per_key).await;
        let handle = per_key.handle();
        let counts = |totals: Totals| (totals.admitted, totals.rejected.local());
        let key = |key| counts(handle.key(&key).unwrap().snapshot().totals);
        assert_eq!([key(1), key(2), key(3)], [(2, 1), (1, 0), (1, 0)]);
        assert_eq!(counts(handle.shared().snapshot().totals), (2, 0));
        assert_eq!(counts(handle.totals()), (6, 1));
    }
}

#[tokio::test]
async fn each_host_of_a_stack_counts_its_own_calls() {
    use http::{Request, Response};
    use http_body_util::Empty;

    type Body = Empty<bytes::Bytes>;
    let stack = tower_keep::stack::client().http().build().unwrap();
    let service = stack.layer(service_fn(async |_| {
        Ok::<_, io::Error>(Response::new(Body::new()))
    }));
    for host in ["a", "b", "a", "a"] {
        let request = Request::get(format!("http://{host}/")).body(Body::new());
        let answered = service.clone().oneshot(request.unwrap()).await;
        assert!(answered.unwrap().status().is_success());
    }
    let now = stack.handle().snapshot();
    let counts = |host: &str| {
        let of_host = |name: &Option<tower_keep::keyed::Host>| {
            name.as_ref().map(ToString::to_string).as_deref() == Some(host)
        };
        let circuit = now.circuits.iter().find(|(name, _)| of_host(name)).unwrap();
        let bulkhead = now.bulkheads.iter().find(|(name, _)| of_host(name));
        let bulkhead = bulkhead.map(|(_, bulkhead)| bulkhead.totals.success);
        (circuit.1.totals.success, bulkhead)
    };
    assert_eq!((counts("a").0, counts("b").0), (3, 1));
    assert!(counts("a").1.is_none_or(|successes| successes == 3));
}
