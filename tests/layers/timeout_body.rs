//! A timeout that reaches to the end of the body, on a paused clock and over real connections.
//!
//! Connections do not wait for a paused clock, so two of these tests take the milliseconds that
//! they say.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body as AxumBody, routing::get};
use bytes::Bytes;
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedSender, unbounded},
    stream,
};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, advance, sleep, timeout},
};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use tower_keep::{
    Deadline, Rejected, RejectedKind, Timeouts,
    bulkhead::BulkheadLayer,
    protocol::http::{Client as AsClient, Server as AsServer, UntilBodyEnd},
    timeout::{TimeoutBuilder, TimeoutLayer, ToBodyEnd},
};

const SECOND: Duration = Duration::from_secs(1);

type Frames = UnboundedSender<Frame<Bytes>>;

fn layer() -> TimeoutLayer<AsClient, ToBodyEnd> {
    // In any order.
    TimeoutLayer::builder(10 * SECOND)
        .until_body_end()
        .total(true)
        .protocol(AsClient::new())
        .build()
        .unwrap()
}

/// A response whose head takes 4 s, and whose frames come from the sender.
async fn answer(
    layer: &TimeoutLayer<AsClient, ToBodyEnd>,
    request: Request<()>,
) -> (
    Frames,
    impl Body<Data = Bytes, Error = BoxError> + Unpin + use<>,
) {
    let (frames, body) = unbounded();
    let body = Arc::new(Mutex::new(Some(body)));
    let upstream = service_fn(move |_: Request<()>| {
        let body = body.lock().unwrap().take().unwrap();
        async move {
            sleep(4 * SECOND).await;
            let body = StreamBody::new(body.map(Ok::<_, Infallible>));
            Ok::<_, BoxError>(Response::new(body))
        }
    });
    let response = layer.layer(upstream).oneshot(request).await.unwrap();
    (frames, response.into_body())
}

fn data(bytes: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from(bytes))
}

fn timed_out(error: &BoxError) -> bool {
    Rejected::find(&**error).is_some_and(|rejected| rejected.kind == RejectedKind::TimedOut)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_fails_at_the_time_of_the_call() {
    let (layer, start) = (layer(), Instant::now());
    let (frames, mut body) = answer(&layer, Request::new(())).await;
    frames.unbounded_send(data("some")).unwrap();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "some");
    assert!(timed_out(&body.frame().await.unwrap().unwrap_err()));
    let elapsed = start.elapsed();
    assert!((10 * SECOND..10 * SECOND + Duration::from_millis(5)).contains(&elapsed));
    // It has let go of the connection, and has ended.
    assert!(frames.is_closed());
    assert!(body.is_end_stream() && body.frame().await.is_none());
    assert_eq!(layer.handle().snapshot().expired, 1);
}

/// A layer whose bodies have times of their own.
fn frames(layer: TimeoutBuilder<AsClient, ToBodyEnd>) -> TimeoutLayer<AsClient, ToBodyEnd> {
    layer.build().unwrap()
}

fn minute() -> TimeoutBuilder<AsClient> {
    TimeoutLayer::builder(60 * SECOND).protocol(AsClient::new())
}

#[tokio::test(start_paused = true)]
async fn a_first_byte_that_is_late_fails() {
    let (layer, start) = (frames(minute().first_byte(6 * SECOND)), Instant::now());
    let (frames, mut body) = answer(&layer, Request::new(())).await;
    // Nothing is no byte.
    frames.unbounded_send(data("")).unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(timed_out(&body.frame().await.unwrap().unwrap_err()));
    assert_eq!(start.elapsed().as_secs(), 6);
    assert!(frames.is_closed());
    assert_eq!(layer.handle().snapshot().expired, 1);
}

#[tokio::test(start_paused = true)]
async fn a_head_later_than_the_first_byte_may_be_fails() {
    let layer = frames(minute().first_byte(3 * SECOND));
    let start = Instant::now();
    let upstream = service_fn(async |_: Request<()>| {
        sleep(4 * SECOND).await;
        Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new()))
    });
    let error = layer.layer(upstream).oneshot(Request::new(())).await;
    assert!(timed_out(&error.err().unwrap()));
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn after_the_first_byte_only_the_whole_counts() {
    let (layer, start) = (frames(minute().first_byte(6 * SECOND)), Instant::now());
    let (frames, mut body) = answer(&layer, Request::new(())).await;
    frames.unbounded_send(data("some")).unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(timed_out(&body.frame().await.unwrap().unwrap_err()));
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_gap_fails_and_a_slow_reader_does_not() {
    let (layer, start) = (frames(minute().between_frames(5 * SECOND)), Instant::now());
    let (frames, mut body) = answer(&layer, Request::new(())).await;
    tokio::spawn(async move {
        for _ in 0..5 {
            sleep(4 * SECOND).await;
            let _ = frames.unbounded_send(data("."));
        }
        sleep(100 * SECOND).await;
    });
    for _ in 0..2 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    // The reader's own time is not the upstream's.
    sleep(12 * SECOND).await;
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    assert!(timed_out(&body.frame().await.unwrap().unwrap_err()));
    assert_eq!(start.elapsed().as_secs(), 29);
}

#[tokio::test(start_paused = true)]
async fn a_callers_deadline_ends_a_stream_in_time() {
    let layer = frames(minute().first_byte(5 * SECOND).between_frames(50 * SECOND));
    let start = Instant::now();
    let mut request = Request::new(());
    request.extensions_mut().insert(Deadline::after(9 * SECOND));
    let (frames, mut body) = answer(&layer, request).await;
    frames.unbounded_send(data("some")).unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(Rejected::find(&*error).unwrap().is_by_callers_deadline());
    assert_eq!(start.elapsed().as_secs(), 9);
}

#[test]
fn times_of_nothing_are_refused() {
    let field = |layer: TimeoutBuilder<AsClient, ToBodyEnd>| layer.build().unwrap_err().field;
    assert_eq!(field(minute().first_byte(Duration::ZERO)), "first_byte");
    assert_eq!(
        field(minute().between_frames(Duration::ZERO)),
        "between_frames"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_may_end_with_its_first_byte() {
    let protocol = UntilBodyEnd::new(AsClient::new()).until_first_byte();
    let bulkhead = BulkheadLayer::builder(1)
        .protocol(protocol)
        .build()
        .unwrap();
    let (frames, body) = unbounded();
    let body = Arc::new(Mutex::new(Some(body)));
    let upstream = service_fn(move |_: Request<()>| {
        let body = body.lock().unwrap().take().unwrap();
        let body = StreamBody::new(body.map(Ok::<_, Infallible>));
        async move { Ok::<_, BoxError>(Response::new(body)) }
    });
    let answer = bulkhead.layer(upstream).oneshot(Request::new(())).await;
    let mut body = answer.unwrap().into_body();
    for (bytes, in_flight) in [("", 1), ("some", 0)] {
        frames.unbounded_send(data(bytes)).unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(bulkhead.handle().snapshot().in_flight, in_flight);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_fails_though_a_frame_is_there() {
    let (layer, start) = (layer(), Instant::now());
    let (frames, mut body) = answer(&layer, Request::new(())).await;
    tokio::spawn(async move {
        while frames.unbounded_send(data(".")).is_ok() {
            sleep(SECOND).await;
        }
    });
    let mut read = 0;
    let error = loop {
        match body.frame().await.unwrap() {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
    };
    assert!(timed_out(&error));
    assert_eq!(read, 6);
    assert!(start.elapsed() < 11 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_late_gets_no_more_data() {
    let (frames, mut body) = answer(&layer(), Request::new(())).await;
    frames.unbounded_send(data("late")).unwrap();
    advance(20 * SECOND).await;
    assert!(timed_out(&body.frame().await.unwrap().unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn frames_and_trailers_in_time_are_unchanged() {
    let (layer, trailers) = (
        layer(),
        HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]),
    );
    let (frames, body) = answer(&layer, Request::new(())).await;
    let sent = trailers.clone();
    tokio::spawn(async move {
        for frame in [data("all "), data("of it"), Frame::trailers(sent)] {
            sleep(SECOND).await;
            frames.unbounded_send(frame).unwrap();
        }
    });
    let collected = body.collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "all of it");
    assert_eq!(layer.handle().snapshot().expired, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_or_a_disabled_layer_allows_more_time() {
    let mut request = Request::new(());
    let timeouts = Timeouts::new().total(60 * SECOND);
    request.extensions_mut().insert(timeouts);
    let off = TimeoutLayer::builder(10 * SECOND)
        .until_body_end()
        .protocol(AsClient::new())
        .enabled(false)
        .build()
        .unwrap();
    for (layer, request) in [(layer(), request), (off, Request::new(()))] {
        let (frames, body) = answer(&layer, request).await;
        tokio::spawn(async move {
            sleep(30 * SECOND).await;
            frames.unbounded_send(data("late")).unwrap();
        });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "late");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_may_reach_to_the_end_of_its_body_too() {
    let layer = TimeoutLayer::builder(SECOND)
        .protocol(AsClient::new())
        .until_body_end()
        .build()
        .unwrap();
    // Answered at once: the time runs all the same.
    let upstream = service_fn(async |_: Request<()>| {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        Ok::<_, BoxError>(Response::new(body))
    });
    let response = layer.layer(upstream).oneshot(Request::new(())).await;
    let start = Instant::now();
    let read = timeout(60 * SECOND, response.unwrap().collect()).await;
    assert!(timed_out(&read.expect("it hangs").unwrap_err()));
    assert!(start.elapsed() < 2 * SECOND);
}

/// A server that answers each connection with these bytes, then says nothing more; it tells when a
/// connection is closed.
async fn serve(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (closed, closings) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let closed = closed.clone();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.read(&mut request).await;
                let _ = closed.send(());
            });
        }
    });
    (address, closings)
}

#[tokio::test]
async fn a_stalled_body_does_not_hang_its_reader() {
    let layer = TimeoutLayer::builder(Duration::from_millis(100))
        .total(true)
        .until_body_end()
        .protocol(AsClient::new())
        .build()
        .unwrap();
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let (address, mut closings) = serve(answer).await;
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let request = Request::get(format!("http://{address}/"));
        let request = request.body(Empty::new()).unwrap();
        let response = layer.layer(client).oneshot(request).await.unwrap();
        let read = timeout(10 * SECOND, response.collect()).await;
        assert!(timed_out(&read.expect("it hangs").unwrap_err()));
        let closed = timeout(10 * SECOND, closings.recv()).await;
        closed.expect("the connection is closed");
    }
}

#[tokio::test]
async fn a_server_cuts_off_a_handler_that_stalls() {
    let layer = TimeoutLayer::builder(Duration::from_millis(100))
        .until_body_end()
        .protocol(AsServer::new())
        .build()
        .unwrap();
    let stalls = async || {
        let first = stream::iter([Ok::<_, Infallible>("half")]);
        AxumBody::from_stream(first.chain(stream::pending()))
    };
    let app = Router::new()
        .route("/", get(stalls))
        .route("/quick", get(async || "whole"))
        .layer(layer.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let read = async |path| {
        let response = client.get(format!("http://{address}{path}").parse().unwrap());
        let read = async { response.await.unwrap().collect().await };
        timeout(10 * SECOND, read).await.expect("it hangs")
    };
    assert_eq!(read("/quick").await.unwrap().to_bytes(), "whole");
    assert!(read("/").await.is_err());
    assert_eq!(layer.handle().snapshot().expired, 1);
}
