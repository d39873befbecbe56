//! A bulkhead whose calls wait for a place.
#![cfg(feature = "layers")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use tokio::{
    sync::Semaphore,
    task::yield_now,
    time::{advance, sleep},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::{BulkheadHandle, BulkheadLayer},
};

const WAIT: Duration = Duration::from_secs(1);

/// Answers a call once it is let go, and notes the order in which calls arrive.
struct Bench {
    service: BoxCloneService<u32, u32, BoxError>,
    handle: BulkheadHandle,
    arrived: Arc<Mutex<Vec<u32>>>,
    go: Arc<Semaphore>,
}

fn bench(limit: usize, max_waiting: usize) -> Bench {
    let layer = BulkheadLayer::builder(limit)
        .max_wait(WAIT)
        .max_waiting(max_waiting)
        .build()
        .unwrap();
    let (arrived, go) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Semaphore::new(0)),
    );
    let (seen, gate) = (arrived.clone(), go.clone());
    let inner = service_fn(move |call: u32| {
        let (seen, gate) = (seen.clone(), gate.clone());
        async move {
            seen.lock().unwrap().push(call);
            gate.acquire().await?.forget();
            Ok::<_, BoxError>(call)
        }
    });
    Bench {
        handle: layer.handle(),
        service: BoxCloneService::new(layer.layer(inner)),
        arrived,
        go,
    }
}

impl Bench {
    async fn call(&self, call: u32) -> tokio::task::JoinHandle<Result<u32, BoxError>> {
        let task = tokio::spawn(self.service.clone().oneshot(call));
        settle().await;
        task
    }

    async fn finish(&self, calls: usize) {
        self.go.add_permits(calls);
        settle().await;
    }

    fn arrived(&self) -> Vec<u32> {
        self.arrived.lock().unwrap().clone()
    }
}

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

fn kind(result: Result<u32, BoxError>) -> RejectedKind {
    Rejected::find(&*result.unwrap_err()).unwrap().kind
}

#[tokio::test(start_paused = true)]
async fn calls_come_in_by_their_order_of_arrival() {
    let bench = bench(1, 10);
    let mut calls = Vec::new();
    for call in 0..4 {
        calls.push(bench.call(call).await);
    }
    assert_eq!(bench.handle.snapshot().waiting, 3);
    for done in 1..=4 {
        bench.finish(1).await;
        assert_eq!(bench.arrived().len(), 4.min(done + 1));
    }
    assert_eq!(bench.arrived(), [0, 1, 2, 3]);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let now = bench.handle.snapshot();
    assert_eq!((now.in_flight, now.waiting, now.totals.success), (0, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake_a_waiter() {
    let bench = bench(1, 10);
    let _first = bench.call(1).await;
    let _second = bench.call(2).await;
    // The place comes free, and before the waiter is polled a newcomer asks.
    bench.go.add_permits(1);
    let mut newcomer = Box::pin(bench.service.clone().oneshot(3));
    assert!(newcomer.as_mut().now_or_never().is_none());
    settle().await;
    assert!(newcomer.as_mut().now_or_never().is_none());
    assert_eq!(bench.arrived(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_too_long_is_rejected() {
    let bench = bench(1, 10);
    let _running = bench.call(1).await;
    let waits = bench.call(2).await;
    advance(WAIT + Duration::from_millis(2)).await;
    assert_eq!(kind(waits.await.unwrap()), RejectedKind::BulkheadFull);
    let now = bench.handle.snapshot();
    assert_eq!((now.in_flight, now.waiting), (1, 0));
    assert_eq!(now.totals.rejected.of(RejectedKind::BulkheadFull), 1);
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_rejected_at_once() {
    let bench = bench(1, 1);
    let _running = bench.call(1).await;
    let _waiting = bench.call(2).await;
    let rejected = bench.service.clone().oneshot(3).now_or_never().unwrap();
    assert_eq!(kind(rejected), RejectedKind::BulkheadFull);
}

#[tokio::test(start_paused = true)]
async fn a_place_passes_over_a_waiter_that_has_gone() {
    let bench = bench(1, 10);
    let running = bench.call(1).await;
    let gone = bench.call(2).await;
    let waits = bench.call(3).await;
    gone.abort();
    settle().await;
    bench.finish(1).await;
    assert_eq!(bench.arrived(), [1, 3]);
    bench.finish(1).await;
    assert!(running.await.unwrap().is_ok() && waits.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_granted_place_is_handed_on_by_a_drop() {
    let bench = bench(1, 10);
    let running = bench.call(1).await;
    // Polled by hand, so that it is granted a place without being polled again.
    let mut granted = Box::pin(bench.service.clone().oneshot(2));
    assert!(granted.as_mut().now_or_never().is_none());
    let _waits = bench.call(3).await;
    running.abort();
    settle().await;
    assert_eq!(bench.arrived(), [1]);
    drop(granted);
    settle().await;
    assert_eq!(bench.arrived(), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_lets_waiters_in() {
    let bench = bench(1, 10);
    let mut calls = Vec::new();
    for call in 0..4 {
        calls.push(bench.call(call).await);
    }
    bench.handle.update(3).unwrap();
    settle().await;
    assert_eq!(bench.arrived(), [0, 1, 2]);
    bench.handle.update(1).unwrap();
    bench.finish(2).await;
    assert_eq!(bench.arrived().len(), 3, "in flight is still at the limit");
    bench.finish(1).await;
    assert_eq!(bench.arrived(), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_frees_the_place_for_the_next() {
    let layer = BulkheadLayer::builder(1).max_wait(WAIT).build().unwrap();
    let service = layer.layer(service_fn(async |call: u32| {
        sleep(Duration::from_millis(10)).await;
        assert_ne!(call, 1, "as told");
        Ok::<_, BoxError>(call)
    }));
    let panics = tokio::spawn(service.clone().oneshot(1));
    settle().await;
    let waits = tokio::spawn(service.oneshot(2));
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(waits.await.unwrap().unwrap(), 2);
    assert_eq!(layer.handle().snapshot().totals.failure, 1);
}

#[test]
fn bad_settings_are_errors_that_name_the_fix() {
    let error = BulkheadLayer::builder(1)
        .max_waiting(5)
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("`max_waiting` is 5"), "{error}");
    let builder = BulkheadLayer::builder(1).max_wait(WAIT).max_waiting(0);
    assert!(builder.build().is_err());
    let builder = BulkheadLayer::builder(1).max_wait(Duration::MAX);
    assert!(builder.build().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_place_is_lost_though_calls_are_dropped() {
    let layer = BulkheadLayer::builder(3)
        .max_wait(Duration::from_secs(60))
        .max_waiting(10_000)
        .build()
        .unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (running.clone(), most.clone());
    let service = layer.layer(service_fn(move |_: u32| {
        let (count, peak) = (count.clone(), peak.clone());
        async move {
            let leave = Leave(count);
            peak.fetch_max(leave.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            yield_now().await;
            Ok::<_, BoxError>(())
        }
    }));
    let tasks = (0..8_u32).map(|task| {
        let mut service = service.clone();
        tokio::spawn(async move {
            for round in 0..4000 {
                let call = service.ready().await.unwrap().call(round);
                if (round + task) % 3 == 0 {
                    // Dropped at whatever point it is after two polls.
                    let mut call = Box::pin(call);
                    let _ = call.as_mut().now_or_never();
                    yield_now().await;
                    let _ = call.as_mut().now_or_never();
                } else {
                    call.await.unwrap();
                }
            }
        })
    });
    join_all(tasks)
        .await
        .into_iter()
        .for_each(|task| task.unwrap());
    let now = layer.handle().snapshot();
    assert_eq!((now.in_flight, now.waiting), (0, 0));
    assert!(most.load(Ordering::SeqCst) <= 3);
}

struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
