//! Over hyper-util's client and reqwest's: rejections are errors.

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
use http_body_util::Full;
use hyper_util::{client::legacy::Client as HyperClient, rt::TokioExecutor};
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneService};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::TokenBucket,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::http::{Client, ReplayBody},
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
    stack,
    timeout::TimeoutLayer,
};

use super::{ONE, SECOND, Trip};

type Known = Full<Bytes>;
/// A layer over a client, for requests with a body of type `B`.
type Stack<B> = BoxCloneService<Request<B>, StatusCode, BoxError>;
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
    type Body: Send + 'static;
}

impl<S, A, B> Sends<A> for S
where
    S: Service<Request<A>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: Send + 'static,
{
    type Body = B;
}

fn over<L, S, B>(layer: L, client: &S) -> Stack<B>
where
    L: Layer<S, Service: Sends<B>>,
    S: Clone,
    B: Send + 'static,
{
    let service = layer.layer(client.clone());
    let service = service.map_response(|response| response.status());
    BoxCloneService::new(service.map_err(Into::into))
}

fn gates<S: Sends<ReplayBody<Known>, Error: 'static>>(client: &S) -> Vec<Case<ReplayBody<Known>>> {
    let protocol = Client::new();
    let limit = || RateLimitLayer::builder(ONE).burst(1).protocol(protocol);
    let key = |_: &Request<ReplayBody<Known>>| Some(());
    let own = |(): &()| TokenBucket::new(ONE, 1);
    let bulkhead = || BulkheadLayer::builder(1).protocol(protocol);
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
        .without_retry()
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
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/hang", get(async || std::future::pending::<()>().await))
        .route("/flaky", flaky)
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

async fn protects<B>(url: &str, cases: Vec<Case<B>>)
where
    B: From<Known> + Send + 'static,
{
    for (layer, stack, trip, kind) in cases {
        let held = match trip {
            Trip::UsedUp => {
                let status = stack.clone().oneshot(to(url, "/")).await;
                assert_eq!(status.unwrap(), 200, "{layer}");
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

/// All of it over one client.
async fn stands_over<S>(client: S)
where
    S: Sends<ReplayBody<Known>, Error: 'static>,
{
    let (url, calls) = upstream().await;
    protects(&url, gates(&client)).await;
    protects(&url, stacks(&client)).await;

    let retry = RetryLayer::builder()
        .protocol(Client::new())
        .build()
        .unwrap();
    let retried: Stack<Known> = over(retry, &client);
    assert_eq!(retried.oneshot(to(&url, "/flaky")).await.unwrap(), 200);
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);

    let stack = stack::client().http().build().unwrap();
    let service: Stack<Known> = over(stack, &client);
    assert_eq!(
        service.clone().oneshot(to(&url, "/flaky")).await.unwrap(),
        200
    );
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);
    // Ten failures in a row open the circuit of this host.
    let mut rejections = 0;
    for _ in 0..30 {
        let answer = service.clone().oneshot(to(&url, "/down")).await;
        rejections += usize::from(answer.is_err_and(|error| {
            Rejected::find(&*error)
                .is_some_and(|rejected| rejected.kind == RejectedKind::CircuitOpen)
        }));
    }
    assert_eq!((rejections, calls.load(Ordering::SeqCst)), (20, 10));
}

#[tokio::test]
async fn every_layer_protects_a_hyper_client() {
    stands_over(HyperClient::builder(TokioExecutor::new()).build_http()).await;
}

#[cfg(feature = "reqwest-012")]
#[tokio::test]
async fn every_layer_protects_a_client_of_reqwest_012() {
    let client = reqwest_012::Client::builder().no_proxy().build().unwrap();
    stands_over(tower_keep::reqwest::Reqwest::new(client)).await;
}

#[cfg(feature = "reqwest-013")]
#[tokio::test]
async fn every_layer_protects_a_client_of_reqwest_013() {
    let client = reqwest_013::Client::builder().no_proxy().build().unwrap();
    stands_over(tower_keep::reqwest::Reqwest::new(client)).await;
}
