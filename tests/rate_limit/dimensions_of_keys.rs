//! Several quotas for each key, within a total.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    protocol::Plain,
    rate_limit::{Dimension, Rate, RateLimitLayer},
};

/// A tenant, and the tokens that its call costs.
type Prompt = (u32, u64);

const SECOND: Duration = Duration::from_secs(1);

fn tokens(rate: u64, burst: u64) -> [Dimension; 1] {
    [Dimension::new("tokens", Rate::per_second(rate)).burst(burst)]
}

fn cost((_, tokens): &Prompt) -> [u64; 1] {
    [*tokens]
}

fn tenant((tenant, _): &Prompt) -> Option<u32> {
    Some(*tenant)
}

async fn model(_: Prompt) -> Result<(), BoxError> {
    Ok(())
}

async fn ask<S>(service: &S, prompt: Prompt) -> Result<(), Rejected>
where
    S: Service<Prompt, Response = (), Error = BoxError> + Clone,
{
    let answer = service.clone().oneshot(prompt).await;
    answer.map_err(|error| Rejected::find(&*error).expect("a rejection").clone())
}

/// A quarter of the total's burst is all shares' together, and a call above it may use it once.
#[tokio::test(start_paused = true)]
async fn a_call_above_half_of_the_total_gets_a_true_hint() {
    let limit = RateLimitLayer::dimensions(tokens(20, 50))
        .cost(cost)
        .keyed_by(tenant)
        .within(tokens(30, 60))
        .shares(|tenant| 1 + *tenant)
        .build()
        .unwrap();
    let service = limit.layer(service_fn(model));
    ask(&service, (1, 1)).await.unwrap();
    ask(&service, (0, 10)).await.unwrap();
    let rejected = ask(&service, (0, 31)).await.unwrap_err();
    advance(rejected.retry_after.unwrap()).await;
    ask(&service, (0, 31)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_leaves_the_reserve_is_told() {
    let limit = RateLimitLayer::dimensions(tokens(10, 100))
        .cost(cost)
        .keyed_by(tenant)
        .within(tokens(10, 100))
        .shares(|_| 0)
        .max_wait(60 * SECOND)
        .build()
        .unwrap();
    let service = limit.layer(service_fn(model));
    ask(&service, (0, 50)).await.unwrap();
    let too_high = async || {
        let rejected = ask(&service, (0, 60)).await.unwrap_err();
        assert_eq!(rejected.kind, RejectedKind::CostTooHigh);
        assert_eq!(rejected.retry_after, None);
    };
    too_high().await;
    // Behind a call that waits for the reserve too.
    let mut waiter = std::pin::pin!(ask(&service, (0, 50)));
    assert!(futures::poll!(waiter.as_mut()).is_pending());
    too_high().await;
    waiter.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_never_fits_is_told_at_once() {
    let limit = RateLimitLayer::dimensions(tokens(20, 50))
        .cost(cost)
        .keyed_by(tenant)
        .within(tokens(30, 60))
        .max_wait(5 * SECOND)
        .build()
        .unwrap();
    let service = limit.layer(service_fn(model));
    ask(&service, (0, 50)).await.unwrap();
    let start = Instant::now();
    let rejected = ask(&service, (1, 51)).await.unwrap_err();
    assert_eq!(rejected.kind, RejectedKind::CostTooHigh);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// The end of another tenant's stream gives back what its call had estimated.
#[tokio::test(start_paused = true)]
async fn a_waiter_sees_what_another_key_gives_back() {
    let limit = RateLimitLayer::dimensions(tokens(10, 100))
        .cost(cost)
        .keyed_by(tenant)
        .within(tokens(1, 100))
        .max_wait(100 * SECOND)
        .build()
        .unwrap();
    let service = limit.layer(service_fn(model));
    ask(&service, (1, 100)).await.unwrap();
    let start = Instant::now();
    let waiter = ask(&service, (2, 90));
    let give_back = async {
        sleep(SECOND).await;
        limit.handle().settle(&1, [100], [2]);
    };
    let (answer, ()) = tokio::join!(waiter, give_back);
    answer.unwrap();
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn keys_past_the_bound_are_settled_too() {
    let limit = RateLimitLayer::dimensions(tokens(1, 100))
        .cost(cost)
        .keyed_by(tenant)
        .max_keys(1)
        .build()
        .unwrap();
    let (service, handle) = (limit.layer(service_fn(model)), limit.handle());
    ask(&service, (0, 100)).await.unwrap();
    let _first = handle.key(&0);
    ask(&service, (1, 100)).await.unwrap();
    assert!(handle.key(&1).is_none(), "it found no room");
    handle.settle(&1, [100], [10]);
    ask(&service, (1, 90)).await.unwrap();
    assert!(ask(&service, (0, 90)).await.is_err(), "another's");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_owes_nothing_makes_room() {
    let limit = RateLimitLayer::dimensions(tokens(1, 100))
        .cost(cost)
        .keyed_by(tenant)
        .max_keys(1)
        .build()
        .unwrap();
    let (service, handle) = (limit.layer(service_fn(model)), limit.handle());
    ask(&service, (0, 100)).await.unwrap();
    sleep(200 * SECOND).await;
    ask(&service, (1, 100)).await.unwrap();
    assert!(handle.key(&0).is_none() && handle.key(&1).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_total_can_be_reset_and_changed() {
    let limit = RateLimitLayer::dimensions(tokens(10, 100))
        .cost(cost)
        .keyed_by(tenant)
        .within(tokens(1, 100))
        .build()
        .unwrap();
    let (service, handle) = (limit.layer(service_fn(model)), limit.handle());
    let total = handle.total().expect("there is one");
    // A provider that reports nonsense.
    handle.settle(&0, [0], [u64::MAX]);
    assert!(ask(&service, (1, 1)).await.unwrap_err().retry_after > Some(3600 * SECOND));
    total.reset();
    ask(&service, (1, 100)).await.unwrap();
    assert_eq!(total.snapshot()[0].available, 0);
    total.update("tokens", Rate::per_second(50), 50).unwrap();
    assert!(total.update("dollars", Rate::per_second(50), 50).is_err());
    total.reset();
    assert_eq!(total.snapshot()[0].available, 50);
}

#[test]
fn a_gate_has_a_handle() {
    let gate = RateLimitLayer::dimensions(tokens(1, 10)).gate().unwrap();
    gate.handle().charge([4]);
    assert_eq!(gate.handle().snapshot().dimensions[0].available, 6);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_wait() {
    type Call = (u64, Option<Instant>);
    let limit = RateLimitLayer::dimensions(tokens(1, 10))
        .deadline(|(_, deadline): &Call| *deadline)
        .cost(|(tokens, _): &Call| [*tokens])
        .max_wait(60 * SECOND)
        .protocol(Plain::new())
        .build()
        .unwrap();
    let service = limit.layer(service_fn(async |_: Call| Ok::<_, BoxError>(())));
    let ask = async |deadline: Duration| {
        let call = (10, Some(Instant::now() + deadline));
        let error = service.clone().oneshot(call).await.err()?;
        Some(Rejected::find(&*error).unwrap().kind)
    };
    let start = Instant::now();
    let late = Some(RejectedKind::DeadlineExceeded);
    assert_eq!(ask(Duration::ZERO).await, late);
    assert_eq!(ask(SECOND).await, None);
    assert_eq!(ask(5 * SECOND).await, Some(RejectedKind::RateLimited));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(ask(11 * SECOND).await, None);
    assert_eq!(start.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_update_changes_every_key() {
    let build = || {
        let limit = RateLimitLayer::dimensions(tokens(1, 10)).cost(cost);
        limit
            .max_wait(20 * SECOND)
            .keyed_by(tenant)
            .build()
            .unwrap()
    };
    let limit = build();
    let (service, handle) = (limit.layer(service_fn(model)), limit.handle());
    ask(&service, (0, 10)).await.unwrap();
    let start = Instant::now();
    let waiter = ask(&service, (0, 10));
    let update = async {
        sleep(SECOND).await;
        handle.update("tokens", Rate::per_second(10), 100).unwrap()
    };
    let (answer, changed) = tokio::join!(waiter, update);
    answer.unwrap();
    assert!(!changed.is_empty());
    // The larger burst has room for it, which it is told. It would have waited ten seconds.
    assert_eq!(start.elapsed(), SECOND);
    ask(&service, (1, 10)).await.unwrap();
    let of = |key| handle.key(&key).unwrap().snapshot().dimensions[0].rate;
    assert_eq!([of(0), of(1)], [Rate::per_second(10); 2]);
    assert!(handle.update("tokens", Rate::per_second(10), 0).is_err());
    assert!(handle.update("dollars", Rate::per_second(10), 1).is_err());
    assert_eq!(of(0), Rate::per_second(10));

    // Two at once: all keys have the same in the end.
    let handle = build().handle();
    std::thread::scope(|scope| {
        for rate in [5, 7] {
            let handle = &handle;
            scope.spawn(move || {
                for key in 0..50 {
                    let _ = handle.make(&(key * rate));
                    let rate = Rate::per_second(u64::from(rate));
                    handle.update("tokens", rate, 10).unwrap();
                }
            });
        }
    });
    let shared = handle.shared().snapshot().dimensions[0].rate;
    for (key, of_key) in handle.keys() {
        assert_eq!(of_key.snapshot().dimensions[0].rate, shared, "{key}");
    }
}

#[test]
fn quotas_made_by_a_closure_are_changed_by_key() {
    let limit = RateLimitLayer::dimensions(tokens(1, 10)).cost(cost);
    let limit = limit.per_key(tenant, |_| Ok(tokens(2, 20)));
    let handle = limit.build().unwrap().handle();
    let error = handle
        .update("tokens", Rate::per_second(3), 30)
        .unwrap_err();
    assert!(error.to_string().contains("per_key"), "{error}");
    let own = handle.make(&1).unwrap();
    own.update("tokens", Rate::per_second(3), 30).unwrap();
}
