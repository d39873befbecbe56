//! What a user says of single requests and responses over HTTP.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    protocol::{
        Advice, Sent,
        http::{Client, Idempotent, NotIdempotent, ReplayBody},
    },
    retry::{Backoff, RetryLayer},
};

type Known = Full<Bytes>;

/// The status of the answer, and the bodies that were sent to an upstream which answers so at
/// first, and then with 200.
async fn sent(client: Client, first: u16, request: Request<Known>) -> (u16, Vec<Bytes>) {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let retry = RetryLayer::builder()
        .protocol(client)
        .backoff(Backoff::constant(Duration::from_millis(70)))
        .build()
        .unwrap();
    let service = retry.layer(service_fn(move |request: Request<ReplayBody<Known>>| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let mut seen = seen.lock().unwrap();
            seen.push(body);
            let status = if seen.len() == 1 { first } else { 200 };
            let response = Response::builder().status(status);
            let response = response.header("x-ratelimit-remaining", "0");
            Ok::<_, BoxError>(response.body(Known::default())?)
        }
    }));
    let status = service.oneshot(request).await.unwrap().status().as_u16();
    let bodies = bodies.lock().unwrap().clone();
    (status, bodies)
}

fn request(method: Method, path: &str) -> Request<Known> {
    let request = Request::builder().method(method);
    let request = request.uri(format!("http://a.example{path}"));
    request.body(Full::from("one")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_closure_declares_requests_idempotent() {
    let searches = ["/search".to_owned()];
    let client = Client::new()
        .idempotent_when(move |head| searches.iter().any(|path| head.uri.path() == path));
    let search = sent(client, 503, request(Method::POST, "/search")).await;
    assert_eq!(search, (200, vec!["one".into(); 2]));
    let order = sent(client, 503, request(Method::POST, "/orders")).await;
    assert_eq!(order, (503, vec!["one".into()]));
    // What the method says stays.
    let put = sent(client, 503, request(Method::PUT, "/orders")).await;
    assert_eq!(put, (200, vec!["one".into(); 2]));
}

#[tokio::test(start_paused = true)]
async fn one_request_may_say_that_it_is_not_idempotent() {
    let client = Client::new().idempotent_when(|_| true);
    for method in [Method::GET, Method::PUT, Method::POST] {
        let mut marked = request(method, "/");
        marked.extensions_mut().insert(NotIdempotent);
        marked.extensions_mut().insert(Idempotent);
        marked
            .headers_mut()
            .insert("idempotency-key", "7".parse().unwrap());
        assert_eq!(sent(client, 503, marked).await, (503, vec!["one".into()]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_may_be_declared_as_not_processed() {
    let client = Client::new().advise(|status, _| {
        let unprocessed = Advice::Retry {
            sent: Sent::No,
            after: None,
        };
        (status == StatusCode::TOO_MANY_REQUESTS).then_some(unprocessed)
    });
    let post = || request(Method::POST, "/");
    assert_eq!(
        sent(client, 429, post()).await,
        (200, vec!["one".into(); 2])
    );
    assert_eq!(sent(client, 503, post()).await, (503, vec!["one".into()]));
    assert_eq!(
        sent(Client::new(), 429, post()).await,
        (429, vec!["one".into()])
    );
    let mut marked = post();
    marked.extensions_mut().insert(NotIdempotent);
    assert_eq!(sent(client, 429, marked).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn advice_reads_status_and_fields() {
    let quota = Client::new().advise(|status, fields| {
        let used_up = fields
            .get("x-ratelimit-remaining")
            .is_some_and(|left| left == "0");
        let after = Some(Duration::from_secs(2));
        (status == StatusCode::FORBIDDEN && used_up).then_some(Advice::Retry {
            sent: Sent::Maybe,
            after,
        })
    });
    assert_eq!(sent(quota, 403, request(Method::GET, "/")).await.0, 200);
    assert_eq!(sent(quota, 403, request(Method::POST, "/")).await.0, 403);
    assert_eq!(sent(quota, 404, request(Method::GET, "/")).await.0, 404);
    let never = Client::new().advise(|status, _| (status == 503).then_some(Advice::Stop));
    assert_eq!(sent(never, 503, request(Method::GET, "/")).await.0, 503);
    assert_eq!(sent(never, 502, request(Method::GET, "/")).await.0, 200);
}
