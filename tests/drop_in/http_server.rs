//! On a hyper server, above and beneath tower-http's tracing, timeouts and compression.

use std::{convert::Infallible, future, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::time::sleep;
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService,
};
use tower_http::{compression::CompressionLayer, timeout::TimeoutLayer, trace::TraceLayer};
use tower_keep::{
    algorithm::{TokenBucket, Vegas},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::http::{Server, UntilBodyEnd},
    rate_limit::RateLimitLayer,
    stack,
    timeout::TimeoutLayer as KeepTimeout,
};

use super::{ONE, SECOND, Trip};

type Handler = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;
type Connection = http2::SendRequest<Empty<Bytes>>;
/// A layer's name, two handlers behind it, how to make it reject, and what it answers then.
type Case = (&'static str, [Handler; 2], Trip, u16);

/// Answers with so much that it is worth a compression, or hangs.
fn handler() -> Handler {
    BoxCloneSyncService::new(service_fn(async |request: Request<Incoming>| match request
        .uri()
        .path()
    {
        "/hang" => future::pending().await,
        _ => Ok(Response::new(Body::from("hello ".repeat(100)))),
    }))
}

fn boxed<S, B>(service: S) -> Handler
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response| response.map(Body::new)))
}

fn with_tower_http(handler: Handler) -> Handler {
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, 60 * SECOND);
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(timeout)
        .layer(CompressionLayer::new());
    boxed(service.service(handler))
}

/// The layer beneath tower-http's, and above them.
fn behind<L, B>(make: impl Fn() -> L) -> [Handler; 2]
where
    L: Layer<Handler>,
    L::Service: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    L::Service: Clone + Send + Sync + 'static,
    <L::Service as Service<Request<Incoming>>>::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    [
        with_tower_http(boxed(make().layer(handler()))),
        boxed(make().layer(with_tower_http(handler()))),
    ]
}

fn limits() -> Vec<Case> {
    let server = Server::new();
    let limit = || RateLimitLayer::builder(ONE).burst(1);
    let served = || limit().protocol(server);
    let key = |_: &Request<Incoming>| Some(7);
    let own = |_: &i32| TokenBucket::new(ONE, 1);
    let stack = || stack::server().http().max_in_flight(9).rate(ONE).burst(1);
    let gates = || {
        let bulkhead = BulkheadLayer::builder(9).gate().unwrap();
        GateLayer::new((limit().gate().unwrap(), bulkhead)).protocol(server)
    };
    let keyed = behind(|| served().keyed_by(key).build().unwrap());
    let per_key = behind(|| served().per_key(key, own).build().unwrap());
    vec![
        (
            "rate limit",
            behind(|| served().build().unwrap()),
            Trip::UsedUp,
            429,
        ),
        ("keyed rate limit", keyed, Trip::UsedUp, 429),
        ("per-key rate limit", per_key, Trip::UsedUp, 429),
        ("gates", behind(gates), Trip::UsedUp, 429),
        (
            "stack, rate",
            behind(|| stack().build().unwrap()),
            Trip::UsedUp,
            429,
        ),
    ]
}

fn bulkheads() -> Vec<Case> {
    let bulkhead = || BulkheadLayer::builder(1).protocol(Server::new());
    let learning = || bulkhead().adaptive(Vegas::default());
    let to_end = || BulkheadLayer::builder(1).protocol(UntilBodyEnd::new(Server::new()));
    let key = |_: &Request<Incoming>| Some(7);
    let stack = || stack::server().http().max_in_flight(1);
    let stack_to_end = || stack().protocol(UntilBodyEnd::new);
    let keyed = behind(|| bulkhead().keyed_by(key).build().unwrap());
    let stack_to_end = behind(|| stack_to_end().build().unwrap());
    vec![
        (
            "bulkhead",
            behind(|| bulkhead().build().unwrap()),
            Trip::InFlight,
            503,
        ),
        ("keyed bulkhead", keyed, Trip::InFlight, 503),
        (
            "adaptive",
            behind(|| learning().build().unwrap()),
            Trip::InFlight,
            503,
        ),
        (
            "to the end",
            behind(|| to_end().build().unwrap()),
            Trip::InFlight,
            503,
        ),
        (
            "stack",
            behind(|| stack().build().unwrap()),
            Trip::InFlight,
            503,
        ),
        ("stack to the end", stack_to_end, Trip::InFlight, 503),
    ]
}

fn others() -> Vec<Case> {
    let breaker = || CircuitBreakerLayer::builder().protocol(Server::new());
    let open = || {
        let layer = breaker().build().unwrap();
        layer.handle().force_open();
        layer
    };
    let keyed = || {
        let layer = breaker().keyed_by(|_: &Request<Incoming>| None::<i32>);
        let layer = layer.build().unwrap();
        layer.handle().shared().force_open();
        layer
    };
    let timeout = || KeepTimeout::builder(SECOND).protocol(Server::new());
    let stack = || stack::server().http().max_in_flight(9).timeout(SECOND);
    vec![
        ("circuit breaker", behind(open), Trip::Forced, 503),
        ("keyed circuit breaker", behind(keyed), Trip::Forced, 503),
        (
            "timeout",
            behind(|| timeout().build().unwrap()),
            Trip::Hangs,
            503,
        ),
        (
            "stack, timeout",
            behind(|| stack().build().unwrap()),
            Trip::Hangs,
            503,
        ),
    ]
}

/// A connection in memory, to a server that speaks whatever its client does.
async fn connect(handler: Handler) -> Connection {
    let (near, far) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let server = auto::Builder::new(TokioExecutor::new());
        let service = TowerToHyperService::new(handler);
        let connection = server.serve_connection(TokioIo::new(far), service);
        let _ = connection.await;
    });
    let client = http2::handshake(TokioExecutor::new(), TokioIo::new(near));
    let (client, connection) = client.await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(mut connection: Connection, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://upstream{path}"));
    let request = request.header(header::ACCEPT_ENCODING, "gzip");
    let request = request.body(Empty::new()).unwrap();
    connection.send_request(request).await.unwrap()
}

/// A good answer, and compressed.
async fn greeted(connection: &Connection, name: &str) {
    let response = ask(connection.clone(), "/").await;
    assert_eq!(response.status(), 200, "{name}");
    assert_eq!(
        response.headers()[header::CONTENT_ENCODING],
        "gzip",
        "{name}"
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!((1..600).contains(&body.len()), "{name}");
}

#[tokio::test(start_paused = true)]
async fn every_layer_works_above_and_beneath_tower_http() {
    let cases = limits().into_iter().chain(bulkheads()).chain(others());
    for (layer, handlers, trip, expected) in cases {
        for (place, handler) in ["beneath", "above"].into_iter().zip(handlers) {
            let name = format!("{layer}, {place}");
            let connection = connect(handler).await;
            let mut held = None;
            match trip {
                Trip::UsedUp => greeted(&connection, &name).await,
                Trip::InFlight => {
                    let connection = connection.clone();
                    held = Some(tokio::spawn(async { ask(connection, "/hang").await }));
                    sleep(Duration::from_millis(1)).await;
                }
                Trip::Forced | Trip::Hangs => {}
            }
            let path = if trip == Trip::Hangs { "/hang" } else { "/" };
            let response = ask(connection.clone(), path).await;
            assert_eq!(response.status().as_u16(), expected, "{name}");
            if let Some(held) = held {
                held.abort();
                sleep(Duration::from_millis(1)).await;
                greeted(&connection, &name).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_counts_tower_http_timeouts_by_status() {
    for (status, failures) in [
        (StatusCode::REQUEST_TIMEOUT, 0),
        (StatusCode::GATEWAY_TIMEOUT, 1),
    ] {
        let breaker = CircuitBreakerLayer::builder().protocol(Server::new());
        let breaker = breaker.build().unwrap();
        let timeout = TimeoutLayer::with_status_code(status, SECOND);
        let connection = connect(boxed((breaker.clone(), timeout).layer(handler()))).await;
        assert_eq!(ask(connection, "/hang").await.status(), status);
        assert_eq!(breaker.handle().snapshot().counts.failures, failures);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outer_tower_http_timeout_frees_a_permit() {
    let bulkhead = BulkheadLayer::builder(1).protocol(Server::new());
    let bulkhead = bulkhead.build().unwrap();
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SECOND);
    let connection = connect(boxed((timeout, bulkhead.clone()).layer(handler()))).await;
    assert_eq!(ask(connection.clone(), "/hang").await.status(), 504);
    assert_eq!(bulkhead.handle().snapshot().in_flight, 0);
    assert_eq!(ask(connection, "/").await.status(), 200);
}
