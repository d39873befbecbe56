//! Updates of a stack that come at once, and what runs within them.

use std::{
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Wake, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    ConfigError,
    algorithm::{Limit, OverLimit, TokenBucket},
    bulkhead::BulkheadLayer,
    rate_limit::{Rate, RateLimitLayer},
    stack::{self, Changes},
};

const SECOND: Duration = Duration::from_secs(1);

/// Ends within some seconds of real time: what hangs fails, and does not hang the test.
fn ends(run: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        run();
        let _ = done.send(());
    });
    let minute = Duration::from_secs(60);
    ended.recv_timeout(minute).expect("a deadlock, or a panic");
}

type Hook = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// A limit of the user's own, which does more than to take its new rate.
struct Hooked(TokenBucket, Hook);

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Limit for Hooked {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.0.acquire(cost, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.0.wait(units, now)
    }

    fn refund(&self, cost: u32, now: u64) {
        self.0.refund(cost, now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.0.charge(cost, now);
    }

    fn close_until(&self, until: u64, now: u64) {
        self.0.close_until(until, now);
    }

    fn available(&self, now: u64) -> u32 {
        self.0.available(now)
    }

    fn burst(&self) -> u32 {
        self.0.burst()
    }

    fn rate(&self) -> Rate {
        Limit::rate(&self.0)
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        if let Some(hook) = self.1.get() {
            hook();
        }
        Limit::update(&self.0, rate, burst)
    }
}

fn hooked(hook: &Hook) -> Hooked {
    let bucket = TokenBucket::new(Rate::per_second(10), 10).unwrap();
    Hooked(bucket, hook.clone())
}

/// By default a reset gives back as much as a limit takes.
#[test]
fn a_limit_of_ones_own_can_be_reset() {
    let layer = RateLimitLayer::with(hooked(&Hook::default()));
    let handle = layer.build().unwrap().handle();
    handle.charge(100);
    assert_eq!(handle.snapshot().available, 0);
    handle.reset();
    assert_eq!(handle.snapshot().available, 10);
}

/// Its update waits for another thread that updates the stack as well.
#[test]
fn a_limit_may_wait_for_another_update() {
    ends(|| {
        let hook = Hook::default();
        let limit = RateLimitLayer::with(hooked(&hook));
        let handle = stack::client()
            .http()
            .rate_limit(limit)
            .build()
            .unwrap()
            .handle();
        let other = handle.clone();
        let update = move || {
            let other = other.clone();
            let timeout = Changes::new().attempt_timeout(2 * SECOND);
            thread::spawn(move || other.update(timeout).unwrap())
                .join()
                .unwrap();
        };
        assert!(hook.set(Box::new(update)).is_ok());
        let rate = Changes::new()
            .rate(Rate::per_second(5), 5)
            .total_timeout(20 * SECOND);
        let changed = handle.update(rate).unwrap();
        assert_eq!(changed.iter().count(), 3, "{changed}");
        let snapshot = handle.snapshot();
        assert_eq!(snapshot.attempt_timeout.duration, 2 * SECOND);
        assert_eq!(snapshot.total_timeout.duration, 20 * SECOND);
    });
}

#[test]
fn a_servers_limit_may_wait_for_another_update() {
    ends(|| {
        let hook = Hook::default();
        let limit = RateLimitLayer::with(hooked(&hook));
        let stack = stack::server().http().rate_limit(limit).max_in_flight(4);
        let handle = stack.build().unwrap().handle();
        let other = handle.clone();
        let update = move || drop(other.update(Changes::new().max_in_flight(7)).unwrap());
        assert!(hook.set(Box::new(update)).is_ok());
        handle
            .update(Changes::new().rate(Rate::per_second(5), 5))
            .unwrap();
        assert_eq!(handle.snapshot().bulkhead.limit, 7);
    });
}

/// What contradicts the rest comes while the limit is asked: the rate is as before too.
#[test]
fn an_update_that_is_contradicted_changes_nothing() {
    let hook = Hook::default();
    let limit = RateLimitLayer::with(hooked(&hook));
    let handle = stack::client()
        .http()
        .rate_limit(limit)
        .build()
        .unwrap()
        .handle();
    let (other, once) = (handle.clone(), AtomicBool::new(true));
    let shorter = move || {
        if once.swap(false, Ordering::Relaxed) {
            let shorter = Changes::new().total_timeout(4 * SECOND);
            other.update(shorter).unwrap();
        }
    };
    assert!(hook.set(Box::new(shorter)).is_ok());
    let longer = Changes::new()
        .attempt_timeout(5 * SECOND)
        .rate(Rate::per_second(5), 5);
    assert_eq!(handle.update(longer).unwrap_err().field, "total_timeout");
    let rate = handle
        .rate_limit
        .as_ref()
        .unwrap()
        .set_rate(Rate::per_second(10), 10);
    assert!(rate.unwrap().is_empty());
    assert_eq!(handle.snapshot().attempt_timeout.duration, 3 * SECOND);
}

/// A waker that updates the stack whose waiter it wakes.
struct Updates(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl Wake for Updates {
    fn wake(self: Arc<Self>) {
        if let Some(update) = self.0.get() {
            update();
        }
    }
}

#[test]
fn a_waker_may_update_the_stack_that_wakes_it() {
    ends(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let places = BulkheadLayer::builder(1).max_wait(SECOND);
        let stack = stack::server().http().bulkhead(places).build().unwrap();
        let handle = stack.handle();
        let service = stack.layer(service_fn(async |_: Request<Empty<Bytes>>| {
            std::future::pending::<()>().await;
            Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new()))
        }));
        let wakes = Arc::new(Updates(OnceLock::new()));
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let mut calls: Vec<_> = (0..2)
            .map(|_| Box::pin(service.clone().oneshot(Request::new(Empty::new()))))
            .collect();
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(handle.snapshot().bulkhead.waiting, 1);
        let other = handle.clone();
        let update = move || drop(other.update(Changes::new().total_timeout(SECOND)).unwrap());
        assert!(wakes.0.set(Box::new(update)).is_ok());
        handle.update(Changes::new().max_in_flight(2)).unwrap();
        assert_eq!(handle.snapshot().timeout.duration, SECOND);
    });
}

/// Each is right by itself; together they are 3 s in total and 5 s for an attempt.
#[test]
fn updates_at_once_never_contradict_each_other() {
    let handle = stack::client().http().build().unwrap().handle();
    let secs = |duration: Duration| u32::try_from(duration.as_secs()).unwrap();
    let pairs = [(20, 5), (3, 1), (40, 4)];
    for _ in 0..300 {
        let together = Barrier::new(pairs.len());
        thread::scope(|scope| {
            for (total, attempt) in pairs {
                let (handle, together) = (handle.clone(), &together);
                scope.spawn(move || {
                    together.wait();
                    let changes = Changes::new().total_timeout(total * SECOND);
                    handle
                        .update(changes.attempt_timeout(attempt * SECOND))
                        .unwrap();
                });
            }
        });
        let now = handle.snapshot();
        let ended = (
            secs(now.total_timeout.duration),
            secs(now.attempt_timeout.duration),
        );
        assert!(pairs.contains(&ended), "{ended:?}");
    }
}
