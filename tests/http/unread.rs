//! Clients that do not read what they are answered, over hyper: nobody polls a body that cannot be
//! written, so that no timer within the call can end it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{advance, pause, resume},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    bulkhead::{BulkheadHandle, BulkheadLayer},
    protocol::http::{Server, UntilBodyEnd},
    stack,
    timeout::TimeoutLayer,
};

const MINUTE: Duration = Duration::from_secs(60);

type Body = UnsyncBoxBody<Bytes, BoxError>;
type App = BoxCloneSyncService<Request<hyper::body::Incoming>, Response<Body>, Infallible>;

/// More than any socket buffers: it never ends.
fn endless() -> Body {
    let frame = || Ok::<_, BoxError>(Frame::data(Bytes::from(vec![7; 64 * 1024])));
    StreamBody::new(stream::repeat_with(frame)).boxed_unsync()
}

async fn download(_: Request<hyper::body::Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(endless()))
}

fn boxed<S, B>(service: S) -> App
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let answer =
        |response: Response<B>| response.map(|body| body.map_err(Into::into).boxed_unsync());
    BoxCloneSyncService::new(service.map_response(answer))
}

/// One place, held to the end of the body, which has half a minute.
fn by_hand() -> (App, BulkheadHandle) {
    let protocol = UntilBodyEnd::new(Server::new());
    let builder = BulkheadLayer::builder(1).reclaim_after(MINUTE);
    let bulkhead = builder.protocol(protocol).build().unwrap();
    let timeout = TimeoutLayer::builder(MINUTE / 2)
        .protocol(Server::new())
        .until_body_end()
        .build()
        .unwrap();
    let app = bulkhead.layer(timeout.layer(service_fn(download)));
    (boxed(app), bulkhead.handle())
}

fn in_a_stack() -> (App, BulkheadHandle) {
    let stack = stack::server()
        .http()
        .protocol(UntilBodyEnd::new)
        .max_in_flight(1)
        .reclaim_after(MINUTE)
        .build()
        .unwrap();
    let handle = stack.handle().bulkhead;
    (boxed(stack.layer(service_fn(download))), handle)
}

async fn serve(app: App) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// What a client gets that comes after the others; its response is dropped.
async fn status(address: SocketAddr) -> StatusCode {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri = format!("http://{address}/").parse().unwrap();
    client.get(uri).await.unwrap().status()
}

/// Without a sleep: until it is so, or the test runs out of its time.
async fn until(reached: impl Fn() -> bool) {
    let all = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .unwrap();
}

/// Lets a minute pass at once.
async fn a_minute_later() {
    pause();
    advance(MINUTE).await;
    resume();
}

/// The place is free again though the client is still there and does not read.
async fn is_free_again<C>(
    (app, handle): (App, BulkheadHandle),
    unread: impl AsyncFnOnce(SocketAddr) -> C,
) {
    let address = serve(app).await;
    let connection = unread(address).await;
    until(|| handle.snapshot().in_flight == 1).await;
    assert_eq!(status(address).await, StatusCode::SERVICE_UNAVAILABLE);
    a_minute_later().await;
    assert_eq!(status(address).await, StatusCode::OK);
    assert_eq!(handle.snapshot().totals.reclaimed, 1);
    // The second one was given up by its client.
    until(|| handle.snapshot().in_flight == 0).await;
    drop(connection);
    until(|| handle.snapshot().totals.cancelled == 2).await;
    assert_eq!(handle.snapshot().in_flight, 0);
}

/// It asks, and reads nothing.
async fn over_http1(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    client
}

/// It reads the head, and opens no window for the body.
async fn over_http2(address: SocketAddr) -> Http2 {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(0);
    let (mut requests, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    let closed = Arc::new(Notify::new());
    let close = closed.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = connection => {}
            () = close.notified() => {}
        }
    });
    let uri = format!("http://{address}/");
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let response = requests.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    Http2 {
        _response: response,
        closed,
    }
}

/// A response that is not read, on a connection that closes with it.
struct Http2 {
    _response: Response<hyper::body::Incoming>,
    closed: Arc<Notify>,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.closed.notify_one();
    }
}

#[tokio::test]
async fn a_client_that_never_reads_gives_its_place_up() {
    is_free_again(by_hand(), over_http1).await;
    is_free_again(in_a_stack(), over_http1).await;
}

#[tokio::test]
async fn an_http2_client_without_a_window_gives_it_up() {
    is_free_again(by_hand(), over_http2).await;
    is_free_again(in_a_stack(), over_http2).await;
}
