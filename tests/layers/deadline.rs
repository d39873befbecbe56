//! Deadlines: what waits within them, what sets them, and what a call that comes too late is told.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    future::{Future, Ready, ready},
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::time::{Instant, advance};
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};

use tower_keep::{
    Deadline, Rejected, RejectedKind, Timeouts,
    algorithm::{Backoff, Jitter},
    protocol::http::{Client, Server},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

type Answer = Response<Empty<Bytes>>;
type Ask = Request<Empty<Bytes>>;

/// What an attempt had left, by its extension and by its headers.
type Seen = (Option<Duration>, Vec<String>);

/// Answers as it is told, and is ready or not.
#[derive(Clone)]
struct Upstream {
    readiness: Arc<Mutex<Readiness>>,
    answer: fn() -> Result<Answer, io::Error>,
    seen: Arc<Mutex<Vec<Seen>>>,
    calls: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Readiness {
    Ready,
    Hangs,
    Fails,
}

impl Upstream {
    fn new(answer: fn() -> Result<Answer, io::Error>) -> Self {
        Self {
            readiness: Arc::new(Mutex::new(Readiness::Ready)),
            answer,
            seen: Arc::default(),
            calls: Arc::default(),
        }
    }

    fn becomes(&self, readiness: Readiness) {
        *self.readiness.lock().unwrap() = readiness;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl<B> Service<Request<B>> for Upstream {
    type Response = Answer;
    type Error = io::Error;
    type Future = Ready<Result<Answer, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        match *self.readiness.lock().unwrap() {
            Readiness::Ready => Poll::Ready(Ok(())),
            Readiness::Hangs => Poll::Pending,
            Readiness::Fails => Poll::Ready(Err(io::Error::other("readiness"))),
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let deadline = request.extensions().get::<Deadline>();
        let fields = ["grpc-timeout", "x-envoy-expected-rq-timeout-ms"];
        let fields = fields
            .iter()
            .filter_map(|name| request.headers().get(*name));
        let fields = fields.map(|value| value.to_str().unwrap().to_owned());
        let seen = (
            deadline.map(|deadline| deadline.remaining()),
            fields.collect(),
        );
        self.seen.lock().unwrap().push(seen);
        ready((self.answer)())
    }
}

fn unavailable() -> Result<Answer, io::Error> {
    let mut response = Answer::default();
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    Ok(response)
}

fn reset() -> Result<Answer, io::Error> {
    Err(io::Error::other("call"))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn within(remaining: Duration) -> Ask {
    let deadline = Deadline::after(remaining);
    Request::builder()
        .extension(deadline)
        .body(Empty::new())
        .unwrap()
}

/// Waits 100 ms before the first retry.
fn retry(client: Client) -> RetryLayer<Client> {
    let jitter = Jitter::Additive(Duration::from_nanos(1));
    let backoff = Backoff::new(millis(100), Duration::from_secs(1), jitter).unwrap();
    RetryLayer::builder()
        .backoff(backoff)
        .protocol(client)
        .build()
        .unwrap()
}

fn rejection(error: &BoxError) -> (&'static str, RejectedKind) {
    let rejected = Rejected::find(&**error).unwrap();
    (rejected.layer, rejected.kind)
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_the_deadline_is_not_waited_for() {
    let (layer, upstream) = (retry(Client::new()), Upstream::new(unavailable));
    let start = Instant::now();
    let response = layer
        .layer(upstream.clone())
        .oneshot(within(millis(80)))
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), upstream.calls()), (503, 1));
    assert_eq!(start.elapsed(), Duration::ZERO);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.not_sent, snapshot.budget), (1, Some(10)));
    layer
        .layer(upstream.clone())
        .oneshot(within(millis(120)))
        .await
        .unwrap();
    assert_eq!(upstream.calls(), 3);
}

/// What a call with 500 ms left is told, and when, if after its first attempt the upstream becomes
/// `readiness`.
async fn unready_retry(
    answer: fn() -> Result<Answer, io::Error>,
    readiness: Readiness,
) -> (String, Duration) {
    let (layer, upstream) = (retry(Client::new()), Upstream::new(answer));
    let mut service = layer.layer(upstream.clone());
    let start = Instant::now();
    let service = ServiceExt::<Ask>::ready(&mut service).await.unwrap();
    let mut call = pin!(service.call(within(millis(500))));
    assert!(
        call.as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    upstream.becomes(readiness);
    let error = call.as_mut().await.unwrap_err();
    // The future is still there, and the token is back already.
    let snapshot = layer.handle().snapshot();
    assert_eq!(
        (snapshot.not_sent, snapshot.budget, snapshot.retries),
        (1, Some(10), 0)
    );
    (error.to_string(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_returned_if_readiness_fails() {
    let (error, waited) = unready_retry(reset, Readiness::Fails).await;
    assert_eq!(error, "call");
    assert!(waited < millis(110), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_error_stands_at_the_deadline() {
    let (error, waited) = unready_retry(reset, Readiness::Hangs).await;
    assert_eq!(error, "call");
    assert!(waited >= millis(500) && waited < millis(510), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_response_a_readiness_error_is_returned() {
    assert_eq!(
        unready_retry(unavailable, Readiness::Fails).await.0,
        "readiness"
    );
    let (error, waited) = unready_retry(unavailable, Readiness::Hangs).await;
    assert!(error.ends_with("timed out"), "{error}");
    assert!(waited >= millis(500) && waited < millis(510), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_sets_the_deadline_of_every_attempt() {
    let total = TimeoutLayer::builder(millis(1000))
        .total(true)
        .protocol(Client::new());
    let upstream = Upstream::new(unavailable);
    let service = total
        .build()
        .unwrap()
        .layer(retry(Client::new()).layer(upstream.clone()));
    service.oneshot(Ask::default()).await.unwrap();
    let seen = upstream.seen.lock().unwrap();
    let remaining: Vec<_> = seen
        .iter()
        .map(|(remaining, _)| remaining.unwrap())
        .collect();
    assert_eq!(remaining[0], millis(1000));
    assert!(
        remaining[1] <= millis(900) && remaining[1] > millis(895),
        "{remaining:?}"
    );
    assert!(
        remaining[2] <= millis(700) && remaining[2] > millis(690),
        "{remaining:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_holds_over_a_later_one() {
    let total = TimeoutLayer::builder(millis(1000))
        .total(true)
        .protocol(Client::new());
    let upstream = Upstream::new(unavailable);
    let service = total.build().unwrap().layer(upstream.clone());
    service.clone().oneshot(within(millis(300))).await.unwrap();
    service.oneshot(within(millis(3000))).await.unwrap();
    let seen = upstream.seen.lock().unwrap();
    assert_eq!(
        (seen[0].0, seen[1].0),
        (Some(millis(300)), Some(millis(1000)))
    );
}

#[tokio::test(start_paused = true)]
async fn each_attempt_tells_the_upstream_what_remains() {
    let client = Client::new().send_deadline(true);
    let upstream = Upstream::new(unavailable);
    let service = retry(client).layer(upstream.clone());
    let mut request = within(millis(250));
    request
        .headers_mut()
        .append("grpc-timeout", "1H".parse().unwrap());
    service.oneshot(request).await.unwrap();
    let seen = upstream.seen.lock().unwrap();
    assert_eq!(seen[0].1, ["250m", "250"]);
    // tokio's timer may be a millisecond late.
    let remains = [["150m", "150"], ["149m", "149"]];
    assert!(
        remains.iter().any(|remains| seen[1].1 == *remains),
        "{:?}",
        seen[1].1
    );
    assert_eq!(seen.len(), 2, "the third would come after the deadline");
}

#[tokio::test(start_paused = true)]
async fn an_attempts_timeout_is_told_to_the_upstream() {
    let client = Client::new().send_deadline(true);
    let upstream = Upstream::new(unavailable);
    let attempt = TimeoutLayer::builder(millis(400))
        .protocol(client)
        .build()
        .unwrap();
    attempt
        .layer(upstream.clone())
        .oneshot(within(millis(900)))
        .await
        .unwrap();
    assert_eq!(upstream.seen.lock().unwrap()[0].1, ["400m", "400"]);
}

#[tokio::test(start_paused = true)]
async fn work_that_arrives_too_late_is_rejected_unsent() {
    let upstream = Upstream::new(unavailable);
    let layer = TimeoutLayer::builder(millis(1000))
        .protocol(Client::new())
        .build()
        .unwrap();
    let request = within(millis(10));
    advance(millis(10)).await;
    let error = layer
        .layer(upstream.clone())
        .oneshot(request)
        .await
        .unwrap_err();
    assert_eq!(
        rejection(&error),
        ("timeout", RejectedKind::DeadlineExceeded)
    );
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_unsent_reserves_nothing() {
    let upstream = Upstream::new(unavailable);
    let layer = TimeoutLayer::builder(millis(1000))
        .protocol(Client::new())
        .build()
        .unwrap();
    let mut idle = layer.layer(ConcurrencyLimitLayer::new(1).layer(upstream));
    let mut other = idle.clone();
    let request = within(millis(10));
    ServiceExt::<Ask>::ready(&mut idle).await.unwrap();
    advance(millis(10)).await;
    idle.call(request).await.unwrap_err();
    let ready = tokio::time::timeout(millis(1), ServiceExt::<Ask>::ready(&mut other)).await;
    assert!(ready.is_ok(), "the place is free again");
}

/// The service is ready only when the time is over: no answer would be in time.
#[tokio::test(start_paused = true)]
async fn a_call_ready_after_its_time_is_not_sent() {
    let upstream = Upstream::new(unavailable);
    let total = TimeoutLayer::builder(millis(1000)).total(true);
    let total = total.protocol(Client::new()).build().unwrap();
    for request in [within(millis(300)), Ask::default()] {
        upstream.becomes(Readiness::Hangs);
        let mut call = pin!(total.layer(upstream.clone()).oneshot(request));
        let waits = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        upstream.becomes(Readiness::Ready);
        advance(millis(1000)).await;
        let error = call.await.unwrap_err();
        let expected = ("timeout", RejectedKind::DeadlineExceeded);
        assert_eq!(rejection(&error), expected);
        assert_eq!(upstream.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_cut_off_at_its_deadline() {
    let hang = service_fn(async |_: Ask| {
        std::future::pending::<()>().await;
        unavailable()
    });
    let layer = TimeoutLayer::builder(millis(1000))
        .protocol(Client::new())
        .build()
        .unwrap();
    let start = Instant::now();
    let error = layer
        .layer(hang)
        .oneshot(within(millis(300)))
        .await
        .unwrap_err();
    assert_eq!(rejection(&error), ("timeout", RejectedKind::TimedOut));
    assert!(start.elapsed() < millis(310), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_may_bring_timeouts_of_its_own() {
    let slow = service_fn(async |_: Ask| {
        tokio::time::sleep(millis(2000)).await;
        unavailable()
    });
    let layer = |total| {
        let layer = TimeoutLayer::builder(millis(1000))
            .total(total)
            .protocol(Client::new());
        layer.build().unwrap()
    };
    let ask = |timeouts: Timeouts| Request::builder().extension(timeouts).body(Empty::new());
    let timeouts = Timeouts::new;
    for (total, timeouts, passes) in [
        (false, timeouts().attempt(millis(3000)), true),
        (false, timeouts().total(millis(3000)), false),
        (true, timeouts().total(millis(3000)), true),
        (true, timeouts().attempt(millis(3000)), false),
        (true, timeouts().total(Duration::ZERO), false),
        (true, timeouts().total(Duration::MAX), true),
    ] {
        let result = layer(total)
            .layer(slow)
            .oneshot(ask(timeouts).unwrap())
            .await;
        assert_eq!(result.is_ok(), passes, "{total} {timeouts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_covers_the_wait_for_readiness() {
    let upstream = Upstream::new(unavailable);
    let total = TimeoutLayer::builder(millis(1000))
        .total(true)
        .protocol(Client::new());
    let mut service = total.build().unwrap().layer(upstream.clone());
    upstream.becomes(Readiness::Hangs);
    let start = Instant::now();
    let ready = ServiceExt::<Ask>::ready(&mut service).await.unwrap();
    let error = ready.call(Ask::default()).await.unwrap_err();
    assert_eq!(
        rejection(&error),
        ("timeout", RejectedKind::DeadlineExceeded)
    );
    assert!(start.elapsed() >= millis(1000) && start.elapsed() < millis(1010));
    assert_eq!(upstream.calls(), 0);

    let ready = ServiceExt::<Ask>::ready(&mut service).await.unwrap();
    let mut call = pin!(ready.call(Ask::default()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    upstream.becomes(Readiness::Ready);
    assert_eq!(call.await.unwrap().status(), 503);
    upstream.becomes(Readiness::Fails);
    assert_eq!(
        ServiceExt::<Ask>::ready(&mut service)
            .await
            .map(drop)
            .unwrap_err()
            .to_string(),
        "readiness"
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempts_timeout_leaves_readiness_to_its_caller() {
    let upstream = Upstream::new(unavailable);
    upstream.becomes(Readiness::Hangs);
    for (total, enabled) in [(false, true), (true, false)] {
        let layer = TimeoutLayer::builder(millis(1000))
            .total(total)
            .enabled(enabled);
        let layer = layer.protocol(Client::new()).build().unwrap();
        let mut service = layer.layer(upstream.clone());
        let mut cx = Context::from_waker(Waker::noop());
        let readiness = Service::<Ask>::poll_ready(&mut service, &mut cx);
        assert!(readiness.is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_reads_its_callers_deadline_if_enabled() {
    let read = |enabled| {
        let upstream = Upstream::new(unavailable);
        let layer =
            TimeoutLayer::builder(millis(5000)).protocol(Server::new().read_deadline(enabled));
        let service = layer.build().unwrap().layer(upstream.clone());
        async move {
            let request = Request::builder().header("grpc-timeout", "2S");
            let request = request.header("x-envoy-expected-rq-timeout-ms", "1500");
            service
                .oneshot(request.body(Empty::<Bytes>::new()).unwrap())
                .await
                .unwrap();
            let seen = upstream.seen.lock().unwrap();
            seen[0].0
        }
    };
    assert_eq!(read(true).await, Some(millis(1500)));
    assert_eq!(read(false).await, None);
}
