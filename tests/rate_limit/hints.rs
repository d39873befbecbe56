//! A rejected call that waits exactly as long as it is told is admitted, whatever the limits.
#![allow(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{io, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::yield_now,
    time::{Instant, advance},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::{
        All, LeakyBucket, Limit, Rate, SlidingCounter, SlidingLog, SlidingRing, TokenBucket,
    },
    gate::GateLayer,
    protocol::Plain,
    rate_limit::{Dimension, RateLimitLayer},
};

/// A key and a cost.
type Ask = (u32, u32);
const SECOND: Duration = Duration::from_secs(1);

type Calls = BoxCloneSyncService<Ask, (), BoxError>;

fn over_good<L>(layer: L) -> Calls
where
    L: Layer<BoxCloneSyncService<Ask, (), io::Error>>,
    L::Service: Service<Ask, Response = (), Error = BoxError> + Clone + Send + Sync + 'static,
    <L::Service as Service<Ask>>::Future: Send,
{
    let good = BoxCloneSyncService::new(service_fn(async |_: Ask| Ok(())));
    BoxCloneSyncService::new(layer.layer(good))
}

fn any_limit(random: &mut StdRng) -> Arc<dyn Limit> {
    let rate = Rate::new(
        random.random_range(1..12),
        Duration::from_micros(random.random_range(900..3_000_000)),
    );
    match random.random_range(0..5) {
        0 => Arc::new(TokenBucket::new(rate, random.random_range(1..9)).unwrap()),
        1 => Arc::new(LeakyBucket::new(rate, Duration::ZERO).unwrap()),
        2 => Arc::new(SlidingLog::new(rate).unwrap()),
        3 => Arc::new(SlidingCounter::new(rate).unwrap()),
        _ => Arc::new(SlidingRing::new(rate, 10).unwrap()),
    }
}

fn any_layer(random: &mut StdRng) -> Calls {
    let form = random.random_range(0..8);
    let limit = any_limit(random);
    let other = any_limit(random);
    let seed: u64 = random.random();
    let rate = Rate::new(
        random.random_range(1..12),
        Duration::from_micros(random.random_range(900..3_000_000)),
    );
    let burst = random.random_range(1..9);
    let cost = |ask: &Ask| ask.1;
    let key = |ask: &Ask| Some(ask.0);
    let of_key = move |key: &u32| {
        let mut own = StdRng::seed_from_u64(seed + u64::from(*key));
        Ok(any_limit(&mut own))
    };
    let table = || {
        RateLimitLayer::builder(rate)
            .burst(burst)
            .keyed_by(key)
            .cost(cost)
    };
    match form {
        0 => over_good(RateLimitLayer::with(limit).cost(cost).build().unwrap()),
        1 => {
            let all = All::new(limit).and(other);
            over_good(RateLimitLayer::with(all).cost(cost).build().unwrap())
        }
        2 => {
            let layer = RateLimitLayer::builder(rate)
                .per_key(key, of_key)
                .cost(cost);
            over_good(layer.build().unwrap())
        }
        3 => over_good(table().build().unwrap()),
        4 => over_good(table().within(limit).build().unwrap()),
        5 => over_good(table().max_keys(2).build().unwrap()),
        6 => {
            let one = table().gate().unwrap();
            let two = RateLimitLayer::with(limit).cost(cost).gate().unwrap();
            over_good(GateLayer::new((one, two)).protocol(Plain::new()))
        }
        _ => {
            let one = RateLimitLayer::with(limit).cost(cost).gate().unwrap();
            let two = RateLimitLayer::builder(rate)
                .per_key(key, of_key)
                .cost(cost);
            over_good(GateLayer::new((one, two.gate().unwrap())).protocol(Plain::new()))
        }
    }
}

async fn ask(calls: &Calls, ask: Ask) -> Result<(), (RejectedKind, Option<Duration>)> {
    let answer = calls.clone().oneshot(ask).await;
    answer.map_err(|error| {
        let rejected = Rejected::find(&*error).unwrap();
        (rejected.kind, rejected.retry_after)
    })
}

#[tokio::test(start_paused = true)]
async fn waiting_as_told_succeeds_at_any_limits() {
    let mut waits = 0;
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let calls = any_layer(&mut random);
        // Each key has its limit from now on.
        for key in 0..4 {
            ask(&calls, (key, 0)).await.unwrap();
        }
        for _ in 0..60 {
            let request = (random.random_range(0..4), random.random_range(0..5));
            match ask(&calls, request).await {
                Err((RejectedKind::RateLimited, hint)) if random.random_bool(0.5) => {
                    advance(hint.unwrap()).await;
                    let again = ask(&calls, request).await;
                    assert_eq!(again, Ok(()), "{seed}: {request:?} after {hint:?}");
                    waits += 1;
                }
                _ => advance(Duration::from_micros(random.random_range(0..300_000))).await,
            }
        }
    }
    assert!(waits > 1000, "{waits}");
}

/// Neither for a wait nor for a hint of the limit before it.
#[tokio::test(start_paused = true)]
async fn a_cost_that_a_later_limit_never_admits_is_told() {
    let cost = |ask: &Ask| ask.1;
    for max_wait in [Duration::ZERO, 100 * SECOND] {
        let first = RateLimitLayer::builder(Rate::per_second(1)).burst(5);
        let first = first.max_wait(max_wait).cost(cost).gate().unwrap();
        let second = RateLimitLayer::builder(Rate::per_second(1)).burst(2);
        let second = second.cost(cost).name("second").gate().unwrap();
        let calls = over_good(GateLayer::new((first, second)).protocol(Plain::new()));
        for _ in 0..2 {
            ask(&calls, (0, 2)).await.unwrap();
            advance(2 * SECOND).await;
        }
        // Five units are left.
        assert_eq!(
            ask(&calls, (0, 3)).await,
            Err((RejectedKind::CostTooHigh, None))
        );
        let emptied = ask(&calls, (0, 1)).await;
        emptied.unwrap();
        // It is the rejection of the limit that never admits it.
        let error = calls.clone().oneshot((0, 5)).await.unwrap_err();
        assert_eq!(Rejected::find(&*error).unwrap().name, Some("second"));
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(
                ask(&calls, (0, 5)).await,
                Err((RejectedKind::CostTooHigh, None))
            );
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_vain_is_told_of_both_limits() {
    let cost = |ask: &Ask| ask.1;
    let first = RateLimitLayer::builder(Rate::per_second(10)).burst(1);
    let first = first.max_wait(SECOND / 2).cost(cost).gate().unwrap();
    let second = RateLimitLayer::builder(Rate::per_minute(1)).burst(1);
    let (handle, second) = (first.handle(), second.cost(cost).gate().unwrap());
    let calls = over_good(GateLayer::new((first, second)).protocol(Plain::new()));
    ask(&calls, (0, 1)).await.unwrap();
    let waiting = calls.clone();
    let waiting = tokio::spawn(async move { ask(&waiting, (0, 1)).await });
    yield_now().await;
    assert!(!waiting.is_finished());
    handle.close_for(SECOND);
    let expected = Err((RejectedKind::RateLimited, Some(60 * SECOND)));
    assert_eq!(waiting.await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_off_lengthens_no_hint() {
    let cost = |ask: &Ask| ask.1;
    let first = || {
        let first = RateLimitLayer::builder(Rate::per_second(10)).burst(2);
        first.cost(cost).gate().unwrap()
    };
    let off = || {
        RateLimitLayer::builder(Rate::per_hour(1))
            .burst(1)
            .enabled(false)
    };
    let table = off().keyed_by(|ask: &Ask| Some(ask.0)).cost(cost);
    let per_key = off().per_key(
        |ask: &Ask| Some(ask.0),
        |_| TokenBucket::new(Rate::per_hour(1), 1),
    );
    let dimensions = RateLimitLayer::dimensions([Dimension::new("units", Rate::per_hour(1))])
        .cost(|ask: &Ask| [u64::from(ask.1)])
        .enabled(false);
    let (whole, table) = (off().cost(cost).gate().unwrap(), table.gate().unwrap());
    let (per_key, dimensions) = (
        per_key.cost(cost).gate().unwrap(),
        dimensions.gate().unwrap(),
    );
    let plain = Plain::new;
    for calls in [
        over_good(GateLayer::new((first(), whole)).protocol(plain())),
        over_good(GateLayer::new((first(), table)).protocol(plain())),
        over_good(GateLayer::new((first(), per_key)).protocol(plain())),
        over_good(GateLayer::new((first(), dimensions)).protocol(plain())),
    ] {
        ask(&calls, (0, 2)).await.unwrap();
        let hint = Some(Duration::from_millis(200));
        assert_eq!(
            ask(&calls, (0, 2)).await,
            Err((RejectedKind::RateLimited, hint))
        );
    }
}
