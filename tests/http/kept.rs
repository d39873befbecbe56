//! reqwest's own requests and responses through a stack, in both of its versions.

use std::{
    collections::VecDeque,
    future::IntoFuture,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request as Incoming, State},
};
use http::{HeaderMap, Response, header};
use http_body_util::BodyExt;
use tower_keep::{
    RejectedKind,
    gate::Shadow,
    protocol::{
        Advice, Sent,
        http::{Client, Idempotent},
    },
    rate_limit::{Rate, RateLimitLayer},
    reqwest::{Kept, KeptError},
    retry::{Backoff, Jitter, RetryBuilder},
    stack::{self, ClientStack},
    timeout::TimeoutLayer,
};

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
        let url = format!("http://{}/orders?id=7", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, app).into_future());
        (upstream, url)
    }

    fn bodies(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|(_, body)| body.clone()).collect()
    }

    fn lengths(&self) -> Vec<Option<String>> {
        let calls = self.calls.lock().unwrap();
        let length =
            |head: &HeaderMap| Some(head.get(header::CONTENT_LENGTH)?.to_str().ok()?.into());
        calls.iter().map(|(head, _)| length(head)).collect()
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
        Some(status) => {
            let response = Response::builder().status(status);
            response.body(axum::body::Body::empty()).unwrap()
        }
    }
}

fn old() -> reqwest_012::Client {
    let client = reqwest_012::Client::builder().no_proxy();
    client.build().unwrap()
}

fn new() -> reqwest_013::Client {
    let client = reqwest_013::Client::builder().no_proxy();
    client.build().unwrap()
}

fn quick() -> ClientStack<Client> {
    let retry = |retry: RetryBuilder| {
        let (base, max) = (Duration::from_millis(1), Duration::from_millis(9));
        retry.backoff(Backoff::new(base, max, Jitter::default()).unwrap())
    };
    stack::client().http().retry(retry).build().unwrap()
}

#[tokio::test]
async fn a_body_of_reqwests_is_sent_again() {
    let order = "three apples";
    let expected = [Some("12".to_owned()), Some("12".to_owned())];

    let (upstream, url) = Upstream::serve(&[503]).await;
    let (client, stack) = (new(), quick());
    let kept = Kept::new(client.clone(), &stack);
    let response = kept.send(client.put(&url).body(order)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().as_str()),
        (200, &*url)
    );
    assert!(response.remote_addr().is_some());
    assert_eq!(response.text().await.unwrap(), order);
    assert_eq!(
        (upstream.bodies(), upstream.lengths()),
        (vec![order.into(); 2], expected.to_vec())
    );
    assert_eq!(stack.handle().snapshot().retry.retries, 1);

    let (upstream, url) = Upstream::serve(&[503]).await;
    let (client, stack) = (old(), quick());
    let kept = Kept::new(client.clone(), &stack);
    let response = kept.send(client.put(&url).body(order)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().as_str()),
        (200, &*url)
    );
    assert!(response.remote_addr().is_some());
    assert_eq!(response.text().await.unwrap(), order);
    assert_eq!(
        (upstream.bodies(), upstream.lengths()),
        (vec![order.into(); 2], expected.to_vec())
    );
}

#[tokio::test]
async fn a_post_is_sent_again_only_if_it_may() {
    let (upstream, url) = Upstream::serve(&[503, 503]).await;
    let (client, stack) = (new(), quick());
    let kept = Kept::new(client.clone(), &stack);
    let post = || client.post(&url).body("one").build().unwrap();
    assert_eq!(kept.execute(post()).await.unwrap().status(), 503);
    assert_eq!(upstream.bodies().len(), 1);
    let marked = kept.execute_with(post(), |extensions| {
        extensions.insert(Idempotent);
    });
    assert_eq!(marked.await.unwrap().status(), 200);
    assert_eq!(upstream.bodies().len(), 3);

    let (upstream, url) = Upstream::serve(&[503]).await;
    let client = old();
    let kept = Kept::new(client.clone(), &quick());
    let post = client
        .post(&url)
        .header("idempotency-key", "7")
        .body("one")
        .build();
    assert_eq!(kept.execute(post.unwrap()).await.unwrap().status(), 200);
    assert_eq!(upstream.bodies(), ["one", "one"]);
}

#[tokio::test]
async fn rejections_and_errors_keep_their_types() {
    let (_, url) = Upstream::serve(&[]).await;
    let (client, stack) = (new(), quick());
    let kept = Kept::new(client.clone(), &stack);
    assert_eq!(kept.send(client.get(&url)).await.unwrap().status(), 200);
    for (_, circuit) in stack.handle().circuit_breaker.keys() {
        circuit.force_open();
    }
    let error = kept.send(client.get(&url)).await.unwrap_err();
    assert_eq!(error.rejected().unwrap().kind, RejectedKind::CircuitOpen);
    let error = kept.send(client.get("no url")).await.unwrap_err();
    assert!(matches!(error, KeptError::Inner(error) if error.is_builder()));
    let error = kept
        .send(client.get("http://127.0.0.1:1/"))
        .await
        .unwrap_err();
    assert!(matches!(error, KeptError::Inner(error) if error.is_connect()));

    let client = old();
    let kept = Kept::new(client.clone(), &quick());
    let error = kept
        .send(client.get("http://127.0.0.1:1/"))
        .await
        .unwrap_err();
    assert!(matches!(error, KeptError::Inner(error) if error.is_connect()));
}

#[tokio::test]
async fn a_requests_timeout_is_that_of_each_attempt() {
    let (upstream, url) = Upstream::serve(&[0]).await;
    let client = new();
    let kept = Kept::new(client.clone(), &quick());
    let get = client.get(&url).timeout(Duration::from_millis(50));
    assert_eq!(kept.send(get).await.unwrap().status(), 200);
    assert_eq!(upstream.bodies().len(), 2);

    let (upstream, url) = Upstream::serve(&[0]).await;
    let client = old();
    let kept = Kept::new(client.clone(), &quick());
    let get = client.get(&url).timeout(Duration::from_millis(50));
    assert_eq!(kept.send(get).await.unwrap().status(), 200);
    assert_eq!(upstream.bodies().len(), 2);
}

#[tokio::test]
async fn a_layer_that_wraps_the_body_keeps_it_readable() {
    let (_, url) = Upstream::serve(&[]).await;
    let timeout = TimeoutLayer::builder(Duration::from_secs(5))
        .protocol(Client::new())
        .until_body_end()
        .build()
        .unwrap();
    let client = new();
    let kept = Kept::new(client.clone(), &timeout);
    let response = kept.send(client.put(&url).body("apples")).await.unwrap();
    assert_eq!(response.url().as_str(), url);
    assert_eq!(response.text().await.unwrap(), "apples");
}

#[tokio::test]
async fn calls_run_in_tasks() {
    let (upstream, url) = Upstream::serve(&[]).await;
    let client = new();
    let kept = Arc::new(Kept::new(client.clone(), &quick()));
    let tasks = (0..4).map(|_| {
        let (kept, get) = (kept.clone(), client.get(&url));
        tokio::spawn(async move { kept.send(get).await.map(|response| response.status()) })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().unwrap(), 200);
    }
    assert_eq!(upstream.bodies().len(), 4);
}

/// A token that is fetched for the retry, and gates in audit, beneath reqwest's own requests.
#[tokio::test]
async fn a_token_is_fetched_for_reqwests_retry() {
    async fn renewed(mut head: http::request::Parts) -> http::request::Parts {
        tokio::task::yield_now().await;
        let fresh = "Bearer fresh".parse().unwrap();
        head.headers.insert(header::AUTHORIZATION, fresh);
        head
    }
    let stack = || {
        let unauthorized = |client: Client| {
            let advise = |status, _: &_| {
                let again = Advice::Retry {
                    sent: Sent::No,
                    after: None,
                };
                (status == http::StatusCode::UNAUTHORIZED).then_some(again)
            };
            client.advise(advise).before_retry_async(renewed)
        };
        let trial = RateLimitLayer::builder(Rate::per_day(1)).burst(1).gate();
        let trial = Shadow::new(trial.unwrap(), "one");
        let retry = |retry: RetryBuilder| retry.backoff(Backoff::none());
        let stack = stack::client().http().retry(retry).protocol(unauthorized);
        (trial.handle(), stack.build().unwrap().audit(trial))
    };
    let tokens = |upstream: &Upstream| {
        let calls = upstream.calls.lock().unwrap();
        let tokens = calls
            .iter()
            .map(|(head, _)| head[header::AUTHORIZATION].clone());
        tokens.collect::<Vec<_>>()
    };

    let (upstream, url) = Upstream::serve(&[401]).await;
    let ((trial, stack), client) = (stack(), new());
    let kept = Kept::new(client.clone(), &stack);
    let order = client.post(&url).bearer_auth("stale").body("tea");
    assert_eq!(kept.send(order).await.unwrap().text().await.unwrap(), "tea");
    assert_eq!(tokens(&upstream), ["Bearer stale", "Bearer fresh"]);
    let tried = trial.snapshot();
    assert_eq!(
        (
            tried.calls,
            tried.would_reject.of(RejectedKind::RateLimited)
        ),
        (2, 1)
    );

    let (upstream, url) = Upstream::serve(&[401]).await;
    let client = old();
    let kept = Kept::new(client.clone(), &stack);
    let order = client.post(&url).bearer_auth("stale").body("tea");
    assert_eq!(kept.send(order).await.unwrap().text().await.unwrap(), "tea");
    assert_eq!(tokens(&upstream), ["Bearer stale", "Bearer fresh"]);
    assert_eq!(trial.snapshot().calls, 4);
}
