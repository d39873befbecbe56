//! Calls that wait are sent in the order in which they came, and polled twice.
//!
//! On a paused clock and one thread, where tasks run in the order in which they are woken: what is
//! out of order there is the queue's doing.

#![allow(clippy::disallowed_methods, reason = "tests may read time")]

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinHandle, time};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use tower_keep::{
    algorithm::{LeakyBucket, SlidingCounter, SlidingLog, SlidingRing, TokenBucket},
    rate_limit::{Rate, RateLimitBuilder, RateLimitLayer},
};

/// What a run of calls shows: the order in which they were sent, and how often each was polled.
#[derive(Default)]
struct Seen {
    sent: Mutex<Vec<usize>>,
    polls: Mutex<Vec<Arc<AtomicUsize>>>,
}

impl Seen {
    /// Spawns the next call.
    fn call(self: &Arc<Self>, layer: &RateLimitLayer) -> JoinHandle<Result<(), BoxError>> {
        let (seen, polls) = (self.clone(), Arc::new(AtomicUsize::new(0)));
        let service = layer.layer(service_fn(move |call: usize| {
            seen.sent.lock().unwrap().push(call);
            async { Ok::<_, BoxError>(()) }
        }));
        let number = {
            let mut all = self.polls.lock().unwrap();
            all.push(polls.clone());
            all.len() - 1
        };
        let mut future = Box::pin(service.oneshot(number));
        tokio::spawn(poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            future.as_mut().poll(cx)
        }))
    }

    fn most_polls(&self) -> usize {
        let polls = self.polls.lock().unwrap();
        let polls = polls.iter().map(|polls| polls.load(Ordering::Relaxed));
        polls.max().unwrap_or(0)
    }
}

fn limits(rate: Rate) -> [RateLimitBuilder; 5] {
    [
        RateLimitLayer::with(TokenBucket::new(rate, 5).unwrap()),
        RateLimitLayer::with(LeakyBucket::new(rate, Duration::ZERO).unwrap()),
        RateLimitLayer::with(SlidingLog::new(rate).unwrap()),
        RateLimitLayer::with(SlidingCounter::new(rate).unwrap()),
        RateLimitLayer::with(SlidingRing::new(rate, 10).unwrap()),
    ]
}

fn limit(kind: usize, rate: Rate) -> RateLimitLayer {
    let mut limits = Vec::from(limits(rate));
    let builder = limits.swap_remove(kind);
    builder.max_wait(Duration::MAX).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn waiters_are_sent_in_order_of_arrival() {
    let mut out_of_order = Vec::new();
    for seed in 0..240 {
        let kind = usize::try_from(seed % 5).unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let rate = Rate::new(
            random.random_range(1..40),
            Duration::from_micros(random.random_range(3_000..60_000)),
        );
        let (layer, seen) = (limit(kind, rate), Arc::new(Seen::default()));
        let mut calls = Vec::new();
        for _ in 0..60 {
            calls.push(seen.call(&layer));
            if random.random_bool(0.6) {
                time::sleep(Duration::from_micros(random.random_range(0..4_000))).await;
            }
            if random.random_bool(0.03) {
                time::advance(Duration::from_millis(random.random_range(1..80))).await;
            }
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
        if !seen.sent.lock().unwrap().is_sorted() {
            out_of_order.push((seed, kind));
        }
    }
    assert_eq!(out_of_order, []);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_polls_twice_after_a_stall() {
    for kind in 0..5 {
        let rate = Rate::new(10, Duration::from_millis(10));
        let (layer, seen) = (limit(kind, rate), Arc::new(Seen::default()));
        let calls: Vec<_> = (0..400).map(|_| seen.call(&layer)).collect();
        for stall in [15, 3, 40, 1, 7] {
            // Nothing runs meanwhile, as when a machine stalls.
            time::advance(Duration::from_millis(stall)).await;
            time::sleep(Duration::from_millis(20)).await;
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert!(seen.sent.lock().unwrap().is_sorted(), "{kind}");
        assert_eq!(seen.most_polls(), 2, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_that_nobody_polls_hold_up_little() {
    let bucket = TokenBucket::new(Rate::per_second(100), 20).unwrap();
    let layer = RateLimitLayer::with(bucket).max_wait(Duration::MAX);
    let (layer, seen) = (layer.build().unwrap(), Arc::new(Seen::default()));
    let service = layer.layer(service_fn(async |_: ()| Ok::<_, BoxError>(())));
    // The burst, and then ten that join and are never polled again.
    let calls = (0..30).map(|_| Box::pin(service.clone().oneshot(())));
    let mut idle: Vec<_> = calls.collect();
    for call in &mut idle {
        let _ = futures::poll!(call);
    }
    let start = time::Instant::now();
    seen.call(&layer).await.unwrap().unwrap();
    // Its turn is after 110 ms, and ten are ahead.
    let waited = start.elapsed();
    assert!(
        waited <= Duration::from_millis(110 + 10 * 10 + 1),
        "{waited:?}"
    );
    assert_eq!(layer.handle().snapshot().waiting, 0);
}
