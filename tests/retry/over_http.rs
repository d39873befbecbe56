//! Retries and hedges over real connections: HTTP/1 and HTTP/2, on loopback.
//!
//! Connections do not wait for a paused clock, so these tests take the milliseconds that they say.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::TRAILER};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};

use tower_keep::{
    algorithm::{Backoff, Jitter},
    hedge::HedgeLayer,
    protocol::{
        Chosen,
        http::{self as keep_http, ReplayBody},
    },
    retry::{RetryBuilder, RetryLayer},
};

type Body = BoxBody<Bytes, Infallible>;

/// The bodies that reached a server.
type Seen = Arc<Mutex<Vec<(Bytes, Option<HeaderMap>)>>>;

/// A server of both versions that records each body and answers with a status, which `status` tells
/// by the number of the request, from 0, after it has waited as long.
async fn serve(status: fn(usize) -> (StatusCode, Duration)) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let recording = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = recording.clone();
        async move {
            let body = request.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned();
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push((body.to_bytes(), trailers));
                seen.len() - 1
            };
            let (status, delay) = status(number);
            sleep(delay).await;
            let response = Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
        }
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, seen)
}

fn connect<B>(http2: bool) -> Client<HttpConnector, B>
where
    B: http_body::Body<Data = Bytes> + Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector)
}

/// Three attempts, next to no wait.
fn retry(protocol: keep_http::Client) -> RetryBuilder<Chosen<keep_http::Client>> {
    let millis = Duration::from_millis;
    let backoff = Backoff::new(millis(1), millis(2), Jitter::Full).unwrap();
    RetryLayer::builder().protocol(protocol).backoff(backoff)
}

fn down(_: usize) -> (StatusCode, Duration) {
    (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO)
}

/// How many requests reach a server that is down, for each that was made.
async fn reach_a_server_that_is_down(builder: RetryBuilder<Chosen<keep_http::Client>>) -> f64 {
    const REQUESTS: usize = 300;
    let (address, seen) = serve(down).await;
    let layer = builder.build().unwrap();
    let service = layer.layer(connect::<ReplayBody<Empty<Bytes>>>(false));
    for _ in 0..REQUESTS {
        let request = Request::get(format!("http://{address}/"))
            .body(Empty::new())
            .unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let reached = seen.lock().unwrap().len();
    reached as f64 / REQUESTS as f64
}

#[tokio::test]
async fn the_budget_bounds_calls_to_a_server_that_is_down() {
    let client = || retry(keep_http::Client::new());
    let with = reach_a_server_that_is_down(client()).await;
    assert!((1.01..1.1).contains(&with), "{with}");
    let without = reach_a_server_that_is_down(client().without_budget()).await;
    assert!(without > 2.5, "{without}");
}

/// A generator of the kind of `SplitMix64`, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((word ^ (word >> 31)) % end as u64).unwrap()
    }
}

/// An upload in frames of any length, empty ones too, with or without trailers.
struct Upload {
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Upload {
    fn random(random: &mut Random) -> Self {
        let longest = [2, 100, 5000][random.below(3)];
        let frames = (0..random.below(12)).map(|_| {
            let length = random.below(longest);
            let letters = b"abcdefghijklmnopqrstuvwxyz";
            (0..length).map(|_| letters[random.below(26)]).collect()
        });
        let frames = frames.collect();
        let trailers = (random.below(2) == 0).then(|| {
            let value = HeaderValue::from(random.below(1000));
            HeaderMap::from_iter([("x-sum".parse().unwrap(), value)])
        });
        Self { frames, trailers }
    }

    fn data(&self) -> Bytes {
        self.frames.concat().into()
    }

    fn request(&self, address: SocketAddr) -> Request<Body> {
        let data = self.frames.iter().cloned().map(Frame::data);
        let trailers = self.trailers.iter().cloned().map(Frame::trailers);
        let frames: Vec<_> = data.chain(trailers).map(Ok).collect();
        Request::put(format!("http://{address}/"))
            .header(TRAILER, "x-sum")
            .body(StreamBody::new(stream::iter(frames)).boxed())
            .unwrap()
    }
}

/// Sends an upload through a retry, to a server that is down; what reached it.
async fn reached(
    upload: &Upload,
    limit: usize,
    (address, seen): &(SocketAddr, Seen),
    client: &Client<HttpConnector, ReplayBody<Body>>,
) -> Vec<(Bytes, Option<HeaderMap>)> {
    seen.lock().unwrap().clear();
    let protocol = keep_http::Client::new().body_limit(limit);
    let layer = retry(protocol).build().unwrap();
    let service = layer.layer(client.clone());
    let response = service.oneshot(upload.request(*address)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    std::mem::take(&mut *seen.lock().unwrap())
}

#[tokio::test]
async fn an_upload_is_replayed_exactly_whatever_its_frames() {
    for http2 in [false, true] {
        let server = serve(down).await;
        for seed in 0..100 {
            // h2 closes connections on which it gets many small frames, so each case has its own.
            let client = connect(http2);
            let mut random = Random(seed);
            let upload = Upload::random(&mut random);
            let data = upload.data();
            let limit = [0, data.len() / 2, data.len() + 1000][random.below(3)];
            let reached = reached(&upload, limit, &server, &client).await;
            let case = format!("seed {seed}, HTTP/2: {http2}, {} attempts", reached.len());
            let fits = limit >= data.len() + 1000;
            if fits {
                assert_eq!(reached.len(), 3, "{case}");
            } else if data.len() > limit {
                assert_eq!(reached.len(), 1, "{case}");
            }
            for (body, trailers) in reached {
                assert!(body == data, "{case}: another body");
                assert_eq!(trailers, upload.trailers, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_hedge_overtakes_a_slow_replica() {
    let (address, seen) = serve(|number| {
        let slow = Duration::from_secs(if number == 0 { 60 } else { 0 });
        (StatusCode::OK, slow)
    })
    .await;
    for http2 in [false, true] {
        seen.lock().unwrap().clear();
        let layer = HedgeLayer::builder()
            .protocol(keep_http::Client::new())
            .delay(Duration::from_millis(20))
            .build()
            .unwrap();
        let service = layer.layer(connect::<ReplayBody<Empty<Bytes>>>(http2));
        let request = Request::get(format!("http://{address}/"))
            .body(Empty::new())
            .unwrap();
        let response = timeout(Duration::from_secs(10), service.oneshot(request)).await;
        assert_eq!(
            response.expect("the hedge").unwrap().status(),
            StatusCode::OK
        );
        assert_eq!(seen.lock().unwrap().len(), 2, "HTTP/2: {http2}");
    }
}
