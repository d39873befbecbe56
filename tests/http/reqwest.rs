//! `http::Client`'s layers over reqwest's client, in both of its versions.

use std::{
    collections::VecDeque,
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, Mutex},
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
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::http::{Client, ReplayBody, UntilBodyEnd},
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
async fn redirects_are_one_call_and_too_many_are_not_retried() {
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
