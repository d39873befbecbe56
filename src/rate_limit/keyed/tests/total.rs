//! A limit that all keys together stay within.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{JoinHandle, yield_now},
    time::advance,
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::{
    Rejected, RejectedKind,
    algorithm::{Limit, TokenBucket},
    ambient::clock::Clock,
    gate::CostOf,
    keyed::KeyFn,
    protocol::Plain,
    rate_limit::{KeyedRateLimitLayer, Rate, RateLimitLayer},
};

/// The key of a call, and its cost.
type Call = (char, u32);
type Log = Arc<Mutex<Vec<(char, u64)>>>;
type Costed = ((), CostOf<fn(&Call) -> u32>);
type ByName = KeyFn<fn(&Call) -> Option<char>, Call>;
type Layered = KeyedRateLimitLayer<ByName, Plain, Costed>;

/// Builds a limit with `own` for each key and `total` for all: a rate per second, and a burst.
fn within(own: (u64, u32), total: &Arc<TokenBucket>) -> Layered {
    with_keys(1000, own, total)
}

fn with_keys(keys: usize, own: (u64, u32), total: &Arc<TokenBucket>) -> Layered {
    let cost: fn(&Call) -> u32 = |call| call.1;
    let key: fn(&Call) -> Option<char> = |call| Some(call.0);
    let limit = RateLimitLayer::builder(Rate::per_second(own.0))
        .burst(own.1)
        .max_wait(Duration::from_secs(60))
        .cost(cost);
    limit
        .keyed_by(key)
        .max_keys(keys)
        .within(total.clone())
        .build()
        .unwrap()
}

fn bucket(rate: u64, burst: u32) -> Arc<TokenBucket> {
    Arc::new(TokenBucket::new(Rate::per_second(rate), burst).unwrap())
}

/// Records the key of each call, and its time in milliseconds.
fn noting() -> (
    impl Service<Call, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
    Log,
) {
    let (log, clock) = (Log::default(), Clock::start());
    let noted = log.clone();
    let service = service_fn(move |call: Call| {
        noted
            .lock()
            .unwrap()
            .push((call.0, clock.now() / 1_000_000));
        async move { Ok::<_, BoxError>(()) }
    });
    (service, log)
}

async fn all(tasks: impl IntoIterator<Item = JoinHandle<Result<(), BoxError>>>) {
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

fn rejection(error: &BoxError) -> &Rejected {
    Rejected::find(&**error).unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_is_charged_together_with_the_key_or_neither_is() {
    // given: a burst of three for all, two for each, and no waiting.
    let total = bucket(10, 3);
    let tenants = RateLimitLayer::builder(Rate::per_second(1))
        .burst(2)
        .keyed_by(|call: &Call| Some(call.0));
    let layer = tenants.within(total.clone()).build().unwrap();
    let (inner, _) = noting();
    let admitted = async |name| layer.layer(inner.clone()).oneshot((name, 1)).await.is_ok();
    // when, then: a rejection by the key costs the total nothing,
    assert!(admitted('a').await && admitted('a').await && !admitted('a').await);
    assert_eq!(total.available(0), 1);
    // and a rejection by the total costs the key nothing.
    assert!(admitted('b').await && !admitted('b').await && !admitted('c').await);
    advance(Duration::from_millis(200)).await;
    assert!(admitted('c').await && admitted('c').await && !admitted('b').await);
}

#[tokio::test(start_paused = true)]
async fn a_total_rejection_costs_an_overflowing_key_nothing() {
    let total = bucket(1, 100);
    let layer = with_keys(1, (1, 3), &total);
    // All slots are in debt.
    "abcdefgh"
        .chars()
        .for_each(|name| layer.handle().charge(&name, 3));
    total.charge(200, 0);
    let (inner, _) = noting();
    for _ in 0..10 {
        assert!(layer.layer(inner.clone()).oneshot(('z', 1)).await.is_err());
    }
    total.refund(500, 0);
    assert!(layer.layer(inner).oneshot(('z', 1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_enough_for_both() {
    let total = bucket(1, 1);
    let tenants = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .keyed_by(|call: &Call| Some(call.0));
    let layer = tenants.within(total).build().unwrap();
    let (inner, _) = noting();
    assert!(layer.layer(inner.clone()).oneshot(('a', 1)).await.is_ok());
    let error = layer.layer(inner).oneshot(('a', 1)).await.unwrap_err();
    assert_eq!(rejection(&error).retry_after, Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn what_it_never_admits_is_told_so() {
    let layer = within((10, 10), &bucket(10, 3));
    let (inner, _) = noting();
    let error = layer.layer(inner).oneshot(('a', 4)).await.unwrap_err();
    assert_eq!(rejection(&error).kind, RejectedKind::CostTooHigh);
    assert_eq!(layer.handle().snapshot_of(&'a').burst, 3);
}

#[tokio::test(start_paused = true)]
async fn charges_and_refunds_but_no_penalties_reach_it() {
    let total = bucket(10, 3);
    let layer = within((10, 3), &total);
    layer.handle().close_for(&'a', Duration::from_secs(60));
    assert_eq!(total.wait(1, 0), Duration::ZERO);
    layer.handle().charge(&'b', 2);
    assert_eq!(total.available(0), 1);
    layer.handle().refund(&'b', 1);
    assert_eq!(total.available(0), 2);
    layer.handle().settle(&'b', 1, 3);
    assert_eq!(
        (
            total.available(0),
            layer.handle().snapshot_of(&'b').available
        ),
        (0, 0)
    );
    layer.handle().reset(&'b');
    assert_eq!(total.available(0), 0);
    total.refund(3, 0);
    assert_eq!(layer.handle().snapshot_of(&'b').available, 3);
}

#[tokio::test(start_paused = true)]
async fn waiters_for_it_leave_in_order_before_a_newcomer() {
    let layer = within((100, 10), &bucket(10, 1));
    let (inner, log) = noting();
    let tasks: Vec<_> = "abca"
        .chars()
        .map(|name| tokio::spawn(layer.layer(inner.clone()).oneshot((name, 1))))
        .collect();
    yield_now().await;
    // The moment at which the second call is due.
    advance(Duration::from_millis(100)).await;
    let newcomer = tokio::spawn(layer.layer(inner).oneshot(('n', 1)));
    all(tasks.into_iter().chain([newcomer])).await;
    assert_eq!(
        *log.lock().unwrap(),
        [('a', 0), ('b', 100), ('c', 200), ('a', 300), ('n', 400)]
    );
    assert_eq!(layer.handle().snapshot().waiting, 0);
}

/// Sends all calls of one key at once, with a total that is never reached.
async fn rushed(rate: u64, calls: usize, max_wait: Duration) -> (usize, u64) {
    let limit = RateLimitLayer::builder(Rate::per_second(rate))
        .burst(1)
        .max_waiting(calls)
        .max_wait(max_wait);
    let layer = limit
        .keyed_by(|call: &Call| Some(call.0))
        .within(bucket(1_000_000, 100_000))
        .build()
        .unwrap();
    let (inner, log) = noting();
    let answers =
        futures::future::join_all((0..calls).map(|_| layer.layer(inner.clone()).oneshot(('a', 1))))
            .await;
    let last = log.lock().unwrap().last().map_or(0, |(_, time)| *time);
    (answers.iter().filter(|answer| answer.is_ok()).count(), last)
}

// Regression: a call that was due within the last tick of its `max_wait` waited to its end, and was
// then rejected.
#[tokio::test(start_paused = true)]
async fn a_wait_of_exactly_max_wait_may_end_a_tick_late() {
    assert_eq!(
        rushed(7, 3, Duration::from_nanos(142_857_143)).await,
        (2, 143)
    );
}

// Regression: the key's lateness was lost on the way to the total.
#[tokio::test(start_paused = true)]
async fn a_rate_above_the_timers_ticks_is_kept_with_a_total() {
    let (admitted, last) = rushed(2000, 2000, Duration::from_secs(10)).await;
    assert!(
        admitted == 2000 && (995..=1005).contains(&last),
        "{admitted} in {last} ms"
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_unpolled_waiter_delays_no_other_key() {
    let limit = RateLimitLayer::builder(Rate::per_second(10))
        .burst(10)
        .max_wait(Duration::from_millis(150));
    let layer = limit
        .keyed_by(|call: &Call| Some(call.0))
        .within(bucket(10, 1))
        .build()
        .unwrap();
    let (inner, _) = noting();
    assert!(layer.layer(inner.clone()).oneshot(('x', 1)).await.is_ok());
    let mut ahead = Box::pin(layer.layer(inner.clone()).oneshot(('a', 1)));
    assert!(futures::poll!(&mut ahead).is_pending());
    advance(Duration::from_secs(60)).await;
    assert!(layer.layer(inner).oneshot(('b', 1)).await.is_ok());
    assert!(ahead.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_closed_keys_hint_ignores_waiters_for_the_total() {
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .max_wait(Duration::from_millis(500));
    let layer = limit
        .keyed_by(|call: &Call| Some(call.0))
        .within(bucket(1, 1))
        .build()
        .unwrap();
    let (inner, _) = noting();
    assert!(layer.layer(inner.clone()).oneshot(('x', 1)).await.is_ok());
    advance(Duration::from_millis(600)).await;
    let waits = tokio::spawn(layer.layer(inner.clone()).oneshot(('b', 1)));
    yield_now().await;
    layer.handle().close_for(&'a', Duration::from_secs(30));
    let error = layer.layer(inner).oneshot(('a', 1)).await.unwrap_err();
    assert_eq!(rejection(&error).retry_after, Some(Duration::from_secs(30)));
    all([waits]).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_waits_for_its_own_limit_holds_nobody_up() {
    let layer = within((1, 1), &bucket(10, 1));
    let (inner, log) = noting();
    let tasks: Vec<_> = "aaab"
        .chars()
        .map(|name| tokio::spawn(layer.layer(inner.clone()).oneshot((name, 1))))
        .collect();
    all(tasks).await;
    assert_eq!(
        *log.lock().unwrap(),
        [('a', 0), ('b', 100), ('a', 1000), ('a', 2000)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_penalty_spares_calls_that_wait_for_the_total() {
    let layer = within((100, 10), &bucket(1, 1));
    let (inner, log) = noting();
    let tasks: Vec<_> = "xab"
        .chars()
        .map(|name| tokio::spawn(layer.layer(inner.clone()).oneshot((name, 1))))
        .collect();
    yield_now().await;
    layer.handle().close_for(&'a', Duration::from_secs(10));
    all(tasks).await;
    // The key's limit had admitted it before the penalty. The next call of that key waits.
    all([tokio::spawn(layer.layer(inner).oneshot(('a', 1)))]).await;
    assert_eq!(
        *log.lock().unwrap(),
        [('x', 0), ('a', 1000), ('b', 2000), ('a', 10_000)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancel_and_a_refund_advance_its_waiters() {
    let layer = within((100, 10), &bucket(1, 1));
    let (inner, log) = noting();
    let tasks: Vec<_> = "xabc"
        .chars()
        .map(|name| tokio::spawn(layer.layer(inner.clone()).oneshot((name, 1))))
        .collect();
    yield_now().await;
    assert_eq!(layer.handle().snapshot().waiting, 3);
    tasks[1].abort();
    yield_now().await;
    // A key without waiters.
    layer.handle().refund(&'x', 1);
    for task in tasks {
        let _ = task.await;
    }
    assert_eq!(*log.lock().unwrap(), [('x', 0), ('b', 0), ('c', 1000)]);
    assert_eq!(layer.handle().snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn waiters_of_a_hundred_keys_are_woken_once_each() {
    let layer = within((1, 1), &bucket(100, 1));
    let (inner, log) = noting();
    let polls = Arc::new(AtomicUsize::new(0));
    let names = (0..100).filter_map(|number| char::from_u32(0x4e00 + number));
    let calls: Vec<_> = names
        .map(|name| {
            let (mut call, polls) = (
                Box::pin(layer.layer(inner.clone()).oneshot((name, 1))),
                polls.clone(),
            );
            tokio::spawn(poll_fn(move |cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                call.as_mut().poll(cx)
            }))
        })
        .collect();
    all(calls).await;
    let times: Vec<_> = log.lock().unwrap().iter().map(|(_, time)| *time).collect();
    assert_eq!(times, (0..100).map(|slot| slot * 10).collect::<Vec<_>>());
    assert!(polls.load(Ordering::Relaxed) <= 250, "{polls:?} polls");
}
