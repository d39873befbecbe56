//! `http::Client`'s layers over reqwest's client, in both of its versions.

use std::{
    collections::VecDeque,
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request as Incoming, State},
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::{
        Protocol,
        http::{Client, ReplayBody, UntilBodyEnd},
    },
    rate_limit::{Rate, RateLimitLayer},
    reqwest::Reqwest,
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

/// A request body whose length is known.
type Known = Full<Bytes>;

/// What both versions have in common, with a body `B` on the way out.
trait Sends<B>:
    Service<Request<B>, Response = Response<Self::Body>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
}

impl<S, A, B> Sends<A> for S
where
    S: Service<Request<A>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Body = B;
}

/// The two clients.
fn old() -> Reqwest<reqwest_012::Client> {
    Reqwest::new(reqwest_012::Client::builder().no_proxy().build().unwrap())
}

fn new() -> Reqwest<reqwest_013::Client> {
    Reqwest::new(reqwest_013::Client::builder().no_proxy().build().unwrap())
}

/// A server that answers with these statuses, and then echoes; and the calls that it got.
#[derive(Clone, Default)]
struct Upstream {
    statuses: Arc<Mutex<VecDeque<u16>>>,
    calls: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Upstream {
    async fn serve(statuses: &[u16]) -> (Self, String) {
        let upstream = Self::default();
        upstream.statuses.lock().unwrap().extend(statuses);
        let app = Router::new().fallback(answer).with_state(upstream.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, app).into_future());
        (upstream, url)
    }

    fn bodies(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|(_, body)| body.clone()).collect()
    }
}

async fn answer(State(upstream): State<Upstream>, request: Incoming) -> Response<axum::body::Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    upstream.calls.lock().unwrap().push((head.headers, text));
    let status = upstream.statuses.lock().unwrap().pop_front();
    match status {
        None => Response::new(body.into()),
        // Never answers.
        Some(0) => std::future::pending().await,
        Some(status) => Response::builder()
            .status(status)
            .header(header::LOCATION, "/")
            .body(axum::body::Body::empty())
            .unwrap(),
    }
}

fn post(url: &str) -> Request<Known> {
    let request = Request::post(url).header("idempotency-key", "7");
    request.body(Full::from("hello")).unwrap()
}

fn get(url: &str) -> Request<Known> {
    Request::get(url).body(Full::default()).unwrap()
}

/// The status and the text of an answer.
async fn read<B>(response: Response<B>) -> (StatusCode, String)
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Into::into);
    let text = String::from_utf8(body.unwrap().to_bytes().to_vec());
    (status, text.unwrap())
}

/// A port on which nothing listens.
async fn unused() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_whole() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let (upstream, url) = Upstream::serve(&[503, 502]).await;
        let retry = RetryLayer::builder().protocol(Client::new());
        let service = retry.build().unwrap().layer(client);
        let response = service.oneshot(post(&url)).await.unwrap();
        assert_eq!(read(response).await, (StatusCode::OK, "hello".to_owned()));
        assert_eq!(upstream.bodies(), ["hello"; 3]);
        for (headers, _) in upstream.calls.lock().unwrap().iter() {
            assert_eq!(headers["idempotency-key"], "7");
            // The length is known, so nothing is sent in chunks.
            assert_eq!(headers[header::CONTENT_LENGTH], "5");
        }
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_streamed_request_is_sent_again_whole() {
    type Parts = futures::stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, BoxError>, 2>>;

    async fn case(client: impl Sends<ReplayBody<StreamBody<Parts>>>) {
        let (upstream, url) = Upstream::serve(&[503]).await;
        let retry = RetryLayer::builder().protocol(Client::new());
        let service = retry.build().unwrap().layer(client);
        let parts = ["hel", "lo"].map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        let body = StreamBody::new(futures::stream::iter(parts));
        let request = Request::put(&url).body(body).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(read(response).await, (StatusCode::OK, "hello".to_owned()));
        assert_eq!(upstream.bodies(), ["hello"; 2]);
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_post_that_may_have_been_sent_is_not_sent_again() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let (upstream, url) = Upstream::serve(&[503]).await;
        let retry = RetryLayer::builder().protocol(Client::new());
        let service = retry.build().unwrap().layer(client);
        let mut request = post(&url);
        request.headers_mut().clear();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(upstream.bodies(), ["hello"]);
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_retried_whatever_the_method() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let layer = RetryLayer::builder().attempts(2).protocol(Client::new());
        let layer = layer.build().unwrap();
        let mut request = post(&format!("http://{}/", unused().await));
        request.headers_mut().clear();
        layer.layer(client).oneshot(request).await.err().unwrap();
        assert_eq!(layer.handle().snapshot().retries, 1);
    }
    case(old()).await;
    case(new()).await;
}

/// A server that sends all to another place, and counts its calls. `closes`: it takes no connection
/// after the first, which ends with the answer.
async fn redirects(status: u16, to: Option<String>, closes: bool) -> (Arc<AtomicUsize>, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let to = to.unwrap_or_else(|| url.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    tokio::spawn(async move {
        let mut listener = Some(listener);
        while let Some(open) = &listener {
            let (mut stream, _) = open.accept().await.unwrap();
            if closes {
                listener = None;
            }
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = format!(
                "HTTP/1.1 {status} Elsewhere\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (calls, url)
}

fn bare_post(url: &str, body: &'static str) -> Request<Known> {
    Request::post(url).body(Full::from(body)).unwrap()
}

/// How many retries a POST gets.
async fn retries<C>(client: C, request: Request<Known>) -> u64
where
    C: Service<Request<ReplayBody<Known>>, Error: Into<BoxError>> + Clone,
    Client: Protocol<C::Response, C::Error, Error = BoxError>,
{
    let layer = RetryLayer::builder().protocol(Client::new());
    let layer = layer.build().unwrap();
    assert!(layer.layer(client).oneshot(request).await.is_err());
    layer.handle().snapshot().retries
}

#[tokio::test(start_paused = true)]
async fn a_post_whose_redirect_fails_is_sent_once() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let closed = format!("http://{}/", unused().await);
        for (status, body) in [
            (301, "hello"),
            (302, "hello"),
            (303, "hello"),
            (301, ""),
            (302, ""),
            (303, ""),
            // With a body reqwest does not follow these.
            (307, ""),
            (308, ""),
        ] {
            let (calls, url) = redirects(status, Some(closed.clone()), false).await;
            let again = retries(client.clone(), bare_post(&url, body)).await;
            let calls = calls.load(Ordering::Relaxed);
            assert_eq!((again, calls), (0, 1), "{status} {body}");
        }
        // Where the second URL is the first, no comparison tells the two requests apart.
        let (calls, url) = redirects(303, None, true).await;
        let again = retries(client, bare_post(&url, "")).await;
        assert_eq!((again, calls.load(Ordering::Relaxed)), (0, 1));
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_post_that_found_no_connection_is_retried() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let closed = format!("http://{}/", unused().await);
        for body in ["hello", ""] {
            let request = bare_post(&closed, body);
            assert_eq!(retries(client.clone(), request).await, 2, "{body}");
        }
    }
    case(old()).await;
    case(new()).await;
}

/// Without the adapter nobody has watched the body.
#[tokio::test(start_paused = true)]
async fn an_error_of_reqwests_alone_is_no_proof() {
    let closed = format!("http://{}/", unused().await);
    let (calls, url) = redirects(303, Some(closed.clone()), false).await;
    for url in [url, closed] {
        let client = reqwest_013::Client::builder().no_proxy().build().unwrap();
        let by_hand = tower::service_fn(move |request: Request<ReplayBody<Known>>| {
            let call = client.post(request.uri().to_string()).send();
            async { call.await.map(Response::<reqwest_013::Body>::from) }
        });
        assert_eq!(retries(by_hand, bare_post(&url, "")).await, 0, "{url}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn reqwests_own_error_is_at_hand() {
    let closed = format!("http://{}/", unused().await);
    let error = new().oneshot(bare_post(&closed, "")).await.unwrap_err();
    assert!(error.is_connect());
    assert_eq!(error.to_string(), (*error).to_string());
    assert!(
        std::error::Error::source(&error).is_some_and(|error| error.is::<reqwest_013::Error>())
    );
    assert_eq!(error.into_inner().url().unwrap().as_str(), closed);
}

#[tokio::test(start_paused = true)]
async fn reqwests_own_timeout_is_retried() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let (upstream, url) = Upstream::serve(&[0]).await;
        let retry = RetryLayer::builder().protocol(Client::new());
        let service = retry.build().unwrap().layer(client);
        let response = service.oneshot(post(&url)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(upstream.bodies().len(), 2);
    }
    let second = Duration::from_secs(1);
    let client = reqwest_012::Client::builder().no_proxy().timeout(second);
    case(Reqwest::new(client.build().unwrap())).await;
    let client = reqwest_013::Client::builder().no_proxy().timeout(second);
    case(Reqwest::new(client.build().unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_made_is_not_retried() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        for url in ["/only/a/path", "example.com:80", "ftp://example.com/"] {
            let layer = RetryLayer::builder().protocol(Client::new());
            let layer = layer.build().unwrap();
            layer
                .layer(client.clone())
                .oneshot(get(url))
                .await
                .err()
                .unwrap();
            assert_eq!(layer.handle().snapshot().retries, 0, "{url}");
        }
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn redirects_are_one_call_too_many_are_not_retried() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let layer = RetryLayer::builder()
            .protocol(Client::new())
            .build()
            .unwrap();
        let (upstream, url) = Upstream::serve(&[307, 302]).await;
        let service = layer.layer(client);
        let response = service.clone().oneshot(get(&url)).await.unwrap();
        assert_eq!(
            (response.status(), upstream.bodies().len()),
            (StatusCode::OK, 3)
        );

        // Its body is with the retry, not with reqwest.
        let (upstream, url) = Upstream::serve(&[307]).await;
        let response = service.clone().oneshot(post(&url)).await.unwrap();
        let status = StatusCode::TEMPORARY_REDIRECT;
        assert_eq!((response.status(), upstream.bodies().len()), (status, 1));

        let (_, url) = Upstream::serve(&[302; 100]).await;
        service.oneshot(get(&url)).await.err().unwrap();
        assert_eq!(layer.handle().snapshot().retries, 0);
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn reqwest_itself_may_resend_what_has_no_body() {
    async fn case(client: impl Sends<Known>) {
        for (request, calls) in [(get as fn(&str) -> _, 2), (post, 1)] {
            let (upstream, url) = Upstream::serve(&[503]).await;
            client.clone().oneshot(request(&url)).await.ok().unwrap();
            assert_eq!(upstream.bodies().len(), calls);
        }
    }
    let retry = reqwest_012::retry::for_host("127.0.0.1").no_budget();
    let retry = retry.classify_fn(|answer| match answer.status() {
        Some(StatusCode::SERVICE_UNAVAILABLE) => answer.retryable(),
        _ => answer.success(),
    });
    let client = reqwest_012::Client::builder().no_proxy().retry(retry);
    case(Reqwest::new(client.build().unwrap())).await;
    let retry = reqwest_013::retry::for_host("127.0.0.1").no_budget();
    let retry = retry.classify_fn(|answer| match answer.status() {
        Some(StatusCode::SERVICE_UNAVAILABLE) => answer.retryable(),
        _ => answer.success(),
    });
    let client = reqwest_013::Client::builder().no_proxy().retry(retry);
    case(Reqwest::new(client.build().unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_and_tells_why() {
    async fn case(client: impl Sends<Known>) {
        let (upstream, url) = Upstream::serve(&[500]).await;
        let breaker = CircuitBreakerLayer::builder().min_calls(1);
        let layer = breaker.protocol(Client::new()).build().unwrap();
        let service = layer.layer(client);
        let response = service.clone().oneshot(get(&url)).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let error = service.oneshot(get(&url)).await.err().unwrap();
        let rejected = Rejected::find(&*error).unwrap();
        assert_eq!(rejected.kind, RejectedKind::CircuitOpen);
        assert_eq!(upstream.bodies().len(), 1);
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_may_count_until_the_end_of_the_body() {
    async fn case(client: impl Sends<Known>) {
        let (_, url) = Upstream::serve(&[]).await;
        let protocol = UntilBodyEnd::new(Client::new());
        let layer = BulkheadLayer::builder(1)
            .protocol(protocol)
            .build()
            .unwrap();
        let service = layer.layer(client);
        let response = service.clone().oneshot(post(&url)).await.unwrap();
        let error = service.clone().oneshot(post(&url)).await.err().unwrap();
        let rejected = Rejected::find(&*error).unwrap();
        assert_eq!(rejected.kind, RejectedKind::BulkheadFull);
        assert_eq!(read(response).await.1, "hello");
        service.oneshot(post(&url)).await.unwrap();
    }
    case(old()).await;
    case(new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_stack_stands_over_it() {
    async fn case(client: impl Sends<ReplayBody<Known>>) {
        let (upstream, url) = Upstream::serve(&[503, 0]).await;
        let protocol = Client::new();
        let second = Duration::from_secs(1);
        let retry = RetryLayer::builder().protocol(protocol).build().unwrap();
        let breaker = CircuitBreakerLayer::builder().protocol(protocol).build();
        let limit = RateLimitLayer::builder(Rate::per_second(1000)).protocol(protocol);
        let total = TimeoutLayer::builder(60 * second).protocol(protocol);
        let attempt = TimeoutLayer::builder(second).protocol(protocol);
        let bulkhead = BulkheadLayer::builder(10).protocol(protocol).build();
        let stack = ServiceBuilder::new()
            .layer(total.build().unwrap())
            .layer(retry.clone())
            .layer(breaker.unwrap())
            .layer(limit.build().unwrap())
            .layer(bulkhead.unwrap())
            .layer(attempt.build().unwrap())
            .service(client);
        // As a program would keep it.
        let mut stack = tower::util::BoxCloneSyncService::new(stack);
        let response = stack.ready().await.unwrap().call(post(&url)).await.unwrap();
        assert_eq!(read(response).await, (StatusCode::OK, "hello".to_owned()));
        assert_eq!(upstream.bodies(), ["hello"; 3]);
        assert_eq!(retry.handle().snapshot().retries, 2);
    }
    case(old()).await;
    case(new()).await;
}
