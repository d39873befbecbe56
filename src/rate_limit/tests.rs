use std::{
    cell::Cell,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{
    Rejected, RejectedKind,
    algorithm::{All, LeakyBucket, Limit, SlidingCounter, SlidingLog, SlidingRing, TokenBucket},
    ambient::clock::Clock,
    protocol::Plain,
};

type Log = Arc<Mutex<Vec<(u32, u128)>>>;

/// Records each call and its time. Panics if it is called before it was ready.
struct Probe {
    log: Log,
    clock: Clock,
    ready: bool,
}

impl Probe {
    fn new() -> (Self, Log) {
        let log = Log::default();
        (
            Self {
                log: log.clone(),
                clock: Clock::start(),
                ready: false,
            },
            log,
        )
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            clock: self.clock,
            ready: false,
        }
    }
}

impl Service<u32> for Probe {
    type Response = u32;
    type Error = Infallible;
    type Future = std::future::Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without readiness");
        self.log
            .lock()
            .unwrap()
            .push((request, u128::from(self.clock.now()) / 1_000_000));
        std::future::ready(Ok(request))
    }
}

fn rejection(error: &BoxError) -> &Rejected {
    Rejected::find(&**error).expect("a rejection")
}

/// A deadline in that many milliseconds, or none.
#[expect(
    clippy::disallowed_methods,
    reason = "a caller's deadline is a moment of tokio's clock"
)]
fn in_millis(request: &u32) -> Option<Instant> {
    (*request > 0).then(|| Instant::now() + Duration::from_millis(u64::from(*request)))
}

async fn polls<F: Future>(future: F, count: &AtomicUsize) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        count.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(cx)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn two_services_of_one_layer_share_one_limit() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .build()
        .unwrap();
    let [first, second] = [(); 2].map(|()| layer.layer(Probe::new().0));
    assert!(first.oneshot(1).await.is_ok());
    assert!(second.oneshot(2).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn waiting_exactly_the_hint_succeeds() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .name("search")
        .build()
        .unwrap();
    let service = layer.layer(Probe::new().0);
    assert!(service.clone().oneshot(1).await.is_ok());
    let error = service.clone().oneshot(2).await.unwrap_err();
    let rejected = rejection(&error);
    assert_eq!(
        (rejected.kind, rejected.name),
        (RejectedKind::RateLimited, Some("search"))
    );
    assert_eq!(rejected.retry_after, Some(Duration::from_millis(100)));
    advance(Duration::from_millis(100)).await;
    assert!(service.oneshot(3).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn waiters_leave_in_order_and_are_woken_once_each() {
    // given
    let layer = RateLimitLayer::builder(Rate::per_second(100))
        .burst(1)
        .max_wait(Duration::from_secs(10))
        .build()
        .unwrap();
    let (probe, log) = Probe::new();
    let polled = Arc::new(AtomicUsize::new(0));
    // when
    let tasks: Vec<_> = (0..400)
        .map(|number| {
            let (call, polled) = (layer.layer(probe.clone()).oneshot(number), polled.clone());
            tokio::spawn(async move { polls(call, &polled).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // then
    let log = log.lock().unwrap();
    let expected: Vec<_> = (0..400)
        .map(|number| (number, u128::from(number) * 10))
        .collect();
    assert_eq!(*log, expected);
    assert!(polled.load(Ordering::Relaxed) < 1000, "{polled:?} polls");
    assert_eq!(layer.handle().snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rate_above_the_timers_ticks_is_kept_by_waiters() {
    let bucket = TokenBucket::new(Rate::per_second(2000), 1).unwrap();
    let shaper = LeakyBucket::new(Rate::per_second(2000), Duration::ZERO).unwrap();
    for builder in [RateLimitLayer::with(bucket), RateLimitLayer::with(shaper)] {
        let layer = builder
            .max_wait(Duration::from_secs(10))
            .max_waiting(2000)
            .build()
            .unwrap();
        let (probe, log) = Probe::new();
        futures::future::join_all(
            (0..2000).map(|number| layer.layer(probe.clone()).oneshot(number)),
        )
        .await;
        let last = log.lock().unwrap().last().copied().unwrap();
        assert!((995..=1005).contains(&last.1), "{last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_cannot_be_met_is_rejected_at_once() {
    let layer = RateLimitLayer::builder(Rate::per_minute(1))
        .max_wait(Duration::from_millis(100))
        .build()
        .unwrap();
    let service = layer.layer(Probe::new().0);
    assert!(service.clone().oneshot(1).await.is_ok());
    let clock = Clock::start();
    let error = service.oneshot(2).await.unwrap_err();
    assert_eq!(clock.now(), 0);
    assert_eq!(rejection(&error).retry_after, Some(Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_call_due_at_its_deadline_does_not_wait() {
    // given: a call's number is its deadline in milliseconds, 0 for no deadline.
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .deadline(in_millis)
        .build()
        .unwrap();
    let (probe, log) = Probe::new();
    let call = |millis| tokio::spawn(layer.layer(probe.clone()).oneshot(millis));
    // when: the waiters are admitted after 100, 200 and 300 ms.
    let tasks = [
        call(0),
        call(101),
        call(100),
        call(0),
        call(201),
        call(300),
        call(301),
    ];
    let mut admitted = Vec::new();
    for task in tasks {
        admitted.push(task.await.unwrap().is_ok());
    }
    // then: a call that is too late makes room for the next, and a call without a deadline does not
    // wait.
    assert_eq!(admitted, [true, true, false, false, true, false, true]);
    assert_eq!(
        *log.lock().unwrap(),
        [(0, 0), (101, 100), (201, 200), (301, 300)]
    );
}

// In real time: on a paused clock no time passes between a call and its first poll.
#[tokio::test]
async fn one_that_may_not_wait_goes_behind_those_admitted() {
    let layer = RateLimitLayer::builder(Rate::per_second(1)).burst(3);
    let layer = layer.deadline(in_millis).build().unwrap();
    let service = layer.layer(Probe::new().0);
    for _ in 0..3 {
        assert!(service.clone().oneshot(0).await.is_ok());
    }
    let mut waiter = Box::pin(service.clone().oneshot(60_000));
    assert!(futures::poll!(&mut waiter).is_pending());
    // The waiter has its unit now, and is not polled yet.
    layer.handle().reset();
    assert_eq!(layer.handle().snapshot().waiting, 0);
    assert!(service.oneshot(0).await.is_ok());
    assert!(waiter.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_deadline_and_max_wait_holds() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .deadline(in_millis)
        .max_wait(Duration::from_millis(500));
    let layer = layer.build().unwrap();
    assert!(layer.layer(Probe::new().0).oneshot(0).await.is_ok());
    for (after, millis, expected) in [
        (0, 0, false),
        (0, 2000, false),
        (600, 300, false),
        (0, 401, true),
        (500, 0, true),
    ] {
        advance(Duration::from_millis(after)).await;
        assert_eq!(
            layer.layer(Probe::new().0).oneshot(millis).await.is_ok(),
            expected,
            "{millis}"
        );
    }
}

// Regression: a shaper's call once waited for its own time too, and not only for the calls before
// it.
#[tokio::test(start_paused = true)]
async fn a_costly_shaped_call_leaves_when_its_time_starts() {
    let bucket = || LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap();
    let both = All::new(bucket()).and(TokenBucket::new(Rate::per_second(1000), 1000).unwrap());
    for builder in [RateLimitLayer::with(bucket()), RateLimitLayer::with(both)] {
        let layer = builder
            .cost(|cost: &u32| *cost)
            .max_wait(Duration::from_millis(1000))
            .build()
            .unwrap();
        let (probe, log) = Probe::new();
        let calls = [5, 4, 3, 2].map(|cost| layer.layer(probe.clone()).oneshot(cost));
        let results = futures::future::join_all(calls).await;
        assert_eq!(*log.lock().unwrap(), [(5, 0), (4, 500), (3, 900)]);
        let error = results.into_iter().find_map(Result::err).unwrap();
        assert_eq!(
            rejection(&error).retry_after,
            Some(Duration::from_millis(1200))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn closing_the_limit_rejects_waiters_it_makes_late() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .max_wait(Duration::from_secs(10))
        .build()
        .unwrap();
    let tasks = [(); 6].map(|()| tokio::spawn(layer.layer(Probe::new().0).oneshot(1)));
    tokio::task::yield_now().await;
    let clock = Clock::start();
    layer.handle().close_for(Duration::from_secs(3600));
    let mut told = 0;
    for task in tasks {
        told += u32::from(task.await.unwrap().is_err());
    }
    assert_eq!((told, clock.now()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lower_burst_rejects_a_waiter_that_costs_more() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(5)
        .cost(|cost: &u32| *cost)
        .max_wait(Duration::MAX);
    let layer = layer.build().unwrap();
    let (probe, log) = Probe::new();
    let tasks = [5, 4, 1].map(|cost| tokio::spawn(layer.layer(probe.clone()).oneshot(cost)));
    tokio::task::yield_now().await;
    layer.handle().set_rate(Rate::per_second(1), 2).unwrap();
    let [_, shut_out, small] = tasks;
    let error = shut_out.await.unwrap().unwrap_err();
    assert_eq!(
        (rejection(&error).kind, rejection(&error).retry_after),
        (RejectedKind::CostTooHigh, None)
    );
    small.await.unwrap().unwrap();
    assert_eq!(*log.lock().unwrap(), [(5, 0), (1, 4000)]);
}

#[tokio::test(start_paused = true)]
async fn a_cost_above_the_burst_is_rejected_behind_waiters() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(2)
        .cost(|cost: &u32| *cost)
        .max_wait(Duration::from_secs(60));
    let layer = layer.build().unwrap();
    let waits = [2, 2].map(|cost| tokio::spawn(layer.layer(Probe::new().0).oneshot(cost)));
    tokio::task::yield_now().await;
    let error = layer.layer(Probe::new().0).oneshot(3).await.unwrap_err();
    assert_eq!(rejection(&error).kind, RejectedKind::CostTooHigh);
    for task in waits {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_polled_late_is_not_sent_past_its_deadline() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .deadline(in_millis)
        .build()
        .unwrap();
    let (probe, log) = Probe::new();
    assert!(layer.layer(probe.clone()).oneshot(0).await.is_ok());
    let mut late = Box::pin(layer.layer(probe).oneshot(2000));
    assert!(futures::poll!(&mut late).is_pending());
    advance(Duration::from_secs(3600)).await;
    assert!(late.await.is_err());
    assert_eq!(
        (log.lock().unwrap().len(), layer.handle().snapshot().waiting),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_unpolled_waiter_delays_no_call() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .max_wait(Duration::from_millis(150))
        .build()
        .unwrap();
    assert!(layer.layer(Probe::new().0).oneshot(1).await.is_ok());
    let mut ahead = Box::pin(layer.layer(Probe::new().0).oneshot(2));
    assert!(futures::poll!(&mut ahead).is_pending());
    advance(Duration::from_secs(60)).await;
    assert!(layer.layer(Probe::new().0).oneshot(3).await.is_ok());
    assert!(ahead.await.is_err());
    assert_eq!(layer.handle().snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_it_is_sent_costs_nothing() {
    #[derive(Clone)]
    struct Gate(Arc<AtomicUsize>);

    impl Service<u32> for Gate {
        type Response = u32;
        type Error = Infallible;
        type Future = std::future::Ready<Result<u32, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            if self.0.load(Ordering::Relaxed) == 0 {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        }

        fn call(&mut self, request: u32) -> Self::Future {
            std::future::ready(Ok(request))
        }
    }

    let closed = Arc::new(AtomicUsize::new(0));
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .max_wait(Duration::from_secs(5))
        .build()
        .unwrap();
    let mut service = layer.layer(Gate(closed.clone()));
    assert!(service.ready().await.unwrap().call(1).await.is_ok());
    let waits = service.ready().await.unwrap().call(2);
    closed.store(1, Ordering::Relaxed);
    assert!(
        tokio::time::timeout(Duration::from_millis(1500), waits)
            .await
            .is_err()
    );
    assert_eq!(layer.handle().snapshot().available, 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_wait_than_may() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .max_wait(Duration::from_secs(9))
        .max_waiting(2);
    let layer = layer.build().unwrap();
    let (probe, log) = Probe::new();
    let tasks: Vec<_> = (0..4)
        .map(|number| tokio::spawn(layer.layer(probe.clone()).oneshot(number)))
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(layer.handle().snapshot().waiting, 2);
    let mut hints = Vec::new();
    for task in tasks {
        hints.push(
            task.await
                .unwrap()
                .err()
                .and_then(|error| rejection(&error).retry_after),
        );
    }
    assert_eq!(hints, [None, None, None, Some(Duration::from_millis(300))]);
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn waiters_behind_a_cancel_move_up_without_bunching() {
    // given
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .max_wait(Duration::from_secs(60))
        .build()
        .unwrap();
    let (probe, log) = Probe::new();
    let tasks: Vec<_> = (0..20)
        .map(|number| tokio::spawn(layer.layer(probe.clone()).oneshot(number)))
        .collect();
    sleep(Duration::from_millis(50)).await;
    // when
    for number in [1, 2, 3, 7, 8, 19] {
        tasks[number].abort();
    }
    tokio::task::yield_now().await;
    let newcomer = layer.layer(probe.clone()).oneshot(20).await;
    // then
    assert!(newcomer.is_ok());
    let order = [0, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20];
    let expected: Vec<_> = order
        .into_iter()
        .zip((0u128..).map(|slot| slot * 100))
        .collect();
    assert_eq!(*log.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_cheap_newcomer_does_not_overtake_a_costly_waiter() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(10)
        .cost(|cost: &u32| *cost)
        .max_wait(Duration::from_secs(60))
        .build()
        .unwrap();
    let (probe, log) = Probe::new();
    let call = |cost| tokio::spawn(layer.layer(probe.clone()).oneshot(cost));
    let tasks = [call(5), call(10), call(1)];
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*log.lock().unwrap(), [(5, 0), (10, 500), (1, 600)]);
}

#[tokio::test(start_paused = true)]
async fn a_cost_above_the_burst_is_too_high_at_any_max_wait() {
    for max_wait in [Duration::ZERO, Duration::MAX] {
        let builder = RateLimitLayer::builder(Rate::per_second(10))
            .burst(3)
            .cost(|cost: &u32| *cost);
        let layer = builder.max_wait(max_wait).build().unwrap();
        let error = layer.layer(Probe::new().0).oneshot(4).await.unwrap_err();
        assert_eq!(rejection(&error).kind, RejectedKind::CostTooHigh);
        assert_eq!(rejection(&error).retry_after, None);
        assert_eq!(layer.handle().snapshot().available, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn settling_refunds_or_leaves_a_debt() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(100)
        .cost(|_: &u32| 50)
        .settle(|used: &u32| *used)
        .build()
        .unwrap();
    let service = layer.layer(Probe::new().0);
    let available = || layer.handle().snapshot().available;
    assert!(service.clone().oneshot(10).await.is_ok());
    assert_eq!(available(), 90);
    assert!(service.clone().oneshot(140).await.is_ok());
    assert_eq!(available(), 0);
    let error = service.oneshot(1).await.unwrap_err();
    assert_eq!(rejection(&error).retry_after, Some(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn without_used_units_the_handle_settles_later() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(100)
        .cost(|_: &u32| 50);
    let layer = layer
        .settle(|used: &u32| (*used > 0).then_some(*used))
        .build()
        .unwrap();
    let (handle, service) = (layer.handle(), layer.layer(Probe::new().0));
    assert!(service.clone().oneshot(0).await.is_ok());
    assert_eq!(handle.snapshot().available, 50);
    handle.settle(50, 20);
    assert_eq!(handle.snapshot().available, 80);
    handle.settle(20, 90);
    assert_eq!(handle.snapshot().available, 10);
}

#[tokio::test(start_paused = true)]
async fn a_raised_rate_keeps_the_debt_as_time_until_reset() {
    let layer = RateLimitLayer::builder(Rate::per_day(10))
        .burst(10)
        .max_wait(Duration::from_secs(7 * 86_400))
        .build()
        .unwrap();
    let (handle, (probe, log)) = (layer.handle(), Probe::new());
    handle.charge(10);
    let waits = tokio::spawn(layer.layer(probe).oneshot(1));
    tokio::task::yield_now().await;
    handle.set_rate(Rate::per_second(100), 200).unwrap();
    assert_eq!(
        (handle.snapshot().rate, handle.snapshot().available),
        (Rate::per_second(100), 0)
    );
    handle.reset();
    waits.await.unwrap().unwrap();
    assert_eq!(
        (log.lock().unwrap()[0], handle.snapshot().available),
        ((1, 0), 199)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_reopens_a_limit_of_any_kind() {
    let rate = Rate::per_second(10);
    let limits: [Arc<dyn Limit>; 5] = [
        Arc::new(TokenBucket::new(rate, 10).unwrap()),
        Arc::new(LeakyBucket::new(rate, Duration::ZERO).unwrap()),
        Arc::new(SlidingLog::new(rate).unwrap()),
        Arc::new(SlidingRing::new(rate, 10).unwrap()),
        Arc::new(SlidingCounter::new(rate).unwrap()),
    ];
    for limit in limits {
        let layer = RateLimitLayer::with(limit).build().unwrap();
        let (handle, service) = (layer.handle(), layer.layer(Probe::new().0));
        handle.close_for(Duration::from_secs(3600));
        assert!(service.clone().oneshot(0).await.is_err());
        handle.reset();
        assert!(service.oneshot(0).await.is_ok(), "{:?}", handle.snapshot());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_has_cost_what_was_taken() {
    let builder = RateLimitLayer::builder(Rate::per_second(10))
        .burst(100)
        .cost(|_: &u32| 50)
        .settle(|used: &u32| *used);
    let layer = builder.build().unwrap();
    let broken = service_fn(async |_: u32| Err::<u32, _>(std::io::Error::other("broken")));
    assert!(layer.layer(broken).oneshot(1).await.is_err());
    assert_eq!(layer.handle().snapshot().available, 50);
}

#[tokio::test(start_paused = true)]
async fn a_refund_and_a_higher_rate_let_waiters_go_sooner() {
    // given
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .max_wait(Duration::from_secs(60))
        .build()
        .unwrap();
    let (probe, log) = Probe::new();
    let handle = layer.handle();
    let tasks: Vec<_> = (0..4)
        .map(|number| tokio::spawn(layer.layer(probe.clone()).oneshot(number)))
        .collect();
    sleep(Duration::from_millis(500)).await;
    // when
    handle.refund(1);
    sleep(Duration::from_millis(1)).await;
    handle.set_rate(Rate::per_second(10), 1).unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // then: the call admitted by the refund at 0.5 s had used one second, which stays used.
    assert_eq!(
        *log.lock().unwrap(),
        [(0, 0), (1, 500), (2, 1500), (3, 1600)]
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_lets_calls_wait_and_stops_that_again() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .build()
        .unwrap();
    let (service, handle) = (layer.layer(Probe::new().0), layer.handle());
    assert!(service.clone().oneshot(1).await.is_ok());
    assert!(service.clone().oneshot(2).await.is_err());
    let mut config = handle.config();
    config.max_wait = Some(Duration::from_secs(5));
    let changed = handle.update(config).unwrap().to_string();
    assert_eq!(changed, "rate_limit: `max_wait` from off to 5s");
    assert!(service.clone().oneshot(3).await.is_ok());
    // A change of the rate alone keeps what else was changed.
    handle.set_rate(Rate::per_second(2), 1).unwrap();
    assert_eq!(handle.config().max_wait, Some(Duration::from_secs(5)));
    assert!(service.clone().oneshot(4).await.is_ok());
    let mut bad = handle.config();
    (bad.max_wait, bad.max_waiting, bad.burst) = (None, Some(3), 9);
    assert_eq!(handle.update(bad).unwrap_err().field, "max_waiting");
    assert_eq!(handle.config().burst, 1, "nothing has changed");
    config = handle.config();
    config.max_wait = None;
    config.max_waiting = None;
    handle.update(config).unwrap();
    assert!(service.oneshot(5).await.is_err());
}

#[test]
fn a_table_changes_its_rate_and_burst_alone() {
    let layer = RateLimitLayer::builder(Rate::per_second(1)).max_wait(Duration::from_secs(1));
    let layer = layer.keyed_by(|call: &u32| Some(*call)).build().unwrap();
    let handle = layer.handle();
    let config = handle.config();
    let field = |change: fn(&mut RateLimitConfig)| {
        let mut config = config;
        change(&mut config);
        handle.update(config).unwrap_err().field
    };
    assert_eq!(field(|config| config.max_wait = None), "max_wait");
    assert_eq!(field(|config| config.max_waiting = Some(1)), "max_waiting");
    let honored = |config: &mut RateLimitConfig| config.honor_retry_after = Some(Duration::MAX);
    assert_eq!(field(honored), "honor_retry_after");
    assert_eq!(field(|config| config.advertise = true), "advertise");
    let changed = handle.set_rate(Rate::per_second(5), 7).unwrap();
    assert_eq!(changed.iter().count(), 2);
    assert_eq!(handle.config().burst, 7);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_delayed_past_max_wait_is_rejected_at_once() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .max_wait(Duration::from_secs(2))
        .build()
        .unwrap();
    let service = layer.layer(Probe::new().0);
    assert!(service.clone().oneshot(1).await.is_ok());
    let waiter = tokio::spawn(service.oneshot(2));
    sleep(Duration::from_millis(500)).await;
    let clock = Clock::start();
    layer.handle().close_for(Duration::from_secs(30));
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(rejection(&error).kind, RejectedKind::RateLimited);
    assert_eq!(clock.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_never_polled_holds_nobody_up() {
    let layer = RateLimitLayer::builder(Rate::per_second(1))
        .burst(1)
        .max_wait(Duration::from_secs(5))
        .build()
        .unwrap();
    let mut service = layer.layer(Probe::new().0);
    service.ready().await.unwrap().call(1).await.unwrap();
    let ahead = service.ready().await.unwrap().call(2);
    let clock = Clock::start();
    service.ready().await.unwrap().call(3).await.unwrap();
    // The head's unit was acquired for it after 2 s, when it was notified. The rest is the timer's
    // tick.
    let millis = clock.now() / 1_000_000;
    assert_eq!(millis, 2998);
    assert_eq!(layer.handle().snapshot().waiting, 0);
    // It is dropped unsent, and its unit is returned.
    drop(ahead);
    assert_eq!(layer.handle().snapshot().available, 1);
    service.ready().await.unwrap().call(4).await.unwrap();
    assert_eq!(clock.now() / 1_000_000, millis);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_readies_its_own_clone() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .max_wait(Duration::from_secs(1))
        .build()
        .unwrap();
    let (probe, log) = Probe::new();
    let mut service = layer.layer(probe);
    service.ready().await.unwrap().call(1).await.unwrap();
    let waiting = service.ready().await.unwrap().call(2);
    drop(waiting);
    advance(Duration::from_millis(100)).await;
    // The probe would panic if the waiting call had taken the readiness.
    service.call(3).await.unwrap();
    assert_eq!(*log.lock().unwrap(), [(1, 0), (3, 100)]);
}

#[tokio::test(start_paused = true)]
async fn an_admitted_call_clones_no_closure() {
    struct Counted(Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(self.0.clone())
        }
    }

    let copies = Arc::new(AtomicUsize::new(0));
    let counted = Counted(copies.clone());
    let limit = RateLimitLayer::builder(Rate::per_second(10)).cost(move |_: &u32| {
        let Counted(_) = &counted;
        1
    });
    let mut service = limit.build().unwrap().layer(Probe::new().0);
    service.ready().await.unwrap();
    let before = copies.load(Ordering::Relaxed);
    assert!(service.call(1).await.is_ok());
    assert_eq!(copies.load(Ordering::Relaxed), before);
}

#[tokio::test(start_paused = true)]
async fn several_limits_charge_all_or_none() {
    let hour = Arc::new(TokenBucket::new(Rate::per_hour(1000), 1000).unwrap());
    let limit = All::new(SlidingLog::new(Rate::per_second(10)).unwrap()).and(hour.clone());
    let layer = RateLimitLayer::with(limit).build().unwrap();
    let service = layer.layer(Probe::new().0);
    let admitted = Cell::new(0);
    for number in 0..100 {
        admitted.set(admitted.get() + u32::from(service.clone().oneshot(number).await.is_ok()));
    }
    assert_eq!(admitted.get(), 10);
    assert_eq!(hour.available(0), 990);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_layer_admits_every_call() {
    let layer = RateLimitLayer::builder(Rate::per_day(1))
        .enabled(false)
        .protocol(Plain::new())
        .build()
        .unwrap();
    let service = layer.layer(Probe::new().0);
    for number in 0..100 {
        assert!(service.clone().oneshot(number).await.is_ok());
    }
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn the_peers_retry_after_closes_the_limit_until_then() {
    // given
    let layer = RateLimitLayer::builder(Rate::per_second(100))
        .honor_retry_after(Duration::from_secs(60))
        .protocol(crate::protocol::http::Client::new())
        .build()
        .unwrap();
    let peer = service_fn(async |seconds: u32| {
        let response = http::Response::builder()
            .status(429)
            .header("retry-after", seconds);
        Ok::<_, BoxError>(response.body(()).unwrap())
    });
    // when
    let service = layer.layer(peer);
    assert_eq!(service.clone().oneshot(30).await.unwrap().status(), 429);
    // then
    let error = service.clone().oneshot(0).await.unwrap_err();
    assert_eq!(rejection(&error).retry_after, Some(Duration::from_secs(30)));
    advance(Duration::from_secs(30)).await;
    assert!(service.clone().oneshot(3600).await.is_ok());
    // The limit honors a hint up to the maximum only.
    let error = service.oneshot(0).await.unwrap_err();
    assert_eq!(rejection(&error).retry_after, Some(Duration::from_secs(60)));
}
