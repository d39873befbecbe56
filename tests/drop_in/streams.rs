//! What the layers do to a stream of server-sent events: the table of the guide's chapter on
//! streaming, a test for each row.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{extract, response::IntoResponse, routing::Route};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::{advance, sleep};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};
use tower_http::timeout::ResponseBodyTimeoutLayer;
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::{BulkheadHandle, BulkheadLayer},
    circuit_breaker::CircuitBreakerLayer,
    fallback::FallbackLayer,
    hedge::HedgeLayer,
    observe::Totals,
    protocol::http::{
        Client, Server, UntilBodyEnd,
        usage::{self, MeterLayer},
    },
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
    stack,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

use super::{
    ONE, SECOND,
    wire::{BoxBody, Upstream, Wire},
};

type Body = Empty<Bytes>;
type Boxed = BoxCloneSyncService<Request<Body>, Response<BoxBody>, BoxError>;

fn boxed<S, B>(service: S) -> Boxed
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let service = service
        .map_response(|response| response.map(|body: B| body.map_err(Into::into).boxed_unsync()));
    BoxCloneSyncService::new(service.map_err(Into::into))
}

/// A client without layers, of a server behind one.
fn behind<L>(upstream: &Upstream, layer: L) -> Boxed
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<extract::Request, Error: Into<Infallible>, Future: Send>,
    L::Service: Clone + Send + Sync + 'static,
    <L::Service as Service<extract::Request>>::Response: IntoResponse,
{
    boxed(Wire(upstream.router().layer(layer)))
}

/// A client behind a layer.
fn over<L, B>(upstream: &Upstream, layer: L) -> Boxed
where
    L: Layer<Wire>,
    L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    L::Service: Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    boxed(layer.layer(Wire(upstream.router())))
}

fn to(path: &str) -> Request<Body> {
    Request::get(format!("http://upstream{path}"))
        .body(Empty::new())
        .unwrap()
}

async fn ask(service: &Boxed, path: &str) -> Result<Response<BoxBody>, BoxError> {
    service.clone().oneshot(to(path)).await
}

/// Why a call was rejected, whichever side did it.
fn rejection(result: Result<Response<BoxBody>, BoxError>) -> Option<RejectedKind> {
    match result {
        Err(error) => Rejected::find(&*error).map(|rejected| rejected.kind),
        Ok(response) => match response.status() {
            StatusCode::TOO_MANY_REQUESTS => Some(RejectedKind::RateLimited),
            StatusCode::SERVICE_UNAVAILABLE => Some(RejectedKind::TimedOut),
            _ => None,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_with_the_head() {
    let upstream = Upstream::default();
    let server = TimeoutLayer::builder(SECOND).protocol(Server::new());
    let client = TimeoutLayer::builder(SECOND).protocol(Client::new());
    let servers = stack::server().http().max_in_flight(9).timeout(SECOND);
    let clients = stack::client().http().without_retry();
    let clients = clients.attempt_timeout(SECOND).total_timeout(2 * SECOND);
    let to_end = UntilBodyEnd::new(Client::new());
    let to_end = TimeoutLayer::builder(SECOND).protocol(to_end);
    let cases = [
        ("server", behind(&upstream, server.build().unwrap())),
        ("client", over(&upstream, client.build().unwrap())),
        ("to the end", over(&upstream, to_end.build().unwrap())),
        (
            "server's stack",
            behind(&upstream, servers.build().unwrap()),
        ),
        ("client's stack", over(&upstream, clients.build().unwrap())),
    ];
    for (name, service) in cases {
        let late = rejection(ask(&service, "/silent").await);
        assert_eq!(late, Some(RejectedKind::TimedOut), "{name}");

        let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
        let mut socket = upgrade(&service).await;
        for _ in 0..60 {
            advance(60 * SECOND).await;
            stream.exchange().await;
            socket.send("tick".into()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), "tick".into());
        }
        stream.end().await;
    }
}

/// A WebSocket over a connection that was upgraded.
async fn upgrade(service: &Boxed) -> WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
    let mut request = to("/socket");
    let fields = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in fields {
        let value = header::HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    let response = service.clone().oneshot(request).await.unwrap();
    let io = hyper::upgrade::on(response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Client, None).await
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_counts_a_stream_once() {
    let upstream = Upstream::default();
    let limit = || RateLimitLayer::builder(ONE).burst(2);
    let by_key = || limit().keyed_by(|_: &extract::Request| Some(7));
    let servers = stack::server().http().max_in_flight(9).rate(ONE).burst(2);
    let clients = stack::client().http().rate(ONE).burst(2);
    let server = limit().protocol(Server::new()).build().unwrap();
    let keyed = by_key().protocol(Server::new()).build().unwrap();
    let client = limit().protocol(Client::new()).build().unwrap();
    let to_end = limit().protocol(UntilBodyEnd::new(Server::new()));
    let cases = [
        ("server", behind(&upstream, server)),
        ("server, keyed", behind(&upstream, keyed)),
        ("to the end", behind(&upstream, to_end.build().unwrap())),
        ("client", over(&upstream, client)),
        (
            "server's stack",
            behind(&upstream, servers.build().unwrap()),
        ),
        ("client's stack", over(&upstream, clients.build().unwrap())),
    ];
    for (name, service) in cases {
        let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
        for _ in 0..100 {
            stream.exchange().await;
        }
        let mut socket = upgrade(&service).await;
        for _ in 0..100 {
            socket.send("tick".into()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), "tick".into());
        }
        let third = rejection(ask(&service, "/").await);
        assert_eq!(third, Some(RejectedKind::RateLimited), "{name}");
        stream.exchange().await;
    }
}

/// A layer for one call at a time, and what it has in flight and has counted.
type Watched<L> = (L, Box<dyn Fn() -> (usize, Totals)>);

fn breaker<P: Clone>(protocol: P) -> Watched<CircuitBreakerLayer<P>> {
    let layer = CircuitBreakerLayer::builder().protocol(protocol);
    let layer = layer.build().unwrap();
    let handle = layer.handle();
    (layer, Box::new(move || (0, handle.snapshot().totals)))
}

fn throttle<P: Clone>(protocol: P) -> Watched<ThrottleLayer<P>> {
    let layer = ThrottleLayer::builder().protocol(protocol);
    let layer = layer.build().unwrap();
    let handle = layer.handle();
    (layer, Box::new(move || (0, handle.snapshot().totals)))
}

fn bulkhead<P: Clone>(protocol: P) -> Watched<BulkheadLayer<P>> {
    let layer = BulkheadLayer::builder(1).protocol(protocol);
    let layer = layer.build().unwrap();
    (layer.clone(), in_flight(layer.handle()))
}

fn in_flight(handle: BulkheadHandle) -> Box<dyn Fn() -> (usize, Totals)> {
    Box::new(move || {
        let snapshot = handle.snapshot();
        (snapshot.in_flight, snapshot.totals)
    })
}

fn servers<P: Clone>(protocol: impl FnOnce(Server) -> P) -> Watched<stack::ServerStack<P>> {
    let layer = stack::server().http().max_in_flight(1).protocol(protocol);
    let layer = layer.build().unwrap();
    let handle = layer.handle().bulkhead;
    (layer, in_flight(handle))
}

/// What a layer counts of a stream that ends, one that breaks off, and one whose reader leaves, as
/// successes, failures and cancelled calls; and how much of each was in flight after its head.
async fn counted<L>(
    (layer, look): Watched<L>,
    wire: impl FnOnce(&Upstream, L) -> Boxed,
) -> ([u64; 3], usize) {
    let upstream = Upstream::default();
    let service = wire(&upstream, layer);
    let mut held = 0;
    for way in 0..3 {
        let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
        stream.exchange().await;
        held += look().0;
        match way {
            0 => stream.end().await,
            1 => stream.fail().await,
            _ => drop(stream),
        }
        // The other side notices a moment later.
        sleep(SECOND).await;
        assert_eq!(look().0, 0);
    }
    let totals = look().1;
    ([totals.success, totals.failure, totals.cancelled], held)
}

#[tokio::test(start_paused = true)]
async fn a_stream_lasts_to_its_head_or_to_its_end() {
    let (server, client) = (Server::new(), Client::new());
    let (to_end, client_to_end) = (UntilBodyEnd::new(server), UntilBodyEnd::new(client));
    let [head, end] = [[3, 0, 0], [1, 1, 1]];
    assert_eq!(counted(breaker(server), behind).await, (head, 0));
    assert_eq!(counted(breaker(to_end), behind).await, (end, 0));
    assert_eq!(counted(breaker(client), over).await, (head, 0));
    assert_eq!(counted(breaker(client_to_end), over).await, (end, 0));
    assert_eq!(counted(throttle(server), behind).await, (head, 0));
    assert_eq!(counted(throttle(to_end), behind).await, (end, 0));
    assert_eq!(counted(throttle(client), over).await, (head, 0));
    assert_eq!(counted(throttle(client_to_end), over).await, (end, 0));
    assert_eq!(counted(bulkhead(server), behind).await, (head, 0));
    assert_eq!(counted(bulkhead(to_end), behind).await, (end, 3));
    assert_eq!(counted(bulkhead(client), over).await, (head, 0));
    assert_eq!(counted(bulkhead(client_to_end), over).await, (end, 3));
    assert_eq!(counted(servers(|server| server), behind).await, (head, 0));
    assert_eq!(counted(servers(UntilBodyEnd::new), behind).await, (end, 3));
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_rejects_while_a_stream_goes_on() {
    let upstream = Upstream::default();
    let (layer, _) = bulkhead(UntilBodyEnd::new(Server::new()));
    let service = behind(&upstream, layer);
    let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
    let full = ask(&service, "/").await.unwrap();
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    stream.exchange().await;
    stream.end().await;
    sleep(SECOND).await;
    assert_eq!(ask(&service, "/").await.unwrap().status(), StatusCode::OK);
}

/// How often a request is sent whose stream breaks off, and, a minute later, one that is answered
/// 503. A minute without calls leaves a retry's own budget one token.
async fn sent<L, B>(layer: L) -> (usize, usize)
where
    L: Layer<Wire>,
    L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    L::Service: Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let upstream = Upstream::default();
    let service = over(&upstream, layer);
    let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
    // Long after any hedge would have been sent.
    sleep(60 * SECOND).await;
    stream.exchange().await;
    stream.fail().await;
    let streams = upstream.calls();
    let _ = ask(&service, "/busy").await;
    (streams, upstream.calls() - streams)
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_not_sent_again() {
    let client = Client::new();
    let retry = || RetryLayer::builder().protocol(client).build().unwrap();
    assert_eq!(sent(retry()).await, (1, 2));
    let hedge = HedgeLayer::builder().delay(SECOND).protocol(client);
    assert_eq!(sent(hedge.build().unwrap()).await, (1, 2));
    assert_eq!(sent(stack::client().http().build().unwrap()).await, (1, 2));
    // A breaker beneath that sees it break off changes nothing of that.
    let to_end = UntilBodyEnd::new(client);
    let breaker = CircuitBreakerLayer::builder().protocol(to_end).build();
    assert_eq!(sent((retry(), breaker.unwrap())).await, (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_only_before_a_stream_starts() {
    let upstream = Upstream::default();
    let answer = async |(), _: Result<Response<Incoming>, BoxError>| {
        Err::<Response<Incoming>, BoxError>("kept".into())
    };
    let layer = FallbackLayer::builder(|_: &Request<Body>| (), answer);
    let layer = layer.protocol(Client::new()).build().unwrap();
    let service = over(&upstream, layer.clone());
    let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
    stream.exchange().await;
    stream.fail().await;
    assert_eq!(layer.handle().snapshot().answered, 0);
    let kept = ask(&service, "/busy").await.map(|_| ()).unwrap_err();
    assert_eq!(kept.to_string(), "kept");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_the_body_ends_a_stream_that_stalls() {
    let body = ResponseBodyTimeoutLayer::new(SECOND);
    let (server, server_counts) = breaker(UntilBodyEnd::new(Server::new()));
    let (client, client_counts) = breaker(UntilBodyEnd::new(Client::new()));
    let upstream = Upstream::default();
    let router = upstream.router().layer(body.clone()).layer(server);
    let beneath = boxed((client, body).layer(Wire(upstream.router())));
    for (service, counts) in [
        (boxed(Wire(router)), server_counts),
        (beneath, client_counts),
    ] {
        let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
        for _ in 0..5 {
            sleep(SECOND / 2).await;
            stream.exchange().await;
        }
        assert!(stream.next().await.unwrap().is_err());
        assert_eq!(counts().1.failure, 1);
    }
}

/// Counts the bytes of all events as output, and remembers the reports.
fn meter<A>(reports: &Reports) -> MeterLayer<impl Fn(&Request<A>) -> Settle + Clone + use<A>> {
    let shape = usage::Shape::by(|event| {
        let mut usage = usage::Usage::default();
        usage.output = Some(event.data.len() as u64);
        Some(usage)
    });
    let reports = reports.clone();
    MeterLayer::new(shape, move |_: &Request<A>| noted(&reports))
}

type Reports = Arc<Mutex<Vec<(Option<u64>, usage::End)>>>;
type Settle = Box<dyn FnOnce(usage::UsageReport) + Send>;

fn noted(reports: &Reports) -> Settle {
    let reports = reports.clone();
    Box::new(move |report| {
        let output = report.usage.and_then(|usage| usage.output);
        reports.lock().unwrap().push((output, report.end));
    })
}

#[tokio::test(start_paused = true)]
async fn a_meter_changes_nothing_and_settles_once() {
    let reports = Reports::default();
    let server = meter::<axum::body::Body>(&reports);
    let client = meter::<Body>(&reports);
    let upstream = Upstream::default();
    let taken = || std::mem::take(&mut *reports.lock().unwrap());
    for service in [behind(&upstream, server), over(&upstream, client)] {
        // Each event as it comes, and byte by byte what was sent.
        let mut stream = upstream.streamed(ask(&service, "/events").await.unwrap());
        stream.exchange().await;
        stream.exchange().await;
        assert_eq!(taken(), []);
        stream.end().await;
        assert_eq!(taken(), [(Some(4), usage::End::Complete)]);

        let mut broken = upstream.streamed(ask(&service, "/events").await.unwrap());
        broken.exchange().await;
        broken.fail().await;
        assert_eq!(taken(), [(Some(4), usage::End::Cut)]);

        let mut left = upstream.streamed(ask(&service, "/events").await.unwrap());
        left.exchange().await;
        drop(left);
        // The server learns of it when it sends the next event.
        sleep(SECOND).await;
        assert_eq!(taken(), [(Some(4), usage::End::Left)]);

        let silent = ask(&service, "/silent");
        assert!(tokio::time::timeout(SECOND, silent).await.is_err());
        sleep(SECOND).await;
        assert_eq!(taken(), [(None, usage::End::Left)]);

        // No stream, and no JSON.
        let hello = ask(&service, "/").await.unwrap();
        assert_eq!(
            hello.into_body().collect().await.unwrap().to_bytes(),
            "hello"
        );
        assert_eq!(taken(), [(None, usage::End::Complete)]);
    }
}
