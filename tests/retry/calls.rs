//! Retry, scenario by scenario.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{Instant, Sleep, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Deadline, Rejected, RejectedKind,
    algorithm::{Backoff, Budget, Jitter, RetryBudget, RetryThrottle, WindowedBudget},
    bulkhead::BulkheadLayer,
    observe::Registry,
    protocol::{Always, Chosen, ErrIsFailure, Plain, Protocol, Replay, http as keep_http},
    retry::{RetryBuilder, RetryLayer},
    timeout::TimeoutLayer,
};

type Answer = Response<Empty<Bytes>>;

fn client() -> RetryBuilder<Chosen<keep_http::Client>> {
    RetryLayer::builder().protocol(keep_http::Client::new())
}

fn answer(status: u16) -> Answer {
    Response::builder()
        .status(status)
        .body(Empty::new())
        .unwrap()
}

fn throttled(retry_after: &str) -> Answer {
    Response::builder()
        .status(429)
        .header(RETRY_AFTER, retry_after)
        .body(Empty::new())
        .unwrap()
}

fn request(method: Method) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .body(Full::from("body"))
        .unwrap()
}

/// Sends one request to a peer that gives these answers and then 200; returns the final status, and
/// the bodies, `Idempotency-Key`s and all, of the calls that it got.
async fn send<P>(
    layer: &RetryLayer<P>,
    answers: Vec<Answer>,
    request: Request<Full<Bytes>>,
) -> (StatusCode, Vec<String>)
where
    P: Replay<Request<Full<Bytes>>, Request = Request<keep_http::ReplayBody<Full<Bytes>>>>
        + Protocol<Answer, io::Error, Response<()> = Answer, Error = tower::BoxError>,
{
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recording = seen.clone();
    let peer = service_fn(
        move |request: Request<keep_http::ReplayBody<Full<Bytes>>>| {
            let (answers, seen) = (answers.clone(), recording.clone());
            async move {
                let key = request
                    .headers()
                    .get("idempotency-key")
                    .map(|key| key.to_str().unwrap().to_owned());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                seen.lock().unwrap().push(format!(
                    "{}{}",
                    String::from_utf8_lossy(&body),
                    key.unwrap_or_default()
                ));
                Ok::<_, io::Error>(
                    answers
                        .lock()
                        .unwrap()
                        .next()
                        .unwrap_or_else(|| answer(200)),
                )
            }
        },
    );
    let status = layer.layer(peer).oneshot(request).await.unwrap().status();
    let seen = seen.lock().unwrap().clone();
    (status, seen)
}

#[tokio::test(start_paused = true)]
async fn a_plain_client_error_is_never_retried() {
    for status in [400, 401, 403, 404, 408, 409, 422, 425, 429] {
        let (_, calls) = send(
            &client().build().unwrap(),
            vec![answer(status)],
            request(Method::GET),
        )
        .await;
        assert_eq!(calls.len(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_transient_server_errors_are_retried() {
    for (status, calls) in [(500, 1), (501, 1), (505, 1), (502, 2), (503, 2), (504, 2)] {
        let seen = send(
            &client().build().unwrap(),
            vec![answer(status)],
            request(Method::GET),
        )
        .await
        .1;
        assert_eq!(seen.len(), calls, "{status}");
    }
    let opted_in = RetryLayer::builder()
        .protocol(keep_http::Client::new().also_retry([StatusCode::INTERNAL_SERVER_ERROR]))
        .build()
        .unwrap();
    assert_eq!(
        send(&opted_in, vec![answer(500)], request(Method::GET))
            .await
            .1
            .len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn only_idempotent_requests_are_sent_twice() {
    let layer = client().build().unwrap();
    let unavailable = || vec![answer(503)];
    for method in [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ] {
        assert_eq!(
            send(&layer, unavailable(), request(method.clone()))
                .await
                .1
                .len(),
            2,
            "{method}"
        );
    }
    for method in [Method::POST, Method::PATCH, Method::CONNECT] {
        let (status, calls) = send(&layer, unavailable(), request(method.clone())).await;
        assert_eq!((status.as_u16(), calls.len()), (503, 1), "{method}");
    }
    let mut marked = request(Method::POST);
    marked.extensions_mut().insert(keep_http::Idempotent);
    assert_eq!(send(&layer, unavailable(), marked).await.1.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_retried_request_is_the_same_request() {
    let mut post = request(Method::POST);
    post.headers_mut()
        .insert("idempotency-key", "-k1".parse().unwrap());
    let (status, calls) = send(&client().build().unwrap(), vec![answer(503)], post).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(calls, ["body-k1", "body-k1"]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_request_comes_back_when_it_was_told_to() {
    let start = Instant::now();
    let layer = client().build().unwrap();
    assert_eq!(
        send(&layer, vec![throttled("3")], request(Method::GET))
            .await
            .1
            .len(),
        2
    );
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_secs(3) && waited <= Duration::from_millis(3301),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_past_retry_after_is_no_wait_a_long_one_is_final() {
    let layer = client().build().unwrap();
    let past = "Fri, 31 Dec 1999 23:59:59 GMT";
    assert_eq!(
        send(&layer, vec![throttled(past)], request(Method::GET))
            .await
            .1
            .len(),
        2
    );
    let (status, calls) = send(&layer, vec![throttled("11")], request(Method::GET)).await;
    assert_eq!((status.as_u16(), calls.len()), (429, 1));
    let strict = RetryLayer::builder()
        .protocol(keep_http::Client::new().strict())
        .build()
        .unwrap();
    assert_eq!(
        send(&strict, vec![throttled("1")], request(Method::GET))
            .await
            .1
            .len(),
        1
    );
}

#[tokio::test]
async fn a_refused_connection_is_retried_free_once() {
    // A port that was free a moment ago: nobody listens.
    let address = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let backoff = Backoff::new(
        Duration::from_micros(1),
        Duration::from_millis(1),
        Jitter::Full,
    )
    .unwrap();
    let layer = client()
        .backoff(backoff)
        .attempts(4)
        .budget(RetryBudget::new(1, 0.1).unwrap())
        .build()
        .unwrap();
    let post = Request::post(format!("http://{address}/"))
        .body(Full::<Bytes>::from("body"))
        .unwrap();
    let service = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    service.oneshot(post).await.unwrap_err();
    let snapshot = layer.handle().snapshot();
    assert_eq!(
        (snapshot.retries, snapshot.budget, snapshot.budget_denied),
        (2, Some(0), 1)
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_end_with_the_last_result() {
    let layer = client().build().unwrap();
    let (status, calls) = send(
        &layer,
        vec![answer(503), answer(502), answer(504)],
        request(Method::GET),
    )
    .await;
    assert_eq!((status.as_u16(), calls.len()), (504, 3));
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_budget_bounds_the_calls() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let down = service_fn(async |_: u32| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        Err::<u32, _>(io::Error::other("down"))
    });
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let mut service = layer.layer(down);
    for n in 0..10_000 {
        service.ready().await.unwrap().call(n).await.unwrap_err();
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 10_010);
}

#[tokio::test(start_paused = true)]
async fn our_own_rejections_are_not_retried() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let full = service_fn(move |_: u32| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err::<u32, _>(Rejected::new(RejectedKind::BulkheadFull, "bulkhead")) }
    });
    let own = Registry::new();
    let layer = own.with(|| {
        let layer = RetryLayer::builder().protocol(Plain::new().idempotent());
        layer.name("search").build().unwrap()
    });
    layer.layer(full).oneshot(1).await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let now = layer.handle().snapshot();
    assert_eq!((now.rejected, now.not_retryable), (1, 0), "{now:?}");
    let totals = own.snapshot()[0].totals;
    assert_eq!((totals.ignored, totals.failure), (1, 0), "{totals:?}");
}

#[test]
fn a_layer_tells_whether_it_has_a_hook() {
    let told = |layer: &RetryLayer<keep_http::Client>| format!("{layer:?}");
    let (without, with) = (client(), client().on_retry(|_| {}));
    let [without, with] = [without, with].map(|builder| builder.build().unwrap());
    assert!(told(&without).contains("nothing") && told(&with).contains("a closure"));
}

#[tokio::test(start_paused = true)]
async fn no_wait_begins_that_ends_with_the_deadline() {
    let fixed = Backoff::new(milliseconds(100), milliseconds(100), Jitter::None).unwrap();
    let layer = client().backoff(fixed).build().unwrap();
    let reset = service_fn(async |_: Request<keep_http::ReplayBody<Full<Bytes>>>| {
        Err::<Answer, _>(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    for (left, waited) in [(100, 0), (101, 0), (102, 100)] {
        let start = Instant::now();
        let mut get = request(Method::GET);
        get.extensions_mut()
            .insert(Deadline::after(milliseconds(left)));
        layer.layer(reset).oneshot(get).await.unwrap_err();
        let waited = waited..waited + 2;
        assert!(waited.contains(&start.elapsed().as_millis()), "{left}");
    }
}

/// Each clone is ready after a tenth of a second. The first call of all fails.
struct Warming {
    came: Arc<AtomicUsize>,
    ready: Pin<Box<Sleep>>,
}

impl Clone for Warming {
    fn clone(&self) -> Self {
        Self {
            came: self.came.clone(),
            ready: Box::pin(sleep(milliseconds(100))),
        }
    }
}

impl Service<u32> for Warming {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, call: u32) -> Self::Future {
        ready(match self.came.fetch_add(1, Ordering::Relaxed) {
            0 => Err("as told".into()),
            _ => Ok(call),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_until_its_service_is_ready() {
    let start = Instant::now();
    let fixed = Backoff::new(milliseconds(10), milliseconds(10), Jitter::None).unwrap();
    let layer = RetryLayer::builder().protocol(Plain::new().idempotent());
    let layer = layer.backoff(fixed).build().unwrap();
    let warming = Warming {
        came: Arc::default(),
        ready: Box::pin(sleep(Duration::ZERO)),
    };
    assert_eq!(layer.layer(warming.clone()).oneshot(7).await.unwrap(), 7);
    assert_eq!(warming.came.load(Ordering::Relaxed), 2);
    let took = start.elapsed().as_millis();
    assert!((200..=203).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn two_requests_never_share_a_schedule() {
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .attempts(2)
        .without_budget()
        .build()
        .unwrap();
    let mut waits = std::collections::HashSet::new();
    for n in 0..20 {
        let start = Instant::now();
        let down = service_fn(async |_: u32| Err::<u32, _>(io::Error::other("down")));
        layer.layer(down).oneshot(n).await.unwrap_err();
        waits.insert(start.elapsed());
    }
    // Tokio's timer counts in milliseconds, so a few of a hundred may meet.
    assert!(waits.len() > 10, "{waits:?}");
}

#[tokio::test]
async fn nothing_is_copied_when_no_retry_is_possible() {
    #[derive(Debug)]
    struct Uncopied(Arc<AtomicUsize>);
    impl Clone for Uncopied {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(self.0.clone())
        }
    }
    let copies = Arc::new(AtomicUsize::new(0));
    let echo = || service_fn(async |_: Uncopied| Ok::<_, Infallible>(()));
    let retry = || RetryLayer::builder().protocol(Plain::new().idempotent());
    let exhausted = RetryBudget::new(1, 0.001).unwrap();
    assert!(exhausted.withdraw());
    for layer in [
        retry().attempts(1).build(),
        retry().enabled(false).build(),
        retry().budget(exhausted).build(),
    ] {
        layer
            .unwrap()
            .layer(echo())
            .oneshot(Uncopied(copies.clone()))
            .await
            .unwrap();
    }
    let never = Plain::new().idempotent_when(|_: &Uncopied| false);
    RetryLayer::builder()
        .protocol(never)
        .build()
        .unwrap()
        .layer(echo())
        .oneshot(Uncopied(copies.clone()))
        .await
        .unwrap();
    assert_eq!(copies.load(Ordering::Relaxed), 0);
    retry()
        .build()
        .unwrap()
        .layer(echo())
        .oneshot(Uncopied(copies.clone()))
        .await
        .unwrap();
    assert_eq!(copies.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_rejected_beneath_costs_no_token() {
    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let peer = service_fn(async |hang: bool| match hang {
        true => std::future::pending().await,
        false => Err::<(), _>(io::Error::other("down")),
    });
    let mut service = layer.layer(bulkhead.layer(peer));
    let (mut hanging, mut failing) = (pin!(service.call(true)), pin!(service.call(false)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(hanging.as_mut().poll(&mut cx).is_pending());
    // The bulkhead is full: nothing is retried, and nothing paid.
    let error = failing.as_mut().await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::BulkheadFull
    );
    assert_eq!(layer.handle().snapshot().budget, Some(10));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_back_as_soon_as_its_retry_is_rejected() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let peer = service_fn(async |()| match CALLS.fetch_add(1, Ordering::Relaxed) {
        0 => Err::<(), BoxError>(io::Error::other("down").into()),
        _ => Err(Rejected::new(RejectedKind::BulkheadFull, "bulkhead").into()),
    });
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let mut call = pin!(layer.layer(peer).call(()));
    let error = call.as_mut().await.unwrap_err();
    assert!(Rejected::find(&*error).is_some());
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.retries, snapshot.budget), (1, Some(10)));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_back_before_its_future_is_dropped() {
    let unreadable = service_fn(
        async |request: Request<keep_http::ReplayBody<Full<Bytes>>>| {
            // The body outlives the answer, as when a peer answers before it has read everything.
            std::mem::forget(request);
            Ok::<_, io::Error>(answer(503))
        },
    );
    let layer = client().build().unwrap();
    let mut call = pin!(layer.layer(unreadable).call(request(Method::PUT)));
    assert_eq!(call.as_mut().await.unwrap().status(), 503);
    assert_eq!(layer.handle().snapshot().budget, Some(10));
}

#[tokio::test]
async fn an_upload_that_a_timeout_cut_off_is_sent_again() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = move |body: Bytes| async move { seen.lock().unwrap().push(body) };
    let router = axum::Router::new().route("/", axum::routing::put(handler));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(std::future::IntoFuture::into_future(axum::serve(
        listener, router,
    )));

    // The first attempt stalls in the middle of its body, the second does not.
    let counted = calls.clone();
    let body = futures::stream::unfold(0, move |part| {
        let stalls = part == 1 && counted.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if stalls {
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            let frame = http_body::Frame::data(Bytes::from_static(b"part "));
            (part < 3).then_some((Ok::<_, Infallible>(frame), part + 1))
        }
    });
    let backoff = Backoff::new(
        Duration::from_millis(50),
        Duration::from_millis(100),
        Jitter::Equal,
    )
    .unwrap();
    let timeout = TimeoutLayer::builder(Duration::from_millis(100))
        .protocol(keep_http::Client::new())
        .build()
        .unwrap();
    let layer = client().backoff(backoff).attempts(5).build().unwrap();
    let service = layer.layer(timeout.layer(Client::builder(TokioExecutor::new()).build_http()));
    let request = Request::put(format!("http://{address}/"))
        .body(http_body_util::StreamBody::new(Box::pin(body)))
        .unwrap();
    assert_eq!(
        service.oneshot(request).await.unwrap().status(),
        StatusCode::OK
    );
    assert!(layer.handle().snapshot().retries >= 1);
    assert_eq!(bodies.lock().unwrap().last().unwrap(), "part part part ");
}

#[tokio::test]
async fn a_request_that_hyper_will_not_send_is_not_retried() {
    let layer = client().build().unwrap();
    let service = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let relative = Request::get("/relative")
        .body(Full::<Bytes>::default())
        .unwrap();
    service.oneshot(relative).await.unwrap_err();
    assert_eq!(layer.handle().snapshot().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn layers_of_one_builder_have_budgets_of_their_own() {
    let builder = RetryLayer::builder().protocol(Plain::new().idempotent());
    let (first, second) = (builder.clone().build().unwrap(), builder.build().unwrap());
    let down = service_fn(async |()| Err::<(), _>(io::Error::other("down")));
    first.layer(down).oneshot(()).await.unwrap_err();
    assert_eq!(
        (
            first.handle().snapshot().budget,
            second.handle().snapshot().budget
        ),
        (Some(8), Some(10))
    );
}

/// A retry of an always idempotent `Plain`.
fn plain() -> RetryBuilder<Chosen<Plain<ErrIsFailure, Always>>> {
    RetryLayer::builder().protocol(Plain::new().idempotent())
}

fn milliseconds(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The shortest backoff there is, to see what is added to it.
fn brief() -> Backoff {
    Backoff::new(milliseconds(1), milliseconds(2), Jitter::Full).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clients_told_the_same_wait_are_spread() {
    let layer = client().backoff(brief()).without_budget().build().unwrap();
    let start = Instant::now();
    let calls = (0..1000).map(|_| async {
        send(&layer, vec![throttled("2")], request(Method::GET)).await;
        start.elapsed()
    });
    let waits = futures::future::join_all(calls).await;
    let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*first >= Duration::from_secs(2), "{first:?}");
    assert!(*last <= milliseconds(2202), "{last:?}");
    let within = |from: Duration| {
        let window = from..from + milliseconds(100);
        waits.iter().filter(|wait| window.contains(wait)).count()
    };
    let most = waits.iter().map(|wait| within(*wait)).max().unwrap();
    assert!(most < 600, "{most} of 1000 within 100 ms");
}

#[tokio::test(start_paused = true)]
async fn a_hint_never_shortens_the_backoff() {
    let second = Duration::from_secs(1);
    let backoff = Backoff::new(second, 10 * second, Jitter::default()).unwrap();
    let layer = client().backoff(backoff).build().unwrap();
    let start = Instant::now();
    let calls = send(&layer, vec![throttled("0")], request(Method::GET))
        .await
        .1;
    assert_eq!(calls.len(), 2);
    assert!(start.elapsed() >= second, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn decorrelated_delays_grow_from_each_other() {
    let base = milliseconds(10);
    let backoff = Backoff::new(base, Duration::from_secs(10), Jitter::Decorrelated).unwrap();
    let layer = plain().backoff(backoff).attempts(40).without_budget();
    let down = service_fn(async |()| Err::<(), _>(io::Error::other("down")));
    let start = Instant::now();
    layer
        .build()
        .unwrap()
        .layer(down)
        .oneshot(())
        .await
        .unwrap_err();
    // Without the delay before, each of the 39 is at most three times the base.
    let waited = start.elapsed();
    assert!(waited > 2 * 39 * 3 * base, "{waited:?}");
}

#[tokio::test]
async fn an_unsent_call_is_retried_once_on_an_empty_budget() {
    let empty = RetryBudget::new(1, 0.001).unwrap();
    assert!(empty.withdraw());
    let layer = client().backoff(brief()).budget(empty).build().unwrap();
    let refused = service_fn(async |_: Request<keep_http::ReplayBody<Full<Bytes>>>| {
        Err::<Answer, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    });
    layer
        .layer(refused)
        .oneshot(request(Method::POST))
        .await
        .unwrap_err();
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.retries, snapshot.budget_denied), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_policy_changes_while_it_runs() {
    let layer = plain().without_budget().build().unwrap();
    let handle = layer.handle();
    let down = || service_fn(async |()| Err::<(), _>(io::Error::other("down")));
    layer.layer(down()).oneshot(()).await.unwrap_err();
    assert_eq!(handle.snapshot().retries, 2);

    let attempts = |attempts| {
        let mut config = handle.config();
        config.attempts = attempts;
        handle.update(config)
    };
    let changed = attempts(6).unwrap();
    assert_eq!(changed.to_string(), "retry: `attempts` from 3 to 6");
    layer.layer(down()).oneshot(()).await.unwrap_err();
    assert_eq!(handle.snapshot().retries, 2 + 5);

    attempts(1).unwrap();
    layer.layer(down()).oneshot(()).await.unwrap_err();
    assert_eq!(handle.snapshot().retries, 7);
    assert_eq!(attempts(0).unwrap_err().field, "attempts");
    assert_eq!(handle.config().attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_not_enabled_stays_so() {
    let layer = plain().enabled(false).build().unwrap();
    let mut config = layer.handle().config();
    config.attempts = 9;
    layer.handle().update(config).unwrap();
    let down = service_fn(async |()| Err::<(), _>(io::Error::other("down")));
    layer.layer(down).oneshot(()).await.unwrap_err();
    assert_eq!(layer.handle().snapshot().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn every_call_that_ends_is_counted_once() {
    let layer = client().attempts(2).build().unwrap();
    let get = || request(Method::GET);
    send(&layer, vec![answer(200)], get()).await;
    send(&layer, vec![answer(404)], get()).await;
    send(&layer, vec![answer(503)], get()).await;
    send(&layer, vec![answer(503), answer(503)], get()).await;
    send(&layer, vec![answer(501)], get()).await;
    send(&layer, vec![answer(503)], request(Method::POST)).await;
    send(&layer, vec![throttled("11")], get()).await;
    let tiny = RetryLayer::builder().protocol(keep_http::Client::new().body_limit(1));
    let tiny = tiny.build().unwrap();
    send(&tiny, vec![answer(503)], get()).await;
    let empty = RetryBudget::new(1, 0.001).unwrap();
    assert!(empty.withdraw());
    let poor = client().budget(empty).build().unwrap();
    send(&poor, vec![answer(503)], get()).await;

    let snapshot = layer.handle().snapshot();
    let counts = (snapshot.first_try, snapshot.recovered, snapshot.exhausted);
    // A 404 and a 501 are answers too.
    assert_eq!(counts, (3, 1, 1));
    assert_eq!((snapshot.not_retryable, snapshot.not_sent), (1, 1));
    assert_eq!(snapshot.retries, 2);
    assert_eq!(tiny.handle().snapshot().not_replayable, 1);
    assert_eq!(poor.handle().snapshot().budget_denied, 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_retried_when_it_says_if_asked_for() {
    let second = Duration::from_secs(1);
    for (kind, calls) in [
        (RejectedKind::RateLimited, 2),
        (RejectedKind::CircuitOpen, 2),
        (RejectedKind::BulkheadFull, 2),
        (RejectedKind::Throttled, 2),
        (RejectedKind::CostTooHigh, 1),
        (RejectedKind::MissingKey, 1),
        (RejectedKind::DeadlineExceeded, 1),
    ] {
        let counted = Arc::new(AtomicUsize::new(0));
        let count = counted.clone();
        let peer = service_fn(move |()| {
            let mut rejected = Rejected::new(kind, "test");
            rejected.retry_after = Some(second);
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err(rejected) } else { Ok(()) } }
        });
        let layer = plain().retry_rejected(true).build().unwrap();
        let start = Instant::now();
        let result = layer.layer(peer).oneshot(()).await;
        assert_eq!(counted.load(Ordering::Relaxed), calls, "{kind:?}");
        assert_eq!(result.is_ok(), calls == 2, "{kind:?}");
        assert!(calls == 1 || start.elapsed() >= second, "{kind:?}");
        let snapshot = layer.handle().snapshot();
        assert_eq!(snapshot.rejected, 2 - calls as u64, "{kind:?}");
        assert_eq!(snapshot.budget, Some(10), "the first such retry is free");
    }
}

/// A stall delays the timer of the backoff beyond the deadline.
#[tokio::test(start_paused = true)]
async fn a_retry_polled_after_its_deadline_is_not_sent() {
    for status in [503, 0] {
        let calls = Arc::new(AtomicUsize::new(0));
        let own = calls.clone();
        let peer = service_fn(move |_| {
            own.fetch_add(1, Ordering::Relaxed);
            async move {
                match status {
                    0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    _ => Ok(answer(status)),
                }
            }
        });
        let layer = client().build().unwrap();
        let mut get = request(Method::GET);
        get.extensions_mut()
            .insert(Deadline::after(milliseconds(500)));
        let mut call = pin!(layer.layer(peer).oneshot(get));
        let waits = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        tokio::time::advance(milliseconds(500)).await;
        call.await.unwrap_err();
        let snapshot = layer.handle().snapshot();
        assert_eq!((snapshot.not_sent, snapshot.budget), (1, Some(10)));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_knows_its_number() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recording = seen.clone();
    let peer = service_fn(
        move |request: Request<keep_http::ReplayBody<Full<Bytes>>>| {
            let count = |name| {
                let values = request.headers().get_all(name).into_iter();
                values
                    .map(|value| value.to_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
                    .join(",")
            };
            recording.lock().unwrap().push((
                keep_http::Attempt::of(request.extensions()).0,
                count("x-envoy-attempt-count"),
                count("grpc-previous-rpc-attempts"),
            ));
            async { Ok::<_, io::Error>(answer(503)) }
        },
    );
    let protocol = keep_http::Client::new().attempt_headers(true);
    let layer = RetryLayer::builder().protocol(protocol).build().unwrap();
    let mut get = request(Method::GET);
    for name in ["x-envoy-attempt-count", "grpc-previous-rpc-attempts"] {
        get.headers_mut().append(name, "41".parse().unwrap());
        get.headers_mut().append(name, "42".parse().unwrap());
    }
    layer.layer(peer).oneshot(get).await.unwrap();
    let number = |attempt: u32, previous: &str| (attempt, attempt.to_string(), previous.to_owned());
    let expected = [number(1, ""), number(2, "1"), number(3, "2")];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_retries_only_above_half() {
    let layer = plain().budget(RetryThrottle::default()).build().unwrap();
    let down = service_fn(async |()| Err::<(), _>(io::Error::other("down")));
    let mut service = layer.layer(down);
    for _ in 0..10 {
        service.ready().await.unwrap().call(()).await.unwrap_err();
    }
    // 10 tokens: the attempts that fail leave 9, 8, (exhausted) 7, 6, (denied) 5.
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.retries, snapshot.budget), (3, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_windowed_budget_is_paid_by_calls_and_by_time() {
    let budget = WindowedBudget::new(Duration::from_secs(10), 0.5, 0).unwrap();
    let shared: Arc<Budget> = Arc::new(budget.into());
    let layer = plain().budget(shared.clone()).attempts(2).build().unwrap();
    let down = service_fn(async |()| Err::<(), _>(io::Error::other("down")));
    let mut service = layer.layer(down);
    for _ in 0..10 {
        service.ready().await.unwrap().call(()).await.unwrap_err();
    }
    assert_eq!(layer.handle().snapshot().retries, 5);
    // Another layer of the same upstream lives on the same budget.
    let other = plain().budget(shared).attempts(2).build().unwrap();
    other.layer(down).oneshot(()).await.unwrap_err();
    assert_eq!(other.handle().snapshot().retries, 0);
}

/// The retries of 100 calls that fail, after 100 that went well, as far apart.
async fn retries_in_an_outage(
    builder: RetryBuilder<Chosen<Plain<ErrIsFailure, Always>>>,
    apart: Duration,
) -> u64 {
    let layer = builder.build().unwrap();
    let peer = service_fn(async |fails: bool| if fails { Err("down") } else { Ok(()) });
    let service = layer.layer(peer);
    for fails in [false, true] {
        for _ in 0..100 {
            let _ = service.clone().oneshot(fails).await;
            if !fails {
                tokio::time::sleep(apart).await;
            }
        }
    }
    layer.handle().snapshot().retries
}

#[tokio::test(start_paused = true)]
async fn a_client_that_calls_rarely_keeps_one_token() {
    let given = plain().budget(RetryBudget::default());
    assert_eq!(retries_in_an_outage(plain(), milliseconds(1000)).await, 1);
    assert_eq!(retries_in_an_outage(plain(), milliseconds(100)).await, 10);
    assert_eq!(retries_in_an_outage(given, milliseconds(1000)).await, 10);
}
