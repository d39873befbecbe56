//! What the errors of a real hyper client mean to a circuit and a retry: whose fault each is, and
//! whether the request was sent.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Classify, Outcome,
    algorithm::{Backoff, Jitter, RetryBudget},
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    protocol::{Advice, Protocol, Sent, http as keep_http},
    retry::RetryLayer,
};

type Body = BoxBody<Bytes, io::Error>;
type Answer = Response<Empty<Bytes>>;

fn body(text: &'static str) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed()
}

fn request(method: Method, uri: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(uri);
    builder.body(body("body")).unwrap()
}

fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// How an error is read, which must be the same whether it comes in a box or not.
fn read<E: Into<BoxError> + 'static>(error: E) -> (Outcome, Advice) {
    let protocol = keep_http::Client::new();
    let bare = Classify::<Answer, E>::classify(&protocol, Err(&error));
    let error = error.into();
    let boxed = Classify::<Answer, BoxError>::classify(&protocol, Err(&error));
    assert_eq!(bare, boxed, "{error:?}");
    let advice = Protocol::<Answer, BoxError>::advise(&protocol, boxed, Err(&error));
    (boxed, advice)
}

const CALLERS_OWN: (Outcome, Advice) = (Outcome::Ignore, Advice::Stop);

fn failed(sent: Sent) -> (Outcome, Advice) {
    (Outcome::Failure, Advice::Retry { sent, after: None })
}

/// A port that was free a moment ago: nobody listens.
fn closed_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Lets a function answer every connection; counts them.
async fn serve<F>(
    answer: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(answer(stream));
        }
    });
    (address, connections)
}

/// Reads the head of a request, then sends some bytes and closes.
async fn reply_with(mut stream: TcpStream, bytes: &'static [u8]) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"body") {
        stream.read_buf(&mut request).await?;
    }
    stream.write_all(bytes).await?;
    stream.shutdown().await
}

#[tokio::test]
async fn twenty_relative_uris_open_no_circuit() {
    let layer = CircuitBreakerLayer::builder()
        .min_calls(5)
        .protocol(keep_http::Client::new())
        .build()
        .unwrap();
    let mut service = layer.layer(client());
    for _ in 0..20 {
        let request = request(Method::GET, "/relative");
        service
            .ready()
            .await
            .unwrap()
            .call(request)
            .await
            .unwrap_err();
    }
    assert_eq!(layer.handle().state(), BreakerState::Closed);
    assert_eq!(layer.handle().snapshot().counts.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unfit_probe_leaves_the_circuit_half_open() {
    let layer = CircuitBreakerLayer::builder()
        .min_calls(1)
        .probes(1)
        .open_for(Duration::from_secs(5))
        .protocol(keep_http::Client::new())
        .build()
        .unwrap();
    let client = client();
    let upstream = service_fn(move |down: bool| {
        let client = client.clone();
        async move {
            if down {
                return Err::<_, BoxError>(
                    io::Error::from(io::ErrorKind::ConnectionRefused).into(),
                );
            }
            let unfit = client.request(request(Method::GET, "/relative")).await;
            unfit.map_err(BoxError::from)
        }
    });
    let mut service = layer.layer(upstream);
    service.ready().await.unwrap().call(true).await.unwrap_err();
    assert_eq!(layer.handle().state(), BreakerState::Open);
    tokio::time::advance(Duration::from_secs(6)).await;
    for _ in 0..3 {
        // Each probe gives its place back.
        service
            .ready()
            .await
            .unwrap()
            .call(false)
            .await
            .unwrap_err();
        assert_eq!(layer.handle().state(), BreakerState::HalfOpen);
    }
}

#[tokio::test]
async fn a_request_that_hyper_will_not_send_is_the_callers() {
    let (address, _) = serve(|stream| reply_with(stream, b"HTTP/1.1 200 OK\r\n\r\n")).await;
    let mut old = request(Method::GET, &format!("http://{address}/"));
    *old.version_mut() = Version::HTTP_09;
    let mut new = request(Method::GET, &format!("http://{address}/"));
    *new.version_mut() = Version::HTTP_2;
    let mut tunnel = request(Method::CONNECT, &address.to_string());
    *tunnel.version_mut() = Version::HTTP_10;
    let wrong_scheme = request(Method::GET, &format!("ftp://{address}/"));
    let relative = request(Method::GET, "/relative");
    for unfit in [old, new, tunnel, wrong_scheme, relative] {
        let text = format!("{unfit:?}");
        let error = client().request(unfit).await.unwrap_err();
        assert_eq!(read(error), CALLERS_OWN, "{text}");
    }
}

#[tokio::test]
async fn a_request_body_that_fails_is_the_callers() {
    let (address, _) = serve(|stream| reply_with(stream, b"")).await;
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"half"))),
        Err(io::Error::other("the file ends here")),
    ];
    let broken = Request::put(format!("http://{address}/"))
        .body(StreamBody::new(stream::iter(frames)).boxed())
        .unwrap();
    let error = client().request(broken).await.unwrap_err();
    assert_eq!(read(error), CALLERS_OWN);
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let uri = format!("http://{}/", closed_port());
    let error = client().request(request(Method::POST, &uri)).await;
    assert_eq!(read(error.unwrap_err()), failed(Sent::No));
}

#[tokio::test]
async fn a_response_that_is_not_http_fails_without_a_retry() {
    let (address, connections) = serve(|stream| reply_with(stream, b"SSH-2.0-x\r\n\r\n")).await;
    let breaker = CircuitBreakerLayer::builder()
        .min_calls(1)
        .protocol(keep_http::Client::new())
        .build()
        .unwrap();
    let error = breaker
        .layer(client())
        .oneshot(request(Method::GET, &format!("http://{address}/")))
        .await
        .unwrap_err();
    assert_eq!(breaker.handle().state(), BreakerState::Open);
    assert_eq!(read(error), (Outcome::Failure, Advice::Stop));
    let retry = RetryLayer::builder()
        .protocol(keep_http::Client::new())
        .build()
        .unwrap();
    let request = Request::get(format!("http://{address}/"))
        .body(Full::<Bytes>::from("body"))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    retry.layer(client).oneshot(request).await.unwrap_err();
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_connection_closed_before_a_response_is_ambiguous() {
    let (address, _) = serve(|stream| reply_with(stream, b"")).await;
    let uri = format!("http://{address}/");
    let error = client().request(request(Method::GET, &uri)).await;
    assert_eq!(read(error.unwrap_err()), failed(Sent::Maybe));
}

#[tokio::test]
async fn a_connection_closed_before_the_request_is_unsent() {
    let (io, _) = tokio::io::duplex(64);
    let io = hyper_util::rt::TokioIo::new(io);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    drop(connection);
    let error = sender
        .send_request(request(Method::POST, "/"))
        .await
        .unwrap_err();
    assert!(error.is_canceled());
    assert_eq!(read(error), failed(Sent::No));
}

#[tokio::test]
async fn a_canceled_post_is_sent_again() {
    // given a connection that closes before the first request is written, and one that does not
    let (address, _) = serve(|stream| reply_with(stream, b"HTTP/1.1 204 No Content\r\n\r\n")).await;
    let uri = format!("http://{address}/");
    let (io, _) = tokio::io::duplex(64);
    let io = hyper_util::rt::TokioIo::new(io);
    let (gone, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    drop(connection);
    let gone = Arc::new(Mutex::new(Some(gone)));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = service_fn(move |request| {
        let (gone, client) = (gone.lock().unwrap().take(), client.clone());
        async move {
            match gone {
                Some(mut gone) => gone.send_request(request).await.map_err(BoxError::from),
                None => client.request(request).await.map_err(BoxError::from),
            }
        }
    });
    // when a POST is sent
    let backoff = Backoff::new(
        Duration::from_micros(1),
        Duration::from_millis(1),
        Jitter::Full,
    );
    let retry = RetryLayer::builder()
        .protocol(keep_http::Client::new())
        .backoff(backoff.unwrap())
        .budget(RetryBudget::new(1, 0.1).unwrap())
        .build()
        .unwrap();
    let post = Request::post(uri).body(Full::<Bytes>::from("body"));
    let response = retry.layer(service).oneshot(post.unwrap()).await.unwrap();
    // then it arrives on the second
    assert_eq!(response.status(), 204);
    assert_eq!(retry.handle().snapshot().retries, 1);
}

/// HTTP/2 on the wire, as far as a server needs it that answers the first request with one frame.
#[cfg(feature = "http2")]
mod http2 {
    use super::*;

    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;

    const NO_ERROR: u32 = 0;
    const INTERNAL_ERROR: u32 = 2;
    const REFUSED_STREAM: u32 = 7;
    const CANCEL: u32 = 8;
    const ENHANCE_YOUR_CALM: u32 = 11;

    fn frame(kind: u8, stream: u32, payload: &[u32]) -> Vec<u8> {
        let length = u8::try_from(payload.len() * 4).unwrap();
        let mut frame = vec![0, 0, length, kind, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload.iter().flat_map(|word| word.to_be_bytes()));
        frame
    }

    async fn answer_with(mut stream: TcpStream, answer: Vec<u8>) -> io::Result<()> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        stream.write_all(&frame(SETTINGS, 0, &[])).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await?;
            if head[3] == HEADERS {
                stream.write_all(&answer).await?;
                // What comes after is read up to the client's end, or closing would reset.
                stream.shutdown().await?;
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
                return Ok(());
            }
        }
    }

    async fn error_after(answer: Vec<u8>) -> hyper_util::client::legacy::Error {
        let (address, _) = serve(move |stream| answer_with(stream, answer.clone())).await;
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .retry_canceled_requests(false)
            .build_http::<Body>();
        let post = request(Method::POST, &format!("http://{address}/"));
        client.request(post).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_refused_stream_was_not_processed() {
        let refused = frame(RST_STREAM, 1, &[REFUSED_STREAM]);
        assert_eq!(read(error_after(refused).await), failed(Sent::No));
    }

    #[tokio::test]
    async fn any_other_reset_and_every_goaway_is_ambiguous() {
        for answer in [
            frame(RST_STREAM, 1, &[CANCEL]),
            frame(RST_STREAM, 1, &[INTERNAL_ERROR]),
            frame(RST_STREAM, 1, &[NO_ERROR]),
            // The request is among those that the server still processes, and then it is gone.
            frame(GOAWAY, 0, &[1, NO_ERROR]),
            // It is not, but hyper gives requests that are processed the same error.
            frame(GOAWAY, 0, &[0, NO_ERROR]),
            frame(GOAWAY, 0, &[0, ENHANCE_YOUR_CALM]),
            frame(GOAWAY, 0, &[0, INTERNAL_ERROR]),
            Vec::new(),
        ] {
            let text = format!("{answer:?}");
            assert_eq!(
                read(error_after(answer).await),
                failed(Sent::Maybe),
                "{text}"
            );
        }
    }
}
