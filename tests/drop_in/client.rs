//! Over hyper-util's client and reqwest's, with what else stands on them in tower and tower-http:
//! rejections are errors.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, http::StatusCode, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, steer::Steer,
    util::BoxCloneSyncService,
};
use tower_http::{timeout::TimeoutLayer as HttpTimeout, trace::TraceLayer};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::{TokenBucket, Vegas},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    fallback::FallbackLayer,
    gate::GateLayer,
    hedge::HedgeLayer,
    protocol::http::{Client, ReplayBody},
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
    stack,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

use super::{ONE, SECOND, Trip, wire::BoxBody};

type Known = Full<Bytes>;
/// A layer over a client, for requests with a body of type `B`.
type Stack<B> = BoxCloneSyncService<Request<B>, Response<BoxBody>, BoxError>;
/// A layer's name, how to make it reject, and what it says then.
type Case<B> = (&'static str, Stack<B>, Trip, RejectedKind);

/// What the clients have in common.
trait Sends<B>:
    Service<Request<B>, Response = Response<Self::Body>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, A, B> Sends<A> for S
where
    S: Service<Request<A>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// What stands above the layers.
trait Above {
    fn above<B: http_body::Body + Send + 'static>(&self, stack: Stack<B>) -> Stack<B>;
}

struct Nothing;
struct ABuffer;
struct ASteer;
struct TowerHttp;

impl Above for Nothing {
    fn above<B: http_body::Body + Send + 'static>(&self, stack: Stack<B>) -> Stack<B> {
        stack
    }
}

impl Above for ABuffer {
    fn above<B: http_body::Body + Send + 'static>(&self, stack: Stack<B>) -> Stack<B> {
        BoxCloneSyncService::new(Buffer::new(stack, 16))
    }
}

impl Above for ASteer {
    fn above<B: http_body::Body + Send + 'static>(&self, stack: Stack<B>) -> Stack<B> {
        let second = |_: &Request<B>, _: &[Stack<B>]| 1;
        let unused =
            tower::service_fn(async |_| Err::<Response<BoxBody>, BoxError>("steered".into()));
        let unused = BoxCloneSyncService::new(unused);
        let steer = Steer::new([unused, stack], second);
        BoxCloneSyncService::new(Buffer::new(steer, 16))
    }
}

impl Above for TowerHttp {
    fn above<B: http_body::Body + Send + 'static>(&self, stack: Stack<B>) -> Stack<B> {
        boxed(traced_and_timed(stack))
    }
}

/// tower-http's layers over a client.
fn traced_and_timed<S, B>(client: S) -> impl Sends<B, Error: 'static>
where
    S: Sends<B>,
    B: http_body::Body + Send + 'static,
{
    ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(HttpTimeout::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            60 * SECOND,
        ))
        .service(boxed(client))
}

fn boxed<S: Sends<B>, B: Send + 'static>(service: S) -> Stack<B> {
    let service = service
        .map_response(|response| response.map(|body| body.map_err(Into::into).boxed_unsync()));
    BoxCloneSyncService::new(service.map_err(Into::into))
}

fn over<L, S, B>(layer: L, client: &S) -> Stack<B>
where
    L: Layer<S, Service: Sends<B>>,
    S: Clone,
    B: Send + 'static,
{
    boxed(layer.layer(client.clone()))
}

fn gates<S: Sends<ReplayBody<Known>, Error: 'static>>(client: &S) -> Vec<Case<ReplayBody<Known>>> {
    let protocol = Client::new();
    let limit = || RateLimitLayer::builder(ONE).burst(1).protocol(protocol);
    let key = |_: &Request<ReplayBody<Known>>| Some(());
    let own = |(): &()| TokenBucket::new(ONE, 1);
    let bulkhead = || BulkheadLayer::builder(1).protocol(protocol);
    let learning = bulkhead().adaptive(Vegas::default());
    let breaker = || CircuitBreakerLayer::builder().protocol(protocol);
    let circuit = breaker().build().unwrap();
    circuit.handle().force_open();
    let keyless = breaker()
        .keyed_by(|_: &Request<_>| None::<()>)
        .build()
        .unwrap();
    keyless.handle().shared().force_open();
    let timeout = TimeoutLayer::builder(SECOND / 10).protocol(protocol);
    let gates = GateLayer::new((
        CircuitBreakerLayer::builder().gate().unwrap(),
        RateLimitLayer::builder(ONE).burst(1).gate().unwrap(),
        BulkheadLayer::builder(9).gate().unwrap(),
    ));
    let limited = RejectedKind::RateLimited;
    let full = RejectedKind::BulkheadFull;
    let open = RejectedKind::CircuitOpen;
    vec![
        (
            "rate limit",
            over(limit().build().unwrap(), client),
            Trip::UsedUp,
            limited,
        ),
        (
            "keyed limit",
            over(limit().keyed_by(key).build().unwrap(), client),
            Trip::UsedUp,
            limited,
        ),
        (
            "per-key limit",
            over(limit().per_key(key, own).build().unwrap(), client),
            Trip::UsedUp,
            limited,
        ),
        (
            "bulkhead",
            over(bulkhead().build().unwrap(), client),
            Trip::InFlight,
            full,
        ),
        (
            "keyed bulkhead",
            over(bulkhead().keyed_by(key).build().unwrap(), client),
            Trip::InFlight,
            full,
        ),
        (
            "adaptive bulkhead",
            over(learning.build().unwrap(), client),
            Trip::InFlight,
            full,
        ),
        ("circuit breaker", over(circuit, client), Trip::Forced, open),
        (
            "keyed circuit breaker",
            over(keyless, client),
            Trip::Forced,
            open,
        ),
        (
            "timeout",
            over(timeout.build().unwrap(), client),
            Trip::Hangs,
            RejectedKind::TimedOut,
        ),
        (
            "three gates",
            over(gates.protocol(protocol), client),
            Trip::UsedUp,
            limited,
        ),
    ]
}

/// Stacks with a retry in them take the caller's body.
fn stacks<S: Sends<ReplayBody<Known>, Error: 'static>>(client: &S) -> Vec<Case<Known>> {
    let stack = || stack::client().http().total_timeout(9 * SECOND);
    let rated = stack().rate(ONE).burst(1).build().unwrap();
    let bounded = stack().max_in_flight(1).build().unwrap();
    let hurried = stack()
        .attempt_timeout(SECOND / 10)
        .retry(|retry| retry.enabled(false))
        .build()
        .unwrap();
    vec![
        (
            "stack, rate",
            over(rated, client),
            Trip::UsedUp,
            RejectedKind::RateLimited,
        ),
        (
            "stack, in flight",
            over(bounded, client),
            Trip::InFlight,
            RejectedKind::BulkheadFull,
        ),
        (
            "stack, attempt",
            over(hurried, client),
            Trip::Hangs,
            RejectedKind::TimedOut,
        ),
    ]
}

/// Greets, hangs, fails each first time, and always fails; counts what it is asked.
async fn upstream() -> (String, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let flaky = get(
        async move || match count.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        },
    );
    let down = calls.clone();
    let down = get(async move || {
        down.fetch_add(1, Ordering::SeqCst);
        StatusCode::INTERNAL_SERVER_ERROR
    });
    let count = calls.clone();
    let slow = get(
        async move || match count.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => std::future::pending().await,
            _ => StatusCode::OK,
        },
    );
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/hang", get(async || std::future::pending::<()>().await))
        .route("/busy", get(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/flaky", flaky)
        .route("/slow", slow)
        .route("/down", down);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    (format!("http://{address}"), calls)
}

fn to<B: From<Known>>(url: &str, path: &str) -> Request<B> {
    let request = Request::get(format!("{url}{path}"));
    request.body(Known::default().into()).unwrap()
}

async fn protects<B>(url: &str, cases: Vec<Case<B>>, above: &impl Above)
where
    B: http_body::Body + From<Known> + Send + 'static,
{
    for (layer, stack, trip, kind) in cases {
        let stack = above.above(stack);
        let held = match trip {
            Trip::UsedUp => {
                let answer = stack.clone().oneshot(to(url, "/")).await;
                assert_eq!(answer.unwrap().status(), 200, "{layer}");
                None
            }
            Trip::InFlight => {
                let mut call = Box::pin(stack.clone().oneshot(to(url, "/hang")));
                assert!(futures::poll!(&mut call).is_pending(), "{layer}");
                Some(call)
            }
            Trip::Forced | Trip::Hangs => None,
        };
        let path = if trip == Trip::Hangs { "/hang" } else { "/" };
        let error = stack.clone().oneshot(to(url, path)).await.unwrap_err();
        let rejected = Rejected::find(&*error).expect(layer);
        assert_eq!(rejected.kind, kind, "{layer}");
        if let Some(held) = held {
            drop(held);
            assert!(stack.oneshot(to(url, "/")).await.is_ok(), "{layer}");
        }
    }
}

async fn status<B>(stack: &Stack<B>, url: &str, path: &str) -> u16
where
    B: From<Known> + Send + 'static,
{
    let answer = stack.clone().oneshot(to(url, path)).await;
    answer.unwrap().status().as_u16()
}

/// All of it between a client and what stands above.
async fn stands_between<S>(client: S, above: impl Above)
where
    S: Sends<ReplayBody<Known>, Error: 'static>,
{
    let (url, calls) = upstream().await;
    protects(&url, gates(&client), &above).await;
    protects(&url, stacks(&client), &above).await;
    sheds(&client, &above, &url).await;
    answers_otherwise(&client, &above, &url).await;

    calls.store(0, Ordering::SeqCst);
    let hedge = HedgeLayer::builder().delay(SECOND / 20);
    let hedge = hedge.protocol(Client::new()).build().unwrap();
    let hedged: Stack<Known> = above.above(over(hedge, &client));
    assert_eq!(status(&hedged, &url, "/slow").await, 200);
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);

    let retry = RetryLayer::builder().protocol(Client::new());
    let retried: Stack<Known> = above.above(over(retry.build().unwrap(), &client));
    assert_eq!(status(&retried, &url, "/flaky").await, 200);
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);

    let stack = stack::client().http().build().unwrap();
    let service: Stack<Known> = above.above(over(stack, &client));
    assert_eq!(status(&service, &url, "/flaky").await, 200);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    // With eight calls, most of them failures, the circuit of this host opens.
    let mut rejections = 0;
    for _ in 0..30 {
        let answer = service.clone().oneshot(to(&url, "/down")).await;
        rejections += usize::from(rejection(answer) == Some(RejectedKind::CircuitOpen));
    }
    assert_eq!((rejections, calls.load(Ordering::SeqCst)), (24, 8));
}

fn rejection(answer: Result<Response<BoxBody>, BoxError>) -> Option<RejectedKind> {
    let error = answer.err()?;
    Rejected::find(&*error).map(|rejected| rejected.kind)
}

/// A throttle rejects by chance, after 20 calls that were not accepted almost all.
async fn sheds<S>(client: &S, above: &impl Above, url: &str)
where
    S: Sends<ReplayBody<Known>, Error: 'static>,
{
    let throttle = ThrottleLayer::builder().protocol(Client::new());
    let service = above.above(over(throttle.build().unwrap(), client));
    let mut rejections = 0;
    for _ in 0..100 {
        let answer = service.clone().oneshot(to(url, "/busy")).await;
        rejections += usize::from(rejection(answer) == Some(RejectedKind::Throttled));
    }
    assert!((40..=80).contains(&rejections), "{rejections}");
}

/// A fallback asks another path.
async fn answers_otherwise<S>(client: &S, above: &impl Above, url: &str)
where
    S: Sends<ReplayBody<Known>, Error: 'static>,
{
    let (backup, home) = (boxed(client.clone()), url.to_owned());
    let answer = move |(), _| backup.clone().oneshot(to(&home, "/"));
    let fallback = FallbackLayer::builder(|_: &Request<_>| (), answer);
    let fallback = fallback.protocol(Client::new()).build().unwrap();
    let service = above.above(over(fallback, &boxed(client.clone())));
    assert_eq!(status(&service, url, "/busy").await, 200);
}

fn hyper_client() -> HyperClient<HttpConnector, ReplayBody<Known>> {
    HyperClient::builder(TokioExecutor::new()).build_http()
}

#[tokio::test]
async fn every_layer_stands_beneath_a_buffer_and_over_one() {
    stands_between(Buffer::new(hyper_client(), 16), ABuffer).await;
}

#[tokio::test]
async fn every_layer_stands_beneath_a_steer_and_over_one() {
    let steer = Steer::new([hyper_client(), hyper_client()], |_: &_, _: &[_]| 1);
    stands_between(steer, ASteer).await;
}

#[tokio::test]
async fn every_layer_stands_beneath_tower_http_and_over_it() {
    stands_between(traced_and_timed(hyper_client()), TowerHttp).await;
}

#[tokio::test]
async fn every_layer_stands_over_a_boxed_service() {
    stands_between(boxed(hyper_client()), Nothing).await;
}

#[tokio::test]
async fn every_layer_protects_a_hyper_client() {
    stands_between(hyper_client(), Nothing).await;
}

#[tokio::test]
async fn every_layer_protects_a_client_of_reqwest_012() {
    let client = reqwest_012::Client::builder().no_proxy().build().unwrap();
    stands_between(tower_keep::reqwest::Reqwest::new(client), Nothing).await;
}

#[tokio::test]
async fn every_layer_protects_a_client_of_reqwest_013() {
    let client = reqwest_013::Client::builder().no_proxy().build().unwrap();
    stands_between(tower_keep::reqwest::Reqwest::new(client), Nothing).await;
}
