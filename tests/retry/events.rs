//! Who is told of retries, and of what.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::Full;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    Outcome, Run,
    protocol::{Plain, http::Client},
    retry::{Backoff, RetryEvent, RetryLayer},
    stack,
};

const WAIT: Duration = Duration::from_millis(70);

type Told = Arc<Mutex<Vec<(u32, Duration, Outcome, Option<u16>, String)>>>;

fn note(told: &Told) -> impl Fn(&RetryEvent<'_>) + Send + Sync + 'static {
    let told = told.clone();
    move |retry| {
        let head = retry
            .request()
            .map(|head: &Parts| head.uri.path().to_owned());
        let words = format!("{}: {retry}", head.unwrap_or_default());
        let now = (
            retry.attempt,
            retry.wait,
            retry.outcome,
            retry.status,
            words,
        );
        told.lock().unwrap().push(now);
    }
}

async fn fails(status: u16) -> Result<Response<Full<Bytes>>, BoxError> {
    match status {
        0 => Err(io::Error::other("reset").into()),
        status => Ok(Response::builder().status(status).body(Full::default())?),
    }
}

fn request() -> Request<Full<Bytes>> {
    Request::get("http://a.example/orders/7")
        .body(Full::default())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_told_of_each_retry_over_http() {
    let told = Told::default();
    let retry = RetryLayer::builder()
        .protocol(Client::new())
        .backoff(Backoff::constant(WAIT))
        .on_retry(note(&told))
        .build()
        .unwrap();
    let service = retry.layer(service_fn(|_| fails(503)));
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 503);
    let words = "/orders/7: 503 Service Unavailable".to_owned();
    let first = (1, WAIT, Outcome::Failure, Some(503), words.clone());
    assert_eq!(
        *told.lock().unwrap(),
        [first, (2, WAIT, Outcome::Failure, Some(503), words)]
    );

    told.lock().unwrap().clear();
    let service = retry.layer(service_fn(|_| fails(0)));
    assert!(service.oneshot(request()).await.is_err());
    let (attempt, _, outcome, status, words) = told.lock().unwrap()[0].clone();
    assert_eq!((attempt, outcome, status), (1, Outcome::Failure, None));
    assert_eq!(words, "/orders/7: reset");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_what_is_not_retried() {
    let told = Told::default();
    let retry = RetryLayer::builder()
        .protocol(Client::new())
        .on_retry(note(&told));
    let retry = retry.attempts(1).build().unwrap();
    for status in [200, 404, 503] {
        let service = retry.layer(service_fn(move |_| fails(status)));
        service.oneshot(request()).await.unwrap();
    }
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_a_stack_knows_the_head_and_the_error() {
    let told = Told::default();
    let hook = note(&told);
    let stack = stack::client()
        .http()
        .retry(|retry| retry.attempts(2).on_retry(hook));
    let stack = stack.build().unwrap();
    let service = stack.layer(service_fn(|_| fails(502)));
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 502);
    let (attempt, _, outcome, status, words) = told.lock().unwrap()[0].clone();
    assert_eq!((attempt, outcome, status), (1, Outcome::Failure, Some(502)));
    assert_eq!(words, "/orders/7: 502 Bad Gateway");
}

#[tokio::test(start_paused = true)]
async fn a_hook_sees_errors_as_errors() {
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let noted = kinds.clone();
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .name("db")
        .on_retry(move |retry| {
            let error = retry
                .error
                .and_then(|error| error.downcast_ref::<io::Error>());
            noted
                .lock()
                .unwrap()
                .push((retry.name, error.map(io::Error::kind)));
        })
        .build()
        .unwrap();
    let down = async |_: u32| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused));
    assert!(retry.layer(service_fn(down)).oneshot(7).await.is_err());
    let expected = (Some("db"), Some(io::ErrorKind::ConnectionRefused));
    assert_eq!(*kinds.lock().unwrap(), [expected; 2]);
    // Of a function's own error nothing is known but that it was one.
    assert!(retry.run(down).await.is_err());
    assert_eq!(kinds.lock().unwrap()[2], (Some("db"), None));
}
