//! A call of a key whose limit is being evicted, during each of the two checks of an eviction.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures::FutureExt;
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::{
    ConfigError,
    algorithm::{Limit, OverLimit, TokenBucket},
    rate_limit::{Overflow, Rate, RateLimitLayer},
};

/// A limit that runs a hook after it has computed whether it is fresh, and before it returns that.
struct Hooked {
    bucket: TokenBucket,
    hooks: Arc<Hooks>,
}

#[derive(Default)]
struct Hooks {
    looks: AtomicUsize,
    acquired: AtomicUsize,
    /// The index of the check that runs the hook.
    at: usize,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Limit for Hooked {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        let decided = self.bucket.acquire(cost, now);
        self.hooks.acquired.fetch_add(1, Ordering::SeqCst);
        decided
    }

    fn is_fresh(&self, now: u64) -> bool {
        let decided = self.bucket.is_fresh(now);
        if self.hooks.looks.fetch_add(1, Ordering::SeqCst) == self.hooks.at {
            let hook = self.hooks.hook.lock().unwrap().take();
            hook.into_iter().for_each(|hook| hook());
        }
        decided
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.bucket.wait(units, now)
    }

    fn refund(&self, cost: u32, now: u64) {
        self.bucket.refund(cost, now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.bucket.charge(cost, now);
    }

    fn close_until(&self, until: u64, now: u64) {
        self.bucket.close_until(until, now);
    }

    fn available(&self, now: u64) -> u32 {
        self.bucket.available(now)
    }

    fn burst(&self) -> u32 {
        self.bucket.burst()
    }

    fn rate(&self) -> Rate {
        self.bucket.rate()
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.bucket.update(rate, burst)
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

/// Key 2 wants the room of key 1, which is fresh. During one check of that, key 1 is called.
/// Returns whether that call, the call of key 2, and another call of key 1 were admitted.
fn raced(at: usize) -> [bool; 3] {
    let hooks = Arc::new(Hooks {
        at,
        ..Hooks::default()
    });
    let given = hooks.clone();
    let limit =
        RateLimitLayer::builder(Rate::per_second(1)).cost(|request: &u32| u32::from(*request < 10));
    let limit = limit.per_key(
        |request: &u32| Some(*request % 10),
        move |_: &u32| {
            Ok(Hooked {
                bucket: TokenBucket::new(Rate::per_day(1), 1)?,
                hooks: given.clone(),
            })
        },
    );
    let layer = limit
        .max_keys(1)
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(|request: u32| {
        std::future::ready(Ok::<_, BoxError>(request))
    }));
    let admitted = move |request: u32| {
        service
            .clone()
            .oneshot(request)
            .now_or_never()
            .unwrap()
            .is_ok()
    };
    assert!(admitted(11), "makes the limit of key 1, and costs nothing");

    let caller = Arc::new(Mutex::new(None));
    let (slot, call, seen) = (caller.clone(), admitted.clone(), hooks.clone());
    *hooks.hook.lock().unwrap() = Some(Box::new(move || {
        let before = seen.acquired.load(Ordering::SeqCst);
        *slot.lock().unwrap() = Some(thread::spawn(move || call(1)));
        while seen.acquired.load(Ordering::SeqCst) == before {
            thread::yield_now();
        }
    }));
    let second = admitted(2);
    let caller = caller.lock().unwrap().take().expect("the look was taken");
    [caller.join().unwrap(), second, admitted(1)]
}

#[test]
fn a_call_before_the_mark_is_counted_once() {
    for _ in 0..100 {
        let [first, second, again] = raced(0);
        assert!(first != second && !again, "{first} {second} {again}");
    }
}

#[test]
fn a_call_after_the_mark_is_undone_and_tried_again() {
    for _ in 0..100 {
        assert_eq!(raced(1), [false, true, false]);
    }
}
