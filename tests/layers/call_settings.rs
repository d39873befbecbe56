//! What one call says of itself, by an extension or by a closure of its client.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::Empty;
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

use tower_keep::{
    CallSettings, ConfigError, Criticality, Deadline, Outcome, Rejected, RejectedKind, Timeouts,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    hedge::HedgeLayer,
    protocol::{
        Advice, Plain, Sent,
        http::{Attempt, Client},
    },
    rate_limit::Rate,
    retry::{Backoff, RetryLayer},
    stack,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

type Body = Empty<Bytes>;
type Boxed = BoxCloneService<Request<Body>, Response<Body>, BoxError>;

const SECOND: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn to(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::new()).unwrap()
}

fn with(settings: CallSettings) -> Request<Body> {
    let mut request = to("http://host/");
    request.extensions_mut().insert(settings);
    request
}

/// Fails, and counts.
fn failing<B: Send + 'static>(
    calls: &Arc<AtomicUsize>,
) -> impl Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ use<B> {
    let calls = calls.clone();
    service_fn(move |_: Request<B>| {
        calls.fetch_add(1, SeqCst);
        let mut response = Response::new(Body::new());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        std::future::ready(Ok(response))
    })
}

/// Never answers.
async fn hangs<B>(_: Request<B>) -> Result<Response<Body>, BoxError> {
    std::future::pending().await
}

fn kind<T>(result: Result<T, BoxError>) -> Option<RejectedKind> {
    let error = result.err()?;
    Rejected::find(&*error).map(|rejected| rejected.kind)
}

#[tokio::test(start_paused = true)]
async fn a_call_says_how_often_it_is_sent() {
    let calls = Arc::default();
    let stack = stack::client().http().without_circuit_breaker();
    let stack = stack.retry(|retry| retry.backoff(Backoff::none()));
    let service = stack.build().unwrap().layer(failing(&calls));
    // By hand a retry reads it from the request itself.
    let retry = RetryLayer::builder()
        .backoff(Backoff::none())
        .protocol(Client::new());
    let by_hand = retry.build().unwrap().layer(failing(&calls));
    for (settings, expected) in [
        (CallSettings::new(), 3),
        (CallSettings::new().attempts(1), 1),
        (CallSettings::new().attempts(0), 1),
        (CallSettings::new().attempts(2), 2),
        (CallSettings::new().attempts(5), 5),
    ] {
        calls.store(0, SeqCst);
        let answer = service.clone().oneshot(with(settings)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(calls.swap(0, SeqCst), expected, "{settings:?}");
        by_hand.clone().oneshot(with(settings)).await.unwrap();
        assert_eq!(calls.swap(0, SeqCst), expected, "by hand, {settings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_says_that_it_is_not_hedged() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let hedge = HedgeLayer::builder().delay(ms(10)).protocol(Client::new());
    let hedge = hedge.without_budget().max_hedges(3).build().unwrap();
    let service = hedge.layer(service_fn(move |_: Request<_>| {
        count.fetch_add(1, SeqCst);
        std::future::pending::<Result<Response<Body>, BoxError>>()
    }));
    for (attempts, expected) in [(1, 1), (2, 2), (3, 3), (9, 9)] {
        let call = service
            .clone()
            .oneshot(with(CallSettings::new().attempts(attempts)));
        let call = tokio::time::timeout(SECOND, call).await;
        assert!(call.is_err(), "nobody answers");
        assert_eq!(calls.swap(0, SeqCst), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_says_what_it_costs() {
    let stack = stack::client()
        .http()
        .rate(Rate::per_second(10))
        .build()
        .unwrap();
    let service = stack.layer(service_fn(async |_: Request<_>| {
        Ok::<_, BoxError>(Response::new(Body::new()))
    }));
    let ask = async |cost| {
        let call = service
            .clone()
            .oneshot(with(CallSettings::new().cost(cost)));
        kind(call.await)
    };
    assert_eq!(ask(8).await, None);
    assert_eq!(ask(3).await, Some(RejectedKind::RateLimited));
    assert_eq!(ask(0).await, None);
    assert_eq!(ask(2).await, None);
    assert_eq!(ask(11).await, Some(RejectedKind::CostTooHigh));
}

#[tokio::test(start_paused = true)]
async fn a_call_says_how_critical_it_is() {
    let stack = stack::client().http().max_in_flight(4).build().unwrap();
    let service = stack.layer(service_fn(hangs));
    let ask = |criticality| {
        let settings = CallSettings::new().criticality(criticality);
        tokio::spawn(service.clone().oneshot(with(settings)))
    };
    let running = [ask(Criticality::Sheddable), ask(Criticality::Sheddable)];
    tokio::task::yield_now().await;
    let shed = ask(Criticality::Sheddable).await.unwrap();
    assert_eq!(
        kind(shed),
        Some(RejectedKind::BulkheadFull),
        "half is in use"
    );
    let payment = ask(Criticality::CriticalPlus);
    sleep(ms(10)).await;
    assert!(!payment.is_finished());
    running.iter().for_each(|call| call.abort());
}

#[tokio::test(start_paused = true)]
async fn a_host_has_times_of_its_own() {
    let slow = |client: Client| {
        client.call_settings(|head| match head.uri.host() {
            Some("reports") => CallSettings::new()
                .attempt_timeout(20 * SECOND)
                .total_timeout(60 * SECOND)
                .attempts(1),
            _ => CallSettings::new(),
        })
    };
    let stack = stack::client()
        .http()
        .attempt_timeout(SECOND)
        .total_timeout(2 * SECOND);
    let stack = stack.retry(|retry| retry.attempts(1)).protocol(slow);
    let service = stack.build().unwrap().layer(service_fn(hangs));
    let took = async |request| {
        let start = Deadline::after(100 * SECOND);
        assert!(service.clone().oneshot(request).await.is_err());
        100 * SECOND - start.remaining()
    };
    assert_eq!(took(to("http://quick/")).await, SECOND);
    assert_eq!(took(to("http://reports/")).await, 20 * SECOND);
    // What a request says itself goes first.
    let mut request = to("http://reports/");
    let own = CallSettings::new().attempt_timeout(5 * SECOND);
    request.extensions_mut().insert(own);
    assert_eq!(took(request.clone()).await, 5 * SECOND);
    let times = Timeouts::new().attempt(3 * SECOND);
    request.extensions_mut().insert(times);
    assert_eq!(took(request).await, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_retry_has_a_new_token() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let server = service_fn(move |request: Request<_>| {
        let token = request.headers()[AUTHORIZATION].clone();
        let attempt = request
            .extensions()
            .get::<Attempt>()
            .map(|attempt| attempt.0);
        let mut response = Response::new(Body::new());
        if token != "fresh" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        noted.lock().unwrap().push((token, attempt));
        std::future::ready(Ok::<_, BoxError>(response))
    });
    let token = Arc::new(Mutex::new(HeaderValue::from_static("stale")));
    let next = token.clone();
    let renews = |client: Client| {
        let unauthorized = |status, _: &_| {
            let again = Advice::Retry {
                sent: Sent::No,
                after: None,
            };
            (status == StatusCode::UNAUTHORIZED).then_some(again)
        };
        client.advise(unauthorized).before_retry(move |head| {
            let token = next.lock().unwrap().clone();
            head.headers.insert(AUTHORIZATION, token);
        })
    };
    let stack = stack::client().http().protocol(renews).build().unwrap();
    let service = stack.layer(server);
    let request = Request::post("http://host/").header(AUTHORIZATION, "stale");
    let call = tokio::spawn(service.oneshot(request.body(Body::new()).unwrap()));
    tokio::task::yield_now().await;
    // It comes during the wait, and is read when the retry is sent.
    *token.lock().unwrap() = HeaderValue::from_static("fresh");
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    let seen = seen.lock().unwrap();
    assert_eq!(
        *seen,
        [
            ("stale".parse().unwrap(), None),
            ("fresh".parse().unwrap(), Some(2))
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_host() {
    let hosts = Arc::new(Mutex::new(Vec::new()));
    let noted = hosts.clone();
    let server = service_fn(move |request: Request<_>| {
        let host = request.uri().host().unwrap().to_owned();
        let mut response = Response::new(Body::new());
        if host == "first" {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        noted.lock().unwrap().push(host);
        std::future::ready(Ok::<_, BoxError>(response))
    });
    let elsewhere =
        |client: Client| client.before_retry(|head| head.uri = Uri::from_static("http://second/"));
    let stack = stack::client().http().protocol(elsewhere).build().unwrap();
    let answer = stack
        .layer(server)
        .oneshot(to("http://first/"))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(*hosts.lock().unwrap(), ["first", "second"]);
    // Each attempt has passed the gates of its own host.
    assert_eq!(stack.handle().circuit_breaker.keys().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_classifier_may_capture() {
    let broken = Arc::new(AtomicU32::new(404));
    let known = broken.clone();
    let client = Client::new().classify_response(move |status, _| {
        (u32::from(status.as_u16()) == known.load(SeqCst)).then_some(Outcome::Failure)
    });
    let classify = |status: u16| {
        let mut response = Response::new(Body::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        tower_keep::Classify::<_, BoxError>::classify(&client, Ok(&response))
    };
    assert_eq!(classify(404), Outcome::Failure);
    broken.store(410, SeqCst);
    assert_eq!(
        (classify(404), classify(410)),
        (Outcome::Success, Outcome::Failure)
    );
}

/// Puts a layer around an upstream that answers.
fn around<L>(layer: Result<L, ConfigError>) -> Boxed
where
    L: Layer<Boxed>,
    L::Service: Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>,
    L::Service: Clone + Send + 'static,
{
    let upstream = service_fn(async |_| Ok(Response::new(Body::new())));
    BoxCloneService::new(layer.unwrap().layer(BoxCloneService::new(upstream)))
}

/// Regression: a layer that reads a result, and holds nothing until its end, had it classified
/// twice.
#[tokio::test]
async fn each_layer_has_a_result_classified_once() {
    let times = Arc::new(AtomicUsize::new(0));
    let (counted, plain_counted) = (times.clone(), times.clone());
    let http = Client::new().clone_body().classify_response(move |_, _| {
        counted.fetch_add(1, SeqCst);
        None
    });
    let plain = Plain::classify(move |_: Result<&Response<Body>, &BoxError>| {
        plain_counted.fetch_add(1, SeqCst);
        Outcome::Success
    });
    let plain = plain.idempotent();
    // A timeout with a name records how its calls end.
    let timeout = || TimeoutLayer::builder(SECOND).name("classified");
    let layers = [
        around(CircuitBreakerLayer::builder().protocol(http).build()),
        around(BulkheadLayer::builder(1).protocol(http).build()),
        around(ThrottleLayer::builder().protocol(http).build()),
        around(RetryLayer::builder().protocol(http).build()),
        around(HedgeLayer::builder().protocol(http).build()),
        around(timeout().protocol(http).build()),
        around(RetryLayer::builder().protocol(plain.clone()).build()),
        around(HedgeLayer::builder().protocol(plain.clone()).build()),
        around(timeout().protocol(plain).build()),
    ];
    for (number, layer) in layers.into_iter().enumerate() {
        layer.oneshot(to("http://host/")).await.unwrap();
        assert_eq!(times.swap(0, SeqCst), 1, "layer {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_method_has_settings_of_its_own() {
    use tonic::body::Body;
    use tower_keep::protocol::grpc;

    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let server = service_fn(move |request: Request<Body>| {
        noted.lock().unwrap().push(request.uri().path().to_owned());
        let response = Response::builder().header("grpc-status", "14");
        std::future::ready(Ok::<_, BoxError>(response.body(Body::empty()).unwrap()))
    });
    // Owned, as they may come from a file.
    let methods = vec![
        String::from("/shop.Search/"),
        String::from("/shop.Orders/Get"),
    ];
    let client = grpc::Client::new().idempotent(methods);
    let client = client.call_settings(|path| match path {
        "/shop.Search/Suggest" => CallSettings::new().attempts(1),
        "/shop.Search/Query" => CallSettings::new().attempts(2),
        _ => CallSettings::new(),
    });
    let stack = stack::client().grpc(client).without_circuit_breaker();
    let stack = stack.retry(|retry| retry.backoff(Backoff::none()));
    let service = stack.build().unwrap().layer(server);
    for (path, expected) in [
        ("/shop.Search/Suggest", 1),
        ("/shop.Search/Query", 2),
        ("/shop.Search/Other", 3),
        ("/shop.Orders/Get", 3),
        ("/shop.Orders/Place", 1),
    ] {
        let request = Request::post(format!("http://shop{path}")).body(Body::empty());
        let answer = service.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14");
        let sent = std::mem::take(&mut *calls.lock().unwrap());
        assert_eq!(sent, vec![path; expected]);
    }
}
