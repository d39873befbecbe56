//! When a response has ended: over a real hyper server and client, and frame by frame.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Outcome,
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerHandle, CircuitBreakerLayer},
    protocol::{
        Protocol, Settle,
        http::{self as keep_http, Server, TrackedBody, UntilBodyEnd},
    },
};

type Body = BoxBody<Bytes, io::Error>;

/// A body in frames, of which nobody knows the length.
fn streamed(frames: Vec<Result<Frame<Bytes>, io::Error>>) -> Body {
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn broken() -> Result<Frame<Bytes>, io::Error> {
    Err(io::ErrorKind::ConnectionReset.into())
}

fn trailers(export: &'static str) -> Result<Frame<Bytes>, io::Error> {
    let value = HeaderValue::from_static(export);
    Ok(Frame::trailers(HeaderMap::from_iter([(
        "x-export".parse().unwrap(),
        value,
    )])))
}

fn exact(text: &'static str) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed()
}

/// A handler: the path says how to answer.
async fn handle(request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Infallible> {
    let response = Response::builder();
    let response = match request.uri().path() {
        "/length" => response.header(CONTENT_LENGTH, 5).body(streamed(vec![
            data("he"),
            data("llo"),
            broken(),
        ])),
        "/exact" => response.body(exact("hello")),
        "/chunked" => response.body(streamed(vec![data("he"), data("llo")])),
        "/zero" => response.header(CONTENT_LENGTH, 0).body(streamed(vec![])),
        "/empty" => response.body(exact("")),
        "/204" => response.status(204).body(streamed(vec![data("never")])),
        "/304" => response
            .status(304)
            .header(CONTENT_LENGTH, 5)
            .body(streamed(vec![data("never")])),
        "/broken" => response.body(streamed(vec![data("he"), broken()])),
        path => panic!("no such path: {path}"),
    };
    Ok(response.unwrap())
}

/// A hyper HTTP/1 server behind a circuit breaker that judges bodies.
async fn serve() -> (SocketAddr, CircuitBreakerHandle) {
    let layer = CircuitBreakerLayer::builder()
        .protocol(UntilBodyEnd::new(Server::new()))
        .build()
        .unwrap();
    let service = TowerToHyperService::new(layer.layer(service_fn(handle)));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let http1 = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http1.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    (address, layer.handle())
}

/// The successes and failures that ten requests leave in a server's window.
async fn counted(method: Method, path: &str) -> (u64, u64) {
    let (address, handle) = serve().await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for _ in 0..10 {
        let request = Request::builder()
            .method(&method)
            .uri(format!("http://{address}{path}"))
            .body(Empty::new())
            .unwrap();
        // Where a body breaks off early enough, not even the head arrives.
        if let Ok(response) = client.request(request).await {
            let _ = response.into_body().collect().await;
        }
    }
    // The server may drop the last body a moment after the client has read it.
    let all = async {
        while handle.snapshot().counts.total() < 10 {
            tokio::task::yield_now().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
    let counts = handle.snapshot().counts;
    (counts.successes, counts.failures)
}

#[tokio::test]
async fn hyper_reads_a_promised_length_and_that_is_the_end() {
    for path in ["/length", "/exact", "/chunked"] {
        assert_eq!(counted(Method::GET, path).await, (10, 0), "{path}");
    }
}

#[tokio::test]
async fn responses_without_a_body_have_ended() {
    for path in ["/zero", "/empty", "/204", "/304"] {
        assert_eq!(counted(Method::GET, path).await, (10, 0), "{path}");
    }
}

#[tokio::test]
async fn a_head_request_wants_no_body() {
    for path in ["/length", "/exact", "/chunked", "/empty", "/304"] {
        assert_eq!(counted(Method::HEAD, path).await, (10, 0), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_fails_each_time() {
    assert_eq!(counted(Method::GET, "/broken").await, (0, 10));
}

#[tokio::test]
async fn a_client_has_read_what_a_server_promised() {
    let (address, _) = serve().await;
    let layer = CircuitBreakerLayer::builder()
        .protocol(UntilBodyEnd::new(keep_http::Client::new()))
        .build()
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut service = layer.layer(client);
    for (method, path) in [
        (Method::GET, "/length"),
        (Method::GET, "/exact"),
        (Method::GET, "/chunked"),
        (Method::GET, "/304"),
        (Method::HEAD, "/length"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .body(Empty::new())
            .unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(layer.handle().snapshot().counts.successes, 5);
}

/// What a permit is told, in order.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<&'static str>>>);

impl Told {
    fn all(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }

    fn push(&self, told: &'static str) {
        self.0.lock().unwrap().push(told);
    }
}

impl Settle for Told {
    fn settle(self, outcome: Outcome, _: Option<Duration>) {
        self.push(match outcome {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Overload => "overload",
            Outcome::Ignore => "ignore",
        });
    }

    fn honor(&mut self, _: Duration) {
        self.push("honor");
    }

    fn answered(&mut self) {
        self.push("answered");
    }
}

fn complete_or_failed(trailers: &HeaderMap) -> Outcome {
    match trailers.get("x-export") {
        Some(export) if export == "complete" => Outcome::Success,
        _ => Outcome::Failure,
    }
}

fn track_over(
    protocol: UntilBodyEnd<keep_http::Client>,
    response: Response<Body>,
) -> (Response<TrackedBody<Body, Told>>, Told) {
    let told = Told::default();
    let result = Ok::<_, BoxError>(response);
    (protocol.settle(result, told.clone()).unwrap(), told)
}

fn track(response: Response<Body>) -> (Response<TrackedBody<Body, Told>>, Told) {
    track_over(UntilBodyEnd::new(keep_http::Client::new()), response)
}

fn next(response: &mut Response<TrackedBody<Body, Told>>) -> bool {
    response
        .body_mut()
        .frame()
        .now_or_never()
        .unwrap()
        .is_some()
}

#[test]
fn a_good_head_answers_and_the_end_settles() {
    let (mut response, told) = track(Response::new(streamed(vec![data("a")])));
    assert_eq!(told.all(), ["answered"]);
    assert!(next(&mut response));
    assert_eq!(told.all(), ["answered"]);
    assert!(!next(&mut response));
    assert_eq!(told.all(), ["answered", "success"]);
}

#[test]
fn a_response_that_is_over_with_its_head_only_settles() {
    for (status, body, told) in [
        (200, exact(""), "success"),
        (204, streamed(vec![data("never")]), "success"),
        (304, streamed(vec![data("never")]), "success"),
        (101, streamed(vec![data("never")]), "success"),
        (503, exact("down"), "failure"),
        (429, exact("slower"), "overload"),
    ] {
        let response = Response::builder().status(status).body(body).unwrap();
        assert_eq!(track(response).1.all(), [told], "{status}");
    }
    let mut zero = Response::new(streamed(vec![data("never")]));
    zero.headers_mut().insert(CONTENT_LENGTH, 0.into());
    assert_eq!(track(zero).1.all(), ["success"]);
}

#[test]
fn a_promised_length_that_was_delivered_is_the_end() {
    let with_length = |length: &'static str| {
        let body = streamed(vec![data("he"), data("llo"), broken()]);
        let length = HeaderValue::from_static(length);
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response
    };
    for (length, settled) in [("5", true), ("4", true), ("6", false), ("soon", false)] {
        let (mut response, told) = track(with_length(length));
        assert!(next(&mut response));
        assert_eq!(told.all(), ["answered"], "{length}");
        assert!(next(&mut response));
        assert_eq!(told.all().len() == 2, settled, "{length}");
    }
    // Beside a transfer coding, a length says nothing.
    let mut chunked = with_length("5");
    let coding = HeaderValue::from_static("chunked");
    chunked.headers_mut().insert("transfer-encoding", coding);
    let (mut response, told) = track(chunked);
    assert!(next(&mut response) && next(&mut response));
    assert_eq!(told.all(), ["answered"]);
}

/// One frame, and what the body says of its length and of its end.
struct OneFrame {
    frame: Option<Bytes>,
    length: Option<u64>,
    tells_its_end: bool,
}

impl http_body::Body for OneFrame {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frame.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.tells_its_end && self.frame.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[test]
fn a_length_or_an_end_that_the_body_tells_is_enough() {
    for (length, tells_its_end, settled) in [
        (Some(5), false, true),
        (None, true, true),
        (None, false, false),
        (Some(6), false, false),
    ] {
        let told = Told::default();
        let protocol = UntilBodyEnd::new(keep_http::Client::new());
        let body = OneFrame {
            frame: Some(Bytes::from_static(b"hello")),
            length,
            tells_its_end,
        };
        let result = Ok::<_, BoxError>(Response::new(body));
        let mut response = protocol.settle(result, told.clone()).unwrap();
        let frame = response.body_mut().frame().now_or_never().unwrap();
        assert!(frame.is_some());
        assert_eq!(told.all().len() == 2, settled, "{length:?} {tells_its_end}");
    }
}

#[test]
fn a_body_dropped_in_the_middle_is_abandoned() {
    let (mut response, told) = track(Response::new(streamed(vec![data("a"), data("b")])));
    assert!(next(&mut response));
    drop(response);
    assert_eq!(told.all(), ["answered"]);
}

#[test]
fn a_body_that_was_dropped_while_it_hung_is_abandoned() {
    let hung = stream::iter([data("a")]).chain(stream::pending());
    let body = BodyExt::boxed_unsync(StreamBody::new(hung));
    let told = Told::default();
    let protocol = UntilBodyEnd::new(keep_http::Client::new());
    let result = Ok::<_, BoxError>(Response::new(body));
    let mut response = protocol.settle(result, told.clone()).unwrap();
    let frame = response.body_mut().frame().now_or_never();
    assert!(frame.unwrap().unwrap().unwrap().is_data());
    assert!(response.body_mut().frame().now_or_never().is_none());
    drop(response);
    assert_eq!(told.all(), ["answered"]);
}

#[test]
fn a_body_that_nobody_polled_is_judged_by_its_head() {
    let (response, told) = track(Response::new(streamed(vec![data("a")])));
    drop(response);
    assert_eq!(told.all(), ["answered", "success"]);
}

#[test]
fn trailers_count_though_the_length_was_delivered() {
    for (export, outcome) in [("complete", "success"), ("cut short", "failure")] {
        let protocol = UntilBodyEnd::new(keep_http::Client::new()).trailers(complete_or_failed);
        let mut response = Response::new(streamed(vec![data("rows"), trailers(export)]));
        response.headers_mut().insert(CONTENT_LENGTH, 4.into());
        let (mut response, told) = track_over(protocol, response);
        assert!(next(&mut response));
        assert_eq!(told.all(), ["answered"], "{export}");
        assert!(next(&mut response));
        assert_eq!(told.all(), ["answered", outcome], "{export}");
    }
}

#[test]
fn a_complete_length_succeeds_without_its_trailers() {
    let protocol = UntilBodyEnd::new(keep_http::Client::new()).trailers(complete_or_failed);
    let mut response = Response::new(streamed(vec![data("rows"), trailers("cut short")]));
    response.headers_mut().insert(CONTENT_LENGTH, 4.into());
    let (mut response, told) = track_over(protocol, response);
    assert!(next(&mut response));
    drop(response);
    assert_eq!(told.all(), ["answered", "success"]);
}

#[test]
fn a_body_that_panics_has_failed() {
    let panics = stream::once(async { panic!("in the middle of a body") });
    let body: StreamBody<_> = StreamBody::new(Box::pin(panics));
    let told = Told::default();
    let protocol = UntilBodyEnd::new(keep_http::Client::new());
    let result = Ok::<_, BoxError>(Response::new(BodyExt::map_err(body, |error: io::Error| {
        error
    })));
    let response: Response<TrackedBody<_, Told>> = protocol.settle(result, told.clone()).unwrap();
    let read = std::panic::AssertUnwindSafe(BodyExt::collect(response.into_body()));
    let read = std::panic::catch_unwind(move || {
        let frames: Option<Result<http_body_util::Collected<Bytes>, _>> = read.0.now_or_never();
        frames.is_some()
    });
    assert!(read.is_err());
    assert_eq!(told.all(), ["answered", "failure"]);
}

#[test]
fn what_a_good_head_asks_for_is_honored_at_once() {
    let mut response = Response::new(streamed(vec![data("a")]));
    let used_up = HeaderValue::from_static("\"default\";r=0;t=30");
    response.headers_mut().insert("ratelimit", used_up);
    assert_eq!(track(response).1.all(), ["honor", "answered"]);
}

#[tokio::test(start_paused = true)]
async fn few_failures_among_many_bodies_open_no_circuit() {
    // given a window that judges from 20 calls on, at half of them
    let layer = CircuitBreakerLayer::builder()
        .protocol(UntilBodyEnd::new(keep_http::Client::new()))
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |good: bool| {
        let mut response = Response::new(streamed(vec![data("hello"), broken()]));
        response.headers_mut().insert(CONTENT_LENGTH, 5.into());
        if !good {
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            *response.body_mut() = exact("");
        }
        Ok::<_, Infallible>(response)
    }));
    // when 20 of 620 calls fail, last of all, and hyper drops each body at its length
    for n in 0..620 {
        let response = service.ready().await.unwrap().call(n < 600).await.unwrap();
        let _ = response.into_body().frame().await;
    }
    // then it stays closed
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    let counts = layer.handle().snapshot().counts;
    assert_eq!((counts.successes, counts.failures), (600, 20));
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_is_free_when_the_length_was_delivered() {
    let layer = BulkheadLayer::builder(1)
        .protocol(UntilBodyEnd::new(keep_http::Client::new()))
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |()| {
        let mut response = Response::new(streamed(vec![data("hello"), broken()]));
        response.headers_mut().insert(CONTENT_LENGTH, 5.into());
        Ok::<_, BoxError>(response)
    }));
    let mut response = service.ready().await.unwrap().call(()).await.unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 1);
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 0);
}
