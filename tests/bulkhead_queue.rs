//! What ends a wait for a place: a deadline, the end of a body, a change of the limit, a cancel.
#![cfg(feature = "http")]
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{join_all, pending},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Deadline, Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    protocol::http::{Client, UntilBodyEnd},
};

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

fn kind(error: &BoxError) -> RejectedKind {
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
    assert_eq!(kind(&error), RejectedKind::DeadlineExceeded);
    let request = within(SECOND);
    advance(SECOND).await;
    let error = service.oneshot(request).now_or_never().unwrap();
    assert_eq!(kind(&error.unwrap_err()), RejectedKind::DeadlineExceeded);
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

#[tokio::test(start_paused = true)]
async fn after_a_cut_no_waiter_comes_in_too_early() {
    let layer = BulkheadLayer::builder(3).max_wait(SECOND).build().unwrap();
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
    handle.update(1).unwrap();
    for expected in [(2, 1), (1, 1), (1, 0)] {
        drop(calls.remove(0));
        let now = handle.snapshot();
        assert_eq!((now.in_flight, now.waiting), expected);
    }
}

#[test]
fn random_cancels_lose_no_place() {
    let calls = if cfg!(debug_assertions) {
        100_000
    } else {
        1_000_000
    };
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
                        handle.update(1 + random.below(6)).unwrap();
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

#[test]
fn a_bad_order_is_an_error_that_names_the_setting() {
    let builder = || BulkheadLayer::builder(1).name("search");
    let unused = builder().codel(SECOND, SECOND).build().unwrap_err();
    assert!(unused.to_string().contains("`max_wait`"), "{unused}");
    let zero = builder().max_wait(SECOND).codel(Duration::ZERO, SECOND);
    let zero = zero.build().unwrap_err().to_string();
    assert!(
        zero.contains("`target`") && zero.contains("search"),
        "{zero}"
    );
}
