//! Keyed layers under several threads at once.

use std::{
    future::{Ready, ready},
    io,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use futures::FutureExt;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};
use tower_keep::{
    algorithm::{Overflow, TokenBucket},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    throttle::ThrottleLayer,
};

fn second() -> Rate {
    Rate::per_second(9)
}

/// Two changes of a layer at once, and a third thread that makes keys beside them.
fn at_once(change: impl Fn(u32) + Sync, make: impl Fn(u32) + Sync) {
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for to in [3, 4] {
            let (start, change) = (&start, &change);
            scope.spawn(move || {
                start.wait();
                change(to);
            });
        }
        start.wait();
        (100..120).for_each(make);
    });
}

const ROUNDS: u32 = 300;

#[test]
fn two_updates_at_once_leave_all_bulkheads_alike() {
    for round in 0..ROUNDS {
        let layer = BulkheadLayer::builder(9).keyed_by(|n: &u32| Some(*n));
        let layer = layer.build().unwrap();
        let service = layer.layer(Echo);
        let call = |key| drop(service.clone().oneshot(key).now_or_never());
        (0..50).for_each(call);
        let handle = layer.handle();
        at_once(
            |to| drop(handle.set_limit(to as usize).unwrap()),
            |key| drop(service.clone().oneshot(key).now_or_never()),
        );
        call(200);
        let shared = handle.shared().snapshot().limit;
        for (key, bulkhead) in handle.keys() {
            assert_eq!(bulkhead.snapshot().limit, shared, "{round}: {key}");
        }
    }
}

#[test]
fn two_updates_at_once_leave_all_circuits_alike() {
    for round in 0..ROUNDS {
        let layer = CircuitBreakerLayer::builder().keyed_by(|n: &u32| Some(*n));
        let layer = layer.protocol(Plain::new()).build().unwrap();
        let handle = layer.handle();
        (0..50).for_each(|key| drop(handle.make(&key)));
        let config = |min_calls| {
            let mut config = handle.shared().config();
            config.min_calls = min_calls;
            config
        };
        at_once(
            |to| drop(handle.update(config(to)).unwrap()),
            |key| drop(handle.make(&key)),
        );
        drop(handle.make(&200));
        let shared = handle.shared().config();
        for (key, circuit) in handle.keys() {
            assert_eq!(circuit.config(), shared, "{round}: {key}");
        }
    }
}

#[test]
fn two_updates_at_once_leave_all_throttles_alike() {
    for round in 0..ROUNDS {
        let layer = ThrottleLayer::builder().keyed_by(|n: &u32| Some(*n));
        let layer = layer.protocol(Plain::new()).build().unwrap();
        let service = layer.layer(Echo);
        let call = |key| drop(service.clone().oneshot(key).now_or_never());
        (0..50).for_each(call);
        let handle = layer.handle();
        let config = |min_calls| {
            let mut config = handle.shared().config();
            config.min_calls = min_calls;
            config
        };
        at_once(|to| drop(handle.update(config(to)).unwrap()), call);
        call(200);
        let shared = handle.shared().config();
        for (key, throttle) in handle.keys() {
            assert_eq!(throttle.config(), shared, "{round}: {key}");
        }
    }
}

#[test]
fn a_limit_and_a_total_at_once_never_contradict() {
    for _ in 0..ROUNDS {
        let layer = BulkheadLayer::builder(2)
            .keyed_by(|n: &u32| Some(*n))
            .within(10);
        let layer = layer.build().unwrap();
        let handle = layer.handle();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                drop(handle.set_limit(8));
            });
            start.wait();
            drop(handle.set_total(5));
        });
        let (limit, total) = (handle.shared().snapshot().limit, handle.total().unwrap().1);
        assert!(limit <= total, "{limit} {total}");
    }
}

/// Two threads of calls that end at once, a new key each, in eight places; and one that lists all.
fn refused<L, T: Send>(layer: &L, list: impl Fn() -> T + Sync) -> usize
where
    L: Layer<Echo, Service: Service<u32, Response = u32> + Clone + Send> + Sync,
{
    let (refused, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(list());
            }
        });
        let threads = [0, 1].map(|thread| {
            let (service, refused) = (layer.layer(Echo), &refused);
            scope.spawn(move || {
                for key in 0..5000 {
                    let answer = service.clone().oneshot(key * 2 + thread).now_or_never();
                    let is_refused = answer.expect("it ends at once").is_err();
                    refused.fetch_add(usize::from(is_refused), Ordering::Relaxed);
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    refused.into_inner()
}

/// Answers at once.
#[derive(Debug, Clone)]
struct Echo;

impl Service<u32> for Echo {
    type Response = u32;
    type Error = io::Error;
    type Future = Ready<Result<u32, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

#[test]
fn new_keys_find_idle_slots_while_keys_are_listed() {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let key = |n: &u32| Some(*n);
    let bulkhead = BulkheadLayer::builder(1).keyed_by(key).max_keys(8);
    let bulkhead = bulkhead.overflow(Overflow::Reject).build().unwrap();
    assert_eq!(refused(&bulkhead, || bulkhead.handle().keys()), 0);

    let limit = RateLimitLayer::builder(second()).cost(|_: &u32| 0);
    let limit = limit
        .per_key(key, |_| TokenBucket::new(second(), 9))
        .max_keys(8);
    let limit = limit.overflow(Overflow::Reject).build().unwrap();
    assert_eq!(refused(&limit, || limit.handle().heavy_hitters(8)), 0);
}
