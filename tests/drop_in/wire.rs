//! A hyper server and client with the connection between them in memory, so that a paused clock
//! does not overtake a network; and handlers that stream.

use std::{
    future, io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::{IntoResponse, Sse, sse::Event},
    routing::get,
};
use bytes::Bytes;
use futures::{
    channel::mpsc::{UnboundedSender, unbounded},
    future::BoxFuture,
};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tower::{BoxError, Service};

/// A client that connects anew for each call.
#[derive(Clone)]
pub(crate) struct Wire(pub(crate) Router);

/// Calls to handlers that a test drives.
#[derive(Clone, Default)]
pub(crate) struct Upstream(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    count: usize,
    /// Feeds the newest stream.
    feed: Option<Feed>,
}

type Feed = UnboundedSender<Result<Event, io::Error>>;

pub(crate) type Connection = http1::SendRequest<BoxBody>;

pub(crate) type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

/// A stream of server-sent events, from its source to its reader.
pub(crate) struct Streamed {
    feed: Feed,
    body: BoxBody,
}

impl<B> Service<Request<B>> for Wire
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let router = self.0.clone();
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move {
            let mut connection = connect(router).await?;
            Ok(connection.send_request(request).await?)
        })
    }
}

/// A connection to a server of its own.
pub(crate) async fn connect(router: Router) -> hyper::Result<Connection> {
    let (near, far) = tokio::io::duplex(4096);
    let server = hyper::server::conn::http1::Builder::new();
    let service = TowerToHyperService::new(router);
    let server = server.serve_connection(TokioIo::new(far), service);
    tokio::spawn(server.with_upgrades());
    let (client, connection) = http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(client)
}

impl Upstream {
    /// Greets, streams, upgrades, never answers, and is always busy.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/", get(async || "hello"))
            .route("/events", get(events))
            .route("/socket", get(socket))
            .route("/silent", get(async || future::pending::<()>().await))
            .route("/busy", get(busy))
            .with_state(self.clone())
    }

    /// How many calls have come.
    pub(crate) fn calls(&self) -> usize {
        self.0.lock().unwrap().count
    }

    fn called(&self, feed: Option<Feed>) {
        let mut calls = self.0.lock().unwrap();
        calls.count += 1;
        calls.feed = feed;
    }

    /// The stream that has begun last, and what reads it.
    pub(crate) fn streamed(&self, response: Response<BoxBody>) -> Streamed {
        assert_eq!(response.status(), StatusCode::OK);
        let feed = self.0.lock().unwrap().feed.take();
        Streamed {
            feed: feed.expect("a stream"),
            body: response.into_body(),
        }
    }
}

impl Streamed {
    /// One event passes.
    pub(crate) async fn exchange(&mut self) {
        let event = Event::default().data("tick");
        self.feed.unbounded_send(Ok(event)).unwrap();
        let frame = self.next().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "data: tick\n\n");
    }

    pub(crate) async fn end(mut self) {
        self.feed.close_channel();
        assert!(self.next().await.is_none());
    }

    /// What its reader gets next.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        let frame = tokio::time::timeout(HOUR, self.body.frame()).await;
        frame.expect("a frame within an hour")
    }

    /// It breaks off.
    pub(crate) async fn fail(mut self) {
        let broken = io::ErrorKind::ConnectionReset.into();
        self.feed.unbounded_send(Err(broken)).unwrap();
        assert!(self.next().await.unwrap().is_err());
    }
}

async fn events(State(upstream): State<Upstream>) -> impl IntoResponse {
    let (feed, events) = unbounded();
    upstream.called(Some(feed));
    Sse::new(events)
}

async fn busy(State(upstream): State<Upstream>) -> impl IntoResponse {
    upstream.called(None);
    StatusCode::SERVICE_UNAVAILABLE
}

async fn socket(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(echo)
}

/// Sends each message back until the peer closes.
pub(crate) async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if message == Message::text("panic") {
            panic!("as asked");
        }
        let _ = socket.send(message).await;
    }
}

const HOUR: Duration = Duration::from_secs(3600);
