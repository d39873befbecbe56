//! What the upstream is told of a deadline: what remains when the request is sent, after any wait.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_keep::{
    Deadline,
    bulkhead::BulkheadLayer,
    fallback::{FallbackLayer, SpilloverLayer},
    gate::GateLayer,
    hedge::HedgeLayer,
    protocol::{grpc, http as keep_http},
    rate_limit::{Rate, RateLimitBuilder, RateLimitLayer},
    timeout::TimeoutLayer,
};

/// Of responses.
type Body = Full<Bytes>;

/// Of requests, as tonic makes them.
type Sent = tonic::body::Body;

const GRPC: &str = "grpc-timeout";
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";

/// What a request says: its extension, `grpc-timeout`, and Envoy's.
type Told = (Option<Duration>, Option<String>, Option<String>);

/// What each of the requests said that were sent.
type Seen = Arc<Mutex<Vec<Told>>>;

fn told<B>(request: &Request<B>) -> Told {
    let field = |name| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let deadline = request.extensions().get::<Deadline>();
    let remaining = deadline.map(|deadline| deadline.remaining());
    (remaining, field(GRPC), field(ENVOY))
}

/// Answers after half a second, with a gRPC status that is good over HTTP as well.
fn upstream<B: Send + 'static>(
    seen: &Seen,
    status: StatusCode,
) -> impl Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone {
    let seen = seen.clone();
    service_fn(move |request: Request<B>| {
        seen.lock().unwrap().push(told(&request));
        async move {
            sleep(HALF).await;
            let answer = Response::builder().status(status);
            Ok(answer.header("grpc-status", "0").body(Body::default())?)
        }
    })
}

/// Two calls at once, of which the second waits for half a second.
async fn second_of_two<S, B>(service: S, seen: &Seen, request: impl Fn() -> Request<Sent>) -> Told
where
    S: Service<Request<Sent>, Response = Response<B>> + Clone,
    S::Error: std::fmt::Debug,
{
    let (first, second) = join(
        async { drop(service.clone().oneshot(request()).await.unwrap()) },
        async { drop(service.clone().oneshot(request()).await.unwrap()) },
    )
    .await;
    let ((), ()) = (first, second);
    seen.lock().unwrap()[1].clone()
}

fn for_a_second() -> Request<Sent> {
    let request = Request::post("http://upstream.example/a/b").header(GRPC, "1S");
    request.body(Sent::default()).unwrap()
}

const HALF: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

fn limit() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(2))
        .burst(1)
        .max_wait(10 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_queued_call_tells_what_is_left_of_its_time() {
    let client = grpc::Client::new();
    let expected = (Some(HALF), Some("500m".into()), None);
    let seen = Seen::default();
    let layer = limit().protocol(client).build().unwrap();
    let service = layer.layer(upstream(&seen, StatusCode::OK));
    assert_eq!(second_of_two(service, &seen, for_a_second).await, expected);

    let seen = Seen::default();
    let layer = BulkheadLayer::builder(1).max_waiting(1).protocol(client);
    let layer = layer.max_wait(SECOND).build().unwrap();
    let service = layer.layer(upstream(&seen, StatusCode::OK));
    assert_eq!(second_of_two(service, &seen, for_a_second).await, expected);

    let seen = Seen::default();
    let gates = (
        limit().gate().unwrap(),
        BulkheadLayer::builder(9).gate().unwrap(),
    );
    let service = GateLayer::new(gates)
        .protocol(client)
        .layer(upstream(&seen, StatusCode::OK));
    assert_eq!(second_of_two(service, &seen, for_a_second).await, expected);
}

/// A request of any type is told by the timeout of its attempt, which stands beneath the queue.
#[tokio::test(start_paused = true)]
async fn beneath_a_total_timeout_the_rest_is_told() {
    let client = keep_http::Client::new().send_deadline(true);
    let seen = Seen::default();
    let limit = limit().protocol(client).build().unwrap();
    let total = TimeoutLayer::builder(SECOND).total(true).protocol(client);
    let attempt = TimeoutLayer::builder(9 * SECOND).protocol(client);
    let service = attempt
        .build()
        .unwrap()
        .layer(upstream(&seen, StatusCode::OK));
    let service = total.build().unwrap().layer(limit.layer(service));
    let told = second_of_two(service, &seen, || Request::new(Sent::default())).await;
    assert_eq!(told, (Some(HALF), Some("500m".into()), Some("500".into())));

    let client = grpc::Client::new();
    let seen = Seen::default();
    let limit = self::limit().protocol(client).build().unwrap();
    let total = TimeoutLayer::builder(9 * SECOND)
        .total(true)
        .protocol(client);
    let service = limit.layer(upstream(&seen, StatusCode::OK));
    let service = total.build().unwrap().layer(service);
    let told = second_of_two(service, &seen, for_a_second).await;
    assert_eq!(told, (Some(HALF), Some("500m".into()), None));
}

/// Some read a zero as "no limit".
#[tokio::test(start_paused = true)]
async fn a_passed_deadline_is_told_as_a_moment() {
    let seen = Seen::default();
    let layer = limit().protocol(grpc::Client::new()).build().unwrap();
    let service = layer.layer(upstream(&seen, StatusCode::OK));
    let request = || {
        let mut request = for_a_second();
        request.headers_mut().insert(GRPC, "500m".parse().unwrap());
        request
    };
    let told = second_of_two(service, &seen, request).await;
    assert_eq!(told, (Some(Duration::ZERO), Some("1m".into()), None));
}

#[tokio::test(start_paused = true)]
async fn a_server_hands_a_queued_call_what_is_left() {
    let seen = Seen::default();
    let layer = limit().protocol(grpc::Server::new()).build().unwrap();
    let service = layer.layer(upstream(&seen, StatusCode::OK));
    let (remaining, ..) = second_of_two(service, &seen, for_a_second).await;
    assert_eq!(remaining, Some(HALF));
}

#[tokio::test(start_paused = true)]
async fn a_spilled_call_tells_what_is_left() {
    let (seen, spilled) = (Seen::default(), Seen::default());
    let client = grpc::Client::new();
    let bulkhead = BulkheadLayer::builder(1).max_waiting(1).max_wait(HALF / 2);
    let gates = GateLayer::new(bulkhead.gate().unwrap()).protocol(client);
    // The backup stands behind gates of its own, so that its responses are alike.
    let backup = GateLayer::new(BulkheadLayer::builder(9).gate().unwrap());
    let backup = backup
        .protocol(client)
        .layer(upstream(&spilled, StatusCode::OK));
    let service = SpilloverLayer::builder(gates, backup)
        .build()
        .unwrap()
        .layer(upstream(&seen, StatusCode::OK));
    let first = service.clone().oneshot(for_a_second());
    let second = service.clone().oneshot(for_a_second());
    let (first, second) = join(first, second).await;
    assert!(first.is_ok() && second.is_ok());
    let (remaining, grpc, _) = spilled.lock().unwrap()[0].clone();
    // A timer is late by up to a millisecond.
    let late = (SECOND - HALF / 2) - remaining.unwrap();
    assert!(late <= Duration::from_millis(1), "{late:?}");
    assert!(["750m", "749m"].contains(&&*grpc.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_told_what_the_primary_has_left() {
    let (seen, backed) = (Seen::default(), Seen::default());
    let client = keep_http::Client::new().send_deadline(true);
    let layer = FallbackLayer::service(upstream(&backed, StatusCode::OK));
    let service = layer.protocol(client).build().unwrap();
    let service = service.layer(upstream(&seen, StatusCode::BAD_GATEWAY));
    let mut request = Request::new(Body::default());
    request.extensions_mut().insert(Deadline::after(SECOND));
    service.oneshot(request).await.unwrap();
    let expected = (Some(HALF), Some("500m".into()), Some("500".into()));
    assert_eq!(*backed.lock().unwrap(), [expected]);
}

/// It waits for a service that has one place, which the first attempt takes.
#[tokio::test(start_paused = true)]
async fn a_hedge_is_told_what_is_left_when_it_is_sent() {
    let seen = Seen::default();
    let client = keep_http::Client::new().send_deadline(true);
    let layer = HedgeLayer::builder().delay(HALF / 5).protocol(client);
    let service = layer
        .build()
        .unwrap()
        .layer(ConcurrencyLimitLayer::new(1).layer(upstream(&seen, StatusCode::BAD_GATEWAY)));
    let mut request = Request::get("/").body(Body::default()).unwrap();
    request.extensions_mut().insert(Deadline::after(SECOND));
    service.oneshot(request).await.unwrap();
    let expected = (Some(HALF), Some("500m".into()), Some("500".into()));
    assert_eq!(seen.lock().unwrap()[1], expected);
}
