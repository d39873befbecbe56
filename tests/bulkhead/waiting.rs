//! A bulkhead whose calls wait for a place: in which order, how long, and what ends a wait.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused, and compare times of cancels"
)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{join_all, pending},
};
use tokio::{
    sync::Semaphore,
    task::yield_now,
    time::{Instant, advance, sleep},
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
    for call in 0..6 {
        calls.push(bench.call(call).await);
    }
    assert_eq!(bench.handle.snapshot().waiting, 5);
    for done in 1..=6 {
        bench.finish(1).await;
        assert_eq!(bench.arrived().len(), 6.min(done + 1));
    }
    assert_eq!(bench.arrived(), [0, 1, 2, 3, 4, 5]);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let now = bench.handle.snapshot();
    assert_eq!((now.in_flight, now.waiting, now.totals.success), (0, 0, 6));
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
    bench.handle.set_limit(3).unwrap();
    settle().await;
    assert_eq!(bench.arrived(), [0, 1, 2]);
    bench.handle.set_limit(1).unwrap();
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

#[tokio::test(start_paused = true)]
async fn after_a_cut_no_waiter_comes_in_too_early() {
    let layer = BulkheadLayer::builder(3).max_wait(WAIT).build().unwrap();
    let handle = layer.handle();
    let service = layer.layer(service_fn(async |_: u32| {
        pending::<Result<(), BoxError>>().await
    }));
    let mut calls: Vec<_> = (0..4)
        .map(|call| Box::pin(service.clone().oneshot(call)))
        .collect();
    for call in &mut calls {
        assert!(call.as_mut().now_or_never().is_none());
    }
    handle.set_limit(1).unwrap();
    for expected in [(2, 1), (1, 1), (1, 0)] {
        drop(calls.remove(0));
        let now = handle.snapshot();
        assert_eq!((now.in_flight, now.waiting), expected);
    }
}

/// How long calls take that are answered, at twice the capacity, by the order of service.
async fn longest_answer(layer: BulkheadLayer) -> (usize, Duration) {
    let service = layer.layer(service_fn(async |_: u32| {
        sleep(Duration::from_millis(8)).await;
        Ok::<_, std::io::Error>(())
    }));
    let mut calls = Vec::new();
    for call in 0..400 {
        let service = service.clone();
        calls.push(tokio::spawn(async move {
            let start = Instant::now();
            service.oneshot(call).await.ok().map(|()| start.elapsed())
        }));
        sleep(Duration::from_millis(4)).await;
    }
    let calls = join_all(calls).await.into_iter().map(Result::unwrap);
    // Those that came after the first half second.
    let answered: Vec<_> = calls.skip(125).flatten().collect();
    (answered.len(), answered.into_iter().max().unwrap())
}

#[tokio::test(start_paused = true)]
async fn under_sustained_queueing_the_newest_are_served() {
    let builder = || BulkheadLayer::builder(1).max_wait(Duration::from_millis(100));
    let in_order = longest_answer(builder().always_in_order().build().unwrap()).await;
    let newest = longest_answer(builder().build().unwrap()).await;
    // As many, each of them sooner.
    assert!(in_order.1 >= Duration::from_millis(95), "{in_order:?}");
    assert!(newest.1 <= Duration::from_millis(20), "{newest:?}");
    assert!(newest.0 + 15 >= in_order.0, "{newest:?} {in_order:?}");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_polls_twice_however_late_timers_are() {
    let layer = BulkheadLayer::builder(4).max_wait(100 * WAIT);
    let layer = layer.always_in_order().build().unwrap();
    // Each counts a call's polls up to when it is sent.
    let polls: Arc<Vec<AtomicUsize>> = Arc::new((0..200).map(|_| AtomicUsize::new(0)).collect());
    let (polled, sent) = (polls.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = sent.clone();
    let service = BoxCloneService::new(layer.layer(service_fn(move |call: u32| {
        let polls = polled[call as usize].load(Ordering::Relaxed);
        seen.lock().unwrap().push(polls);
        async move {
            sleep(Duration::from_millis(1)).await;
            Ok::<_, BoxError>(call)
        }
    })));
    let calls = (0..200_u32).map(|call| {
        let future = Box::pin(service.clone().oneshot(call));
        let polls = polls.clone();
        tokio::spawn(futures::future::poll_fn({
            let mut future = future;
            move |context| {
                polls[call as usize].fetch_add(1, Ordering::Relaxed);
                future.as_mut().poll(context)
            }
        }))
    });
    let calls: Vec<_> = calls.collect();
    settle().await;
    // Each step is a stall: the timers of all that run ring together, and late.
    while layer.handle().snapshot().in_flight > 0 {
        advance(Duration::from_millis(70)).await;
        settle().await;
    }
    join_all(calls).await;
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 200);
    assert_eq!(sent[..4], [1; 4]);
    assert!(sent[4..].iter().all(|polls| *polls == 2), "{sent:?}");
}

/// The time that one cancel takes among so many, from the middle outwards: the order that a list is
/// worst at.
fn cancel_among(count: u32) -> Duration {
    let layer = BulkheadLayer::builder(1)
        .max_wait(Duration::MAX)
        .max_waiting(usize::MAX)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(|_: u32| pending::<Result<(), BoxError>>()));
    let mut calls: Vec<_> = (0..=count)
        .map(|call| Box::pin(service.clone().oneshot(call)))
        .collect();
    for call in &mut calls {
        assert!(call.now_or_never().is_none());
    }
    assert_eq!(layer.handle().snapshot().waiting, count as usize);
    let start = std::time::Instant::now();
    while !calls.is_empty() {
        drop(calls.swap_remove(calls.len() / 2));
    }
    assert_eq!(layer.handle().snapshot().waiting, 0);
    start.elapsed() / count
}

#[test]
fn a_cancel_costs_little_more_among_many_waiters() {
    let least = |count| (0..5).map(|_| cancel_among(count)).min().unwrap();
    let (few, many) = (least(500), least(32_000));
    // 64 times as many: a list would take 64 times as long, and a tree twice.
    assert!(many < few * 16, "{few:?} among few, {many:?} among many");
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

#[test]
fn a_bad_order_is_an_error_that_names_the_setting() {
    let builder = || BulkheadLayer::builder(1).name("search");
    let unused = builder().codel(WAIT, WAIT).build().unwrap_err();
    assert!(unused.to_string().contains("`max_wait`"), "{unused}");
    let zero = builder().max_wait(WAIT).codel(Duration::ZERO, WAIT);
    let zero = zero.build().unwrap_err().to_string();
    assert!(
        zero.contains("`target`") && zero.contains("search"),
        "{zero}"
    );
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

#[test]
fn random_cancels_lose_no_place() {
    let calls = 1_000_000;
    let layer = BulkheadLayer::builder(4)
        .max_wait(Duration::MAX)
        .max_waiting(64)
        .build()
        .unwrap();
    let handle = layer.handle();
    let running = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (layer, running, handle) = (&layer, running.clone(), &handle);
            scope.spawn(move || {
                let mut service = layer.layer(service_fn(move |_: u64| {
                    let running = Running::new(running.clone());
                    async move {
                        let _running = running;
                        pending::<Result<(), BoxError>>().await
                    }
                }));
                let (mut random, mut held) = (Random(thread + 1), Vec::new());
                let mut context = Context::from_waker(Waker::noop());
                for call in 0..calls / 4 {
                    let _ = service.poll_ready(&mut context);
                    let mut future = Box::pin(service.call(call));
                    if future.as_mut().poll(&mut context).is_pending() {
                        held.push(future);
                    }
                    if random.below(64) == 0 {
                        handle.set_limit(1 + random.below(6)).unwrap();
                    }
                    if held.len() > random.below(24) {
                        let mut cancelled = held.swap_remove(random.below(held.len()));
                        if random.below(2) == 0 {
                            let polled = cancelled.as_mut().poll(&mut context);
                            assert!(matches!(polled, Poll::Pending | Poll::Ready(Err(_))));
                        }
                    }
                }
            });
        }
    });
    let now = handle.snapshot();
    assert_eq!((now.in_flight, now.waiting), (0, 0));
    assert_eq!(running.load(Ordering::SeqCst), 0);
    assert!(now.waited > calls / 100, "{} waited", now.waited);
    assert_eq!(now.totals.admitted, now.totals.cancelled);
}

/// Counts calls that run: at most as many as the limit has ever been.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: Arc<AtomicUsize>) -> Self {
        assert!(count.fetch_add(1, Ordering::SeqCst) < 6);
        Self(count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}

/// What needs HTTP: deadlines in extensions, and bodies.
#[cfg(feature = "http")]
mod http_calls {
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use tokio::time::timeout;
    use tower_keep::{
        Deadline,
        protocol::http::{Client, UntilBodyEnd},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    type Ask = Request<()>;

    async fn hangs(_: Ask) -> Result<Response<Full<Bytes>>, BoxError> {
        pending().await
    }

    async fn answers(_: Ask) -> Result<Response<Full<Bytes>>, BoxError> {
        Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
    }

    fn within(duration: Duration) -> Ask {
        let mut request = Request::new(());
        request.extensions_mut().insert(Deadline::after(duration));
        request
    }

    fn error_kind(error: &BoxError) -> RejectedKind {
        Rejected::find(&**error).unwrap().kind
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_the_deadline_of_the_request() {
        let layer = BulkheadLayer::builder(1)
            .max_wait(10 * SECOND)
            .protocol(Client::new())
            .deadline(|request: &Ask| request.extensions().get().map(|it: &Deadline| it.moment()))
            .build()
            .unwrap();
        let service = layer.layer(service_fn(hangs));
        let mut holder = Box::pin(service.clone().oneshot(Request::new(())));
        assert!(holder.as_mut().now_or_never().is_none());
        let waits = service.clone().oneshot(within(SECOND));
        let error = timeout(SECOND + SECOND / 10, waits)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error_kind(&error), RejectedKind::DeadlineExceeded);
        let request = within(SECOND);
        advance(SECOND).await;
        let error = service.oneshot(request).now_or_never().unwrap();
        assert_eq!(
            error_kind(&error.unwrap_err()),
            RejectedKind::DeadlineExceeded
        );
        let now = layer.handle().snapshot();
        assert_eq!((now.in_flight, now.waiting, now.waited), (1, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_comes_in_at_the_end_of_a_body() {
        let layer = BulkheadLayer::builder(1)
            .max_wait(SECOND)
            .protocol(UntilBodyEnd::new(Client::new()))
            .build()
            .unwrap();
        let service = layer.layer(service_fn(answers));
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        let mut waits = Box::pin(service.oneshot(Request::new(())));
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(layer.handle().snapshot().waiting, 1);
        response.into_body().collect().await.unwrap();
        assert_eq!(layer.handle().snapshot().waiting, 0);
        let second = waits.now_or_never().unwrap().unwrap();
        assert_eq!(layer.handle().snapshot().in_flight, 1);
        drop(second);
        assert_eq!(layer.handle().snapshot().in_flight, 0);
    }
}
