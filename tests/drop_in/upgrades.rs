//! A WebSocket or a tunnel: a call that goes on over an upgraded connection.

use std::{cell::Cell, convert::Infallible, future::IntoFuture, net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    extract::WebSocketUpgrade,
    response::IntoResponse,
    routing::{Route, get},
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, protocol::Role},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Criticality, Rejected, RejectedKind,
    algorithm::Vegas,
    bulkhead::{BulkheadHandle, BulkheadLayer},
    circuit_breaker::CircuitBreakerLayer,
    hedge::HedgeLayer,
    observe::Totals,
    protocol::http::{Client, Idempotent, Server, TrackedBody, UntilBodyEnd, UpgradeGuard},
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
    stack,
};

use super::{
    ONE, SECOND,
    wire::{Upstream, Wire, echo},
};

/// Echoes until the peer closes. The call is in flight so long.
async fn guarded(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    let guard = UpgradeGuard::new();
    let held = guard.clone();
    let response = upgrade.on_upgrade(|socket| async move {
        echo(socket).await;
        drop(held);
    });
    (Extension(guard), response)
}

/// The same without a guard.
async fn bare(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(echo)
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

fn chat<L>(layer: L) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<axum::extract::Request, Error: Into<Infallible>, Future: Send>,
    L::Service: Clone + Send + Sync + 'static,
    <L::Service as Service<axum::extract::Request>>::Response: IntoResponse,
{
    Router::new()
        .route("/guarded", get(guarded))
        .route("/bare", get(bare))
        .route("/", get(async || "hello"))
        .layer(layer)
}

type Socket = WebSocketStream<TcpStream>;

async fn open(address: SocketAddr, path: &str) -> Result<Socket, StatusCode> {
    let stream = TcpStream::connect(address).await.unwrap();
    match client_async(format!("ws://{address}{path}"), stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(response.status()),
        Err(error) => panic!("{error}"),
    }
}

/// Sends a message and has it back.
async fn exchange<I>(socket: &mut WebSocketStream<I>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), "hello".into());
}

/// What is in flight in a bulkhead, and what it has counted.
type Look = Box<dyn Fn() -> (usize, Totals)>;

fn at(handle: BulkheadHandle) -> Look {
    Box::new(move || {
        let snapshot = handle.snapshot();
        (snapshot.in_flight, snapshot.totals)
    })
}

/// Waits until the bulkhead has so many calls in flight: an end is noticed a moment later.
async fn until(name: &str, look: &Look, in_flight: usize) {
    let reached = async {
        while look().0 != in_flight {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(5), reached).await;
    assert!(reached.is_ok(), "{name}: {:?}", look());
}

/// Bulkheads for one call, on all that they stand on.
fn bulkheads() -> Vec<(&'static str, Router, Look)> {
    let alone = || BulkheadLayer::builder(1).protocol(Server::new());
    let to_end = BulkheadLayer::builder(1).protocol(UntilBodyEnd::new(Server::new()));
    let keyed = alone().keyed_by(|_: &axum::extract::Request| Some(7));
    let classes = alone().criticality(|_: &axum::extract::Request| Criticality::Critical);
    let learns = alone().adaptive(Vegas::default()).build().unwrap();
    let (alone, to_end) = (alone().build().unwrap(), to_end.build().unwrap());
    let (keyed, classes) = (keyed.build().unwrap(), classes.build().unwrap());
    let stack = || stack::server().http().max_in_flight(1).rate(ONE).burst(9);
    let both = stack().build().unwrap();
    let both_to_end = stack().protocol(UntilBodyEnd::new).build().unwrap();

    let keys = keyed.handle();
    let of_key = move || {
        let in_flight = keys.key(&7).map_or(0, |key| key.snapshot().in_flight);
        (in_flight, keys.totals())
    };
    let [stack, stack_to_end] = [both.handle().bulkhead, both_to_end.handle().bulkhead];
    vec![
        ("bulkhead", chat(alone.clone()), at(alone.handle())),
        ("to the end", chat(to_end.clone()), at(to_end.handle())),
        ("keyed", chat(keyed), Box::new(of_key)),
        ("by class", chat(classes.clone()), at(classes.handle())),
        ("adaptive", chat(learns.clone()), at(learns.handle())),
        ("stack", chat(both), at(stack)),
        ("stack to the end", chat(both_to_end), at(stack_to_end)),
    ]
}

#[tokio::test]
async fn a_guarded_websocket_is_in_flight_until_it_closes() {
    for (name, router, look) in bulkheads() {
        let address = serve(router).await;
        let mut socket = open(address, "/guarded").await.expect(name);
        exchange(&mut socket).await;
        assert_eq!(look().0, 1, "{name}");
        assert_eq!(look().1.success, 0, "{name}");
        let second = open(address, "/guarded").await.unwrap_err();
        assert_eq!(second, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        exchange(&mut socket).await;

        socket.close(None).await.unwrap();
        until(name, &look, 0).await;
        assert_eq!(look().1.success, 1, "{name}");
        assert!(open(address, "/guarded").await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn without_a_guard_a_websocket_is_over_at_its_head() {
    for (name, router, look) in bulkheads() {
        let address = serve(router).await;
        let mut first = open(address, "/bare").await.expect(name);
        until(name, &look, 0).await;
        let mut second = open(address, "/bare").await.expect(name);
        exchange(&mut first).await;
        exchange(&mut second).await;
        let totals = look().1;
        assert_eq!((totals.success, totals.cancelled), (2, 0), "{name}");
    }
}

#[tokio::test]
async fn a_panicking_or_cut_off_websocket_frees_its_permit() {
    for (name, router, look) in bulkheads() {
        let address = serve(router).await;
        let mut socket = open(address, "/guarded").await.expect(name);
        exchange(&mut socket).await;
        socket.send("panic".into()).await.unwrap();
        until(name, &look, 0).await;
        let cut_off = open(address, "/guarded").await.expect(name);
        until(name, &look, 1).await;
        drop(cut_off);
        until(name, &look, 0).await;
    }
}

#[tokio::test]
async fn circuits_and_limits_judge_a_websocket_at_its_head() {
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Server::new())
        .build()
        .unwrap();
    let handle = breaker.handle();
    let limit = RateLimitLayer::builder(ONE).burst(2);
    let limit = limit.protocol(Server::new()).build().unwrap();
    let address = serve(chat(breaker).layer(limit)).await;
    let mut socket = open(address, "/guarded").await.unwrap();
    exchange(&mut socket).await;
    assert_eq!(handle.snapshot().counts.successes, 1);
    // A thousand messages are still one call.
    for _ in 0..1000 {
        exchange(&mut socket).await;
    }
    assert_eq!(handle.snapshot().counts.total(), 1);
    assert!(open(address, "/guarded").await.is_ok());
    let third = open(address, "/guarded").await.unwrap_err();
    assert_eq!(third, StatusCode::TOO_MANY_REQUESTS);
    exchange(&mut socket).await;
}

/// Asks for a WebSocket as a hyper client does.
fn handshake(address: SocketAddr, path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://{address}{path}"))
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, 13)
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    request.body(Empty::new()).unwrap()
}

/// The WebSocket that a response is upgraded to.
async fn socket<B>(response: Response<B>) -> WebSocketStream<TokioIo<Upgraded>> {
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

fn hyper_client<B>() -> HyperClient<HttpConnector, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    HyperClient::builder(TokioExecutor::new()).build_http()
}

#[tokio::test]
async fn a_client_keeps_its_place_until_it_drops_the_guard() {
    let address = serve(chat(tower::layer::util::Identity::new())).await;
    let alone = BulkheadLayer::builder(1).protocol(Client::new());
    let to_end = BulkheadLayer::builder(1).protocol(UntilBodyEnd::new(Client::new()));
    let (alone, to_end) = (alone.build().unwrap(), to_end.build().unwrap());
    keeps(at(alone.handle()), alone.layer(hyper_client()), address).await;
    keeps(at(to_end.handle()), to_end.layer(hyper_client()), address).await;
    {
        let client = reqwest_013::Client::builder().no_proxy().build().unwrap();
        let reqwest = alone.layer(tower_keep::reqwest::Reqwest::new(client));
        let before = alone.handle().snapshot().totals.success;
        keeps_from(before, at(alone.handle()), reqwest, address).await;
    }
    let stack = stack::client().http().max_in_flight(1).build().unwrap();
    let handle = stack.handle().bulkhead;
    let look = move || {
        let hosts = handle.keys().into_iter();
        let in_flight = hosts.map(|(_, host)| host.snapshot().in_flight).sum();
        (in_flight, handle.totals())
    };
    keeps(Box::new(look), stack.layer(hyper_client()), address).await;
}

async fn keeps<S, B>(look: Look, service: S, address: SocketAddr)
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = BoxError> + Clone,
{
    keeps_from(0, look, service, address).await;
}

async fn keeps_from<S, B>(before: u64, look: Look, service: S, address: SocketAddr)
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = BoxError> + Clone,
{
    let call = async |path| service.clone().oneshot(handshake(address, path)).await;
    let mut response = call("/bare").await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let guard = response.extensions_mut().remove::<UpgradeGuard>().unwrap();
    let mut socket = socket(response).await;
    exchange(&mut socket).await;
    assert_eq!(look().0, 1);
    let error = call("/bare").await.map(|_| ()).unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.kind, RejectedKind::BulkheadFull);
    drop((socket, guard));
    assert_eq!((look().0, look().1.success), (0, before + 1));

    // Not taken out, it goes with the response.
    let response = call("/bare").await.unwrap();
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    assert_eq!(look().0, 0);
    drop(upgraded);
    // A response that is no upgrade has none.
    let response = call("/").await.unwrap();
    assert!(response.extensions().get::<UpgradeGuard>().is_none());
}

#[tokio::test]
async fn a_tunnel_is_in_flight_until_it_closes() {
    let layer = BulkheadLayer::builder(1).protocol(Server::new());
    let layer = layer.build().unwrap();
    let look = at(layer.handle());
    let proxy = service_fn(async |mut request: Request<Incoming>| {
        assert_eq!(request.method(), Method::CONNECT);
        let (guard, upgrade) = (UpgradeGuard::new(), hyper::upgrade::on(&mut request));
        let held = guard.clone();
        tokio::spawn(async move {
            let mut tunnel = TokioIo::new(upgrade.await.unwrap());
            let mut byte = [0];
            while tunnel.read_exact(&mut byte).await.is_ok() {
                tunnel.write_all(&byte).await.unwrap();
            }
            drop(held);
        });
        let mut response = Response::new(Empty::<Bytes>::new());
        response.extensions_mut().insert(guard);
        Ok::<_, Infallible>(response)
    });
    let service = TowerToHyperService::new(layer.layer(proxy));
    let (near, far) = tokio::io::duplex(1024);
    let server = hyper::server::conn::http1::Builder::new();
    let server = server.serve_connection(TokioIo::new(far), service);
    tokio::spawn(server.with_upgrades());

    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::connect("db.internal:5432").body(Empty::<Bytes>::new());
    let response = client.send_request(request.unwrap()).await.unwrap();
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    tunnel.write_all(b"x").await.unwrap();
    assert_eq!(tunnel.read_u8().await.unwrap(), b'x');
    assert_eq!(look().0, 1);
    drop(tunnel);
    until("tunnel", &look, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_passes_the_guard_of_its_client_on() {
    let client = BulkheadLayer::builder(1).protocol(Client::new());
    let server = BulkheadLayer::builder(1).protocol(Server::new());
    let (client, server) = (client.build().unwrap(), server.build().unwrap());
    let upstream = client.layer(Wire(Upstream::default().router()));
    let forward = async move |mut request: axum::extract::Request| {
        let near = hyper::upgrade::on(&mut request);
        let mut response = upstream.oneshot(request).await.unwrap();
        let far = hyper::upgrade::on(&mut response);
        let guard = response.extensions().get::<UpgradeGuard>().cloned();
        tokio::spawn(async move {
            let (near, far) = tokio::join!(near, far);
            let [mut near, mut far] = [near, far].map(|end| TokioIo::new(end.unwrap()));
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            drop(guard);
        });
        response.map(axum::body::Body::new)
    };
    let proxy = Router::new()
        .route("/socket", get(forward))
        .layer(server.clone());
    let both = || [server.handle(), client.handle()].map(|handle| handle.snapshot().in_flight);

    let address = "127.0.0.1:1".parse().unwrap();
    let response = Wire(proxy).oneshot(handshake(address, "/socket")).await;
    let mut socket = socket(response.unwrap()).await;
    exchange(&mut socket).await;
    assert_eq!(both(), [1, 1]);
    socket.close(None).await.unwrap();
    drop(socket);
    tokio::time::sleep(SECOND).await;
    assert_eq!(both(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_guard_on_a_failure_keeps_nothing() {
    let layer = BulkheadLayer::builder(1).protocol(Server::new());
    let layer = layer.build().unwrap();
    let service = layer.layer(service_fn(async |guard: UpgradeGuard| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response.extensions_mut().insert(guard);
        Ok::<_, Infallible>(response)
    }));
    let guard = UpgradeGuard::new();
    let response = service.oneshot(guard.clone()).await.unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 0);
    drop((guard, response));
    assert_eq!(layer.handle().snapshot().totals.failure, 1);
}

#[tokio::test(start_paused = true)]
async fn a_guard_outlasts_a_body() {
    let layer = BulkheadLayer::builder(1).protocol(UntilBodyEnd::new(Server::new()));
    let layer = layer.build().unwrap();
    let in_flight = || layer.handle().snapshot().in_flight;
    // As over HTTP/2, where a tunnel is a 200.
    let service = layer.layer(service_fn(async |guard: UpgradeGuard| {
        let mut response = Response::new(Full::from("hello"));
        response.extensions_mut().insert(guard);
        Ok::<_, Infallible>(response)
    }));
    let guard = UpgradeGuard::new();
    let response: Response<TrackedBody<Full<Bytes>, _>> =
        service.oneshot(guard.clone()).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!((body.to_bytes(), in_flight()), (Bytes::from("hello"), 1));
    drop(guard);
    assert_eq!(in_flight(), 0);
}

/// How often a request is sent by a retry if it is answered 503, and by a hedge if that takes long.
async fn sent(upgrade: bool, declared: bool) -> (usize, usize) {
    let request = || {
        let mut request = Request::new(Empty::<Bytes>::new());
        if upgrade {
            let websocket = header::HeaderValue::from_static("websocket");
            request.headers_mut().insert(header::UPGRADE, websocket);
        }
        if declared {
            request.extensions_mut().insert(Idempotent);
        }
        request
    };
    let calls = Cell::new(0);
    let busy = async || {
        calls.set(calls.get() + 1);
        tokio::time::sleep(3 * SECOND).await;
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok::<_, Infallible>(response)
    };
    let retry = RetryLayer::builder().protocol(Client::new());
    let retry = retry.build().unwrap();
    let service = retry.layer(service_fn(|_| busy()));
    service.oneshot(request()).await.unwrap();
    let retried = calls.take();

    let hedge = HedgeLayer::builder().delay(SECOND).protocol(Client::new());
    let hedge = hedge.build().unwrap();
    let service = hedge.layer(service_fn(|_| busy()));
    service.oneshot(request()).await.unwrap();
    (retried, calls.take())
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_not_sent_again() {
    assert_eq!(sent(false, false).await, (3, 2));
    assert_eq!(sent(true, false).await, (1, 1));
    assert_eq!(sent(true, true).await, (3, 2));
}
