//! One limit: what calls find.

use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    RejectedKind,
    rate_limit::{Outage, Rate, RateLimitLayer},
    store::Memory,
};

use crate::support::{admitted, call, echo, kind, ms, process};

#[tokio::test(start_paused = true)]
async fn the_first_call_waits_for_the_store() {
    let store = Memory::new().delay(ms(5), ms(5));
    let layer = process(&store, 100, 100).build().unwrap();
    let started = Instant::now();
    assert!(call(&layer).await.is_ok());
    let waited = started.elapsed();
    assert!(waited >= ms(10) && waited < ms(20), "{waited:?}");
    let fleet = layer.handle().fleet().unwrap().snapshot();
    assert_eq!((fleet.leased, fleet.exchanges), (1, 1));
    assert!(fleet.round_trip.unwrap() >= ms(10) && fleet.down_since.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_warm_call_does_not_wait_for_the_store() {
    let store = Memory::new().delay(ms(5), ms(5));
    let layer = process(&store, 1000, 1000).build().unwrap();
    let mut waited = 0;
    for _ in 0..1000 {
        let started = Instant::now();
        assert!(call(&layer).await.is_ok());
        waited += usize::from(started.elapsed() > ms(0));
        sleep(ms(2)).await;
    }
    assert!(waited < 30, "{waited} of 1000 waited, the first ones");
    let fleet = layer.handle().fleet().unwrap().snapshot();
    assert!(fleet.exchanges < 120, "{fleet:?}");
    // What was not spent has ended by then.
    sleep(Duration::from_secs(60)).await;
    let fleet = layer.handle().fleet().unwrap().snapshot();
    assert!(fleet.unspent > 0, "{fleet:?}");
    assert_eq!(fleet.leased, 1000 + fleet.unspent, "{fleet:?}");
}

#[tokio::test(start_paused = true)]
async fn processes_share_one_burst() {
    let store = Memory::new().delay(ms(1), ms(3));
    let layers = [(); 4].map(|()| process(&store, 100, 100).build().unwrap());
    let (mut total, started) = (0, Instant::now());
    for _ in 0..40 {
        for layer in &layers {
            total += admitted(layer, 1).await;
        }
    }
    let most = 100.0 + 100.0 * started.elapsed().as_secs_f64();
    assert!(
        f64::from(u32::try_from(total).unwrap()) <= most && total > 100,
        "{total} of {most}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_wait_the_first_call_is_rejected() {
    let store = Memory::new();
    let layer = process(&store, 100, 100).max_wait(ms(0)).build().unwrap();
    let rejected = call(&layer).await.unwrap_err();
    assert_eq!(rejected.kind, RejectedKind::RateLimited);
    sleep(rejected.retry_after.unwrap()).await;
    assert!(call(&layer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_over_the_limit_waits_no_longer_than_it_may() {
    let store = Memory::new().delay(ms(1), ms(1));
    let layer = process(&store, 10, 10).max_wait(ms(50)).build().unwrap();
    let mut longest = ms(0);
    for _ in 0..60 {
        let started = Instant::now();
        let _ = call(&layer).await;
        longest = longest.max(started.elapsed());
    }
    assert!(longest <= ms(52), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cost_up_to_the_burst_passes_beside_cheap_calls() {
    // given: another process takes whatever there is.
    let store = Memory::new().delay(ms(1), ms(1));
    let cheap = process(&store, 100, 100).build().unwrap();
    let greedy = tokio::spawn(async move {
        loop {
            let _ = call(&cheap).await;
            sleep(ms(1)).await;
        }
    });
    sleep(ms(3000)).await;
    // when
    let dear = process(&store, 100, 100)
        .cost(|cost: &u32| *cost)
        .max_wait(ms(2500))
        .build()
        .unwrap();
    let service = dear.layer(echo::<u32>());
    for cost in [40, 100] {
        let started = Instant::now();
        assert!(service.clone().oneshot(cost).await.is_ok(), "{cost}");
        assert!(
            started.elapsed() < ms(2500),
            "{cost}: {:?}",
            started.elapsed()
        );
    }
    let error = service.oneshot(101).await.unwrap_err();
    let rejected = tower_keep::Rejected::find(&*error).unwrap();
    assert_eq!(rejected.kind, RejectedKind::CostTooHigh);
    greedy.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_response_has_cost_is_told_to_the_store() {
    let store = Memory::new();
    let layer = process(&store, 100, 100)
        .settle(|used: &u32| *used)
        .build()
        .unwrap();
    let used = layer.layer(service_fn(async |used: u32| Ok::<_, BoxError>(used)));
    assert!(used.oneshot(60).await.is_ok());
    sleep(ms(20)).await;
    // Another process finds it used up: 50 are granted at most of a burst of 100.
    let other = process(&store, 100, 100).max_wait(ms(0)).build().unwrap();
    assert_eq!(admitted(&other, 10).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reset_reaches_all_processes() {
    let store = Memory::new();
    let layers = [(); 2].map(|()| process(&store, 1, 10).max_wait(ms(30)).build().unwrap());
    let mut total = 0;
    for _ in 0..20 {
        total += admitted(&layers[0], 1).await;
    }
    assert!((9..=10).contains(&total), "{total}");
    assert!(kind(&layers[1]).await.is_some());
    layers[0].handle().reset();
    sleep(ms(1100)).await;
    assert!(call(&layers[1]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_update_holds_from_the_next_ask_on() {
    let store = Memory::new();
    let layer = process(&store, 100, 100).build().unwrap();
    let handle = layer.handle();
    assert!(call(&layer).await.is_ok());
    handle.set_rate(Rate::per_second(10), 10).unwrap();
    assert_eq!(
        (handle.snapshot().rate, handle.snapshot().burst),
        (Rate::per_second(10), 10)
    );
    let error = handle.set_rate(Rate::per_second(100), 1).unwrap_err();
    assert!(
        error.field == "burst" && error.value.contains("40"),
        "{error}"
    );
    sleep(ms(2000)).await;
    let mut total = 0;
    let started = Instant::now();
    while started.elapsed() < ms(4000) {
        total += admitted(&layer, 1).await;
        sleep(ms(10)).await;
    }
    assert!((30..=50).contains(&total), "{total}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_limit_admits_nothing_and_opens_again() {
    let store = Memory::new();
    let layer = process(&store, 100, 100).build().unwrap();
    assert!(call(&layer).await.is_ok());
    layer.handle().close_for(ms(2000));
    assert!(call(&layer).await.is_err());
    advance(ms(2000)).await;
    assert!(call(&layer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_never_above_limit_holds_in_any_window() {
    let store = Memory::new();
    let rate = Rate::never_above(100, ms(2000));
    let layer = RateLimitLayer::builder(rate)
        .fleet(&store, "api")
        .build()
        .unwrap();
    let mut times = Vec::new();
    for _ in 0..800 {
        if call(&layer).await.is_ok() {
            times.push(Instant::now());
        }
        sleep(ms(10)).await;
    }
    assert!(times.len() > 300, "{}", times.len());
    for (first, moment) in times.iter().enumerate() {
        let window = times[first..]
            .iter()
            .take_while(|time| **time - *moment < ms(2000));
        assert!(window.count() <= 100);
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let store = Memory::new();
    let error = process(&store, 100, 1).build().unwrap_err();
    assert_eq!((error.field, error.layer), ("burst", Some("rate_limit")));
    assert!(error.value.contains("40 is the least"), "{error}");
    let alone = RateLimitLayer::builder(Rate::per_second(1)).while_down(Outage::Open);
    assert_eq!(alone.build().unwrap_err().field, "while_down");
    for share in [0.0, 1.5, f64::NAN, 0.001] {
        let local = process(&store, 100, 100).while_down(Outage::Local { share });
        assert_eq!(local.build().unwrap_err().field, "while_down");
    }
    let log = tower_keep::algorithm::SlidingLog::new(Rate::per_second(9)).unwrap();
    let given = RateLimitLayer::with(log).fleet(&store, "api");
    assert_eq!(given.build().unwrap_err().field, "limit");
}
