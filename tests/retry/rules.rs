//! What a user says of single requests and responses over HTTP.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
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

/// GitHub tells when its quota is full again as a time of the wall clock.
#[expect(clippy::disallowed_methods, reason = "the wall clock is what is told")]
#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_a_reset_told_as_a_time() {
    fn until(time: u64) -> Duration {
        let reset = UNIX_EPOCH + Duration::from_secs(time);
        reset.duration_since(SystemTime::now()).unwrap_or_default()
    }
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let github = Client::new().advise(|status, fields| {
        let number = |field: &str| fields.get(field)?.to_str().ok()?.parse().ok();
        let used_up = status == StatusCode::FORBIDDEN && number("x-ratelimit-remaining")? == 0;
        let after = until(number("x-ratelimit-reset")?);
        used_up.then_some(Advice::Retry {
            sent: Sent::No,
            after: Some(after),
        })
    });
    for (wait, remaining, statuses) in [
        (40, "0", (200, 2)),
        // A clock that is wrong, or a reset that has just passed: the backoff is waited for.
        (-40, "0", (200, 2)),
        // Longer than the longest hint that is waited for.
        (3600, "0", (403, 1)),
        (40, "7", (403, 1)),
    ] {
        let reset = now.saturating_add_signed(wait).to_string();
        let calls = Arc::new(Mutex::new(0));
        let seen = calls.clone();
        let retry = RetryLayer::builder().protocol(github);
        let retry = retry.max_retry_after(Duration::from_secs(60)).build();
        let service = retry.unwrap().layer(service_fn(move |_: Request<_>| {
            *seen.lock().unwrap() += 1;
            let status = if *seen.lock().unwrap() == 1 { 403 } else { 200 };
            let response = Response::builder().status(status);
            let response = response.header("x-ratelimit-remaining", remaining);
            let response = response.header("x-ratelimit-reset", &reset);
            let response = response.body(Known::default());
            async { Ok::<_, BoxError>(response?) }
        }));
        let start = tokio::time::Instant::now();
        let answer = service.oneshot(request(Method::POST, "/issues")).await;
        let status = answer.unwrap().status().as_u16();
        assert_eq!(
            (status, *calls.lock().unwrap()),
            statuses,
            "{wait} {remaining}"
        );
        if status == 200 && wait > 0 {
            assert!(start.elapsed() >= Duration::from_secs(38));
        }
    }
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
