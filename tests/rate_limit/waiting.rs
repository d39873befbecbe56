//! Threads, real time and cancellations: everybody who waits for a limit has his turn or leaves,
//! and nobody is forgotten.
#![allow(clippy::disallowed_methods, reason = "real time is what is tested")]

use std::{
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tower::{BoxError, Layer, Service, ServiceExt};

use tower_keep::{
    algorithm::{LeakyBucket, TokenBucket},
    rate_limit::{Rate, RateLimitLayer},
};

const RATE: u64 = 10_000;
const TASKS: u32 = 64;
const CALLS: u32 = 40;

/// A call is the number of the task that it comes from.
type Call = u32;

#[derive(Debug, Clone, Default)]
struct Counting {
    admitted: Arc<Mutex<Vec<Instant>>>,
}

impl Service<Call> for Counting {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Self::Future {
        self.admitted.lock().unwrap().push(Instant::now());
        ready(Ok(()))
    }
}

/// What became of all calls of all tasks: how many were answered, and how many given up.
async fn crowd<L>(layer: &L) -> (usize, usize, Vec<Instant>)
where
    L: Layer<Counting>,
    L::Service:
        Service<Call, Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let (inner, given_up, answered) = (
        Counting::default(),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let tasks = (0..TASKS).map(|task| {
        let (service, given_up, answered) = (
            layer.layer(inner.clone()),
            given_up.clone(),
            answered.clone(),
        );
        tokio::spawn(async move {
            for number in 0..CALLS {
                // A third of the calls gives up, some before their turn and some just about then.
                let patience = if (task + number) % 3 == 0 {
                    u64::from(number * 97 % 5000)
                } else {
                    60_000_000
                };
                match timeout(
                    Duration::from_micros(patience),
                    service.clone().oneshot(task),
                )
                .await
                {
                    Ok(result) => {
                        result.unwrap();
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => {
                        given_up.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        timeout(Duration::from_secs(60), task)
            .await
            .expect("a waiter was never woken")
            .unwrap();
    }
    let admitted = std::mem::take(&mut *inner.admitted.lock().unwrap());
    (
        answered.load(Ordering::Relaxed),
        given_up.load(Ordering::Relaxed),
        admitted,
    )
}

fn assert_kept((answered, given_up, admitted): &(usize, usize, Vec<Instant>), limits: u64) {
    assert_eq!(answered + given_up, (TASKS * CALLS) as usize);
    assert!(*answered <= admitted.len() && admitted.len() <= answered + given_up);
    // Not below what the rate allows, plus the ticks that those who have waited may be late by.
    let mut times = admitted.clone();
    times.sort_unstable();
    let span = *times.last().unwrap() - times[0] + Duration::from_millis(2);
    let most = limits + RATE * limits * u64::try_from(span.as_micros()).unwrap() / 1_000_000;
    assert!(times.len() as u64 <= most, "{} in {span:?}", times.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_who_waits_for_one_limit_is_forgotten() {
    let bucket = TokenBucket::new(Rate::per_second(RATE), 1).unwrap();
    let shaper = LeakyBucket::new(Rate::per_second(RATE), Duration::ZERO).unwrap();
    for limit in [RateLimitLayer::with(bucket), RateLimitLayer::with(shaper)] {
        let layer = limit.max_wait(Duration::MAX).build().unwrap();
        assert_kept(&crowd(&layer).await, 1);
        assert_eq!(layer.handle().snapshot().waiting, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_waiter_for_a_key_or_for_the_total_is_forgotten() {
    let keys = RateLimitLayer::builder(Rate::per_second(RATE))
        .burst(1)
        .max_wait(Duration::MAX);
    let layer = keys.keyed_by(|task: &Call| Some(task % 4)).build().unwrap();
    assert_kept(&crowd(&layer).await, 4);
    assert_eq!(layer.handle().snapshot().waiting, 0);

    let keys = RateLimitLayer::builder(Rate::per_second(RATE))
        .burst(1)
        .max_wait(Duration::MAX);
    let total = TokenBucket::new(Rate::per_second(RATE), 1).unwrap();
    let layer = keys
        .keyed_by(|task: &Call| Some(task % 4))
        .within(total)
        .build()
        .unwrap();
    assert_kept(&crowd(&layer).await, 1);
    assert_eq!(layer.handle().snapshot().waiting, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_waiter_is_forgotten_while_keys_are_evicted() {
    let shared = RateLimitLayer::builder(Rate::per_second(RATE))
        .burst(1)
        .max_wait(Duration::MAX);
    let own = |_: &u32| TokenBucket::new(Rate::per_second(RATE), 1);
    let layer = shared
        .per_key(|task: &Call| Some(task % 4), own)
        .max_keys(2)
        .build()
        .unwrap();
    // Two limits, the one that all others share, and for each key that moves out and in a new
    // burst.
    let (answered, given_up, _) = crowd(&layer).await;
    assert_eq!(answered + given_up, (TASKS * CALLS) as usize);
    assert_eq!(layer.handle().shared().snapshot().waiting, 0);
    assert!(
        layer
            .handle()
            .keys()
            .iter()
            .all(|(_, handle)| handle.snapshot().waiting == 0)
    );
}
