//! A client's stack, its times set and all else by default, over hyper-util's client before an
//! nginx that has a bad day.

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, routing::any};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, Layer, ServiceExt, util::BoxCloneService};
use tower_keep::{
    Rejected, RejectedKind,
    circuit_breaker::BreakerState,
    stack::{self, ClientHandle},
};

use crate::nginx::Nginx;

type Stack = BoxCloneService<Request<Full<Bytes>>, StatusCode, BoxError>;

/// A client that gives an attempt 200 ms and a call one second.
fn client() -> (Stack, ClientHandle) {
    let stack = stack::client().http();
    let stack = stack.attempt_timeout(ATTEMPT).total_timeout(TOTAL);
    let stack = stack.build().unwrap();
    let handle = stack.handle();
    let service = stack.layer(Client::builder(TokioExecutor::new()).build_http());
    let service = service.map_response(|response| response.status());
    (BoxCloneService::new(service), handle)
}

fn request(method: Method, url: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(url);
    request.body(Full::from("a body")).unwrap()
}

async fn send(client: &Stack, method: Method, url: &str) -> Result<StatusCode, BoxError> {
    client.clone().oneshot(request(method, url)).await
}

/// A GET, and how long it took.
async fn get(client: &Stack, url: &str) -> (Result<StatusCode, BoxError>, Duration) {
    let start = Instant::now();
    let result = send(client, Method::GET, url).await;
    (result, start.elapsed())
}

fn rejection(result: &Result<StatusCode, BoxError>) -> Option<RejectedKind> {
    let error = result.as_ref().err()?;
    Rejected::find(&**error).map(|rejected| rejected.kind)
}

/// Calls until the circuit rejects.
async fn until_open(client: &Stack, url: &str) {
    for _ in 0..20 {
        let (result, time) = get(client, url).await;
        assert!(result.is_err(), "{result:?}");
        // The last failure may end some time after the second: the timer is late on a busy machine.
        assert!(time < TOTAL + SLACK, "{time:?}");
        if rejection(&result) == Some(RejectedKind::CircuitOpen) {
            return;
        }
    }
    panic!("the circuit did not open");
}

/// Calls every 20 ms until one is answered, and says how long that took.
async fn until_answered(client: &Stack, url: &str) -> Duration {
    let start = Instant::now();
    while get(client, url).await.0.is_err() {
        assert!(start.elapsed() < Duration::from_secs(30), "no recovery");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

/// What nginx passes requests on to: takes as long as it is told, and counts.
#[derive(Debug, Clone)]
struct Backend {
    address: SocketAddr,
    millis: Arc<AtomicU64>,
    calls: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            millis: Arc::default(),
            calls: Arc::default(),
            running: Arc::default(),
        };
        let own = backend.clone();
        let work = any(async move || own.work().await);
        let router = Router::new().fallback(work);
        tokio::spawn(axum::serve(listener, router).into_future());
        backend
    }

    async fn work(&self) -> &'static str {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self.running.clone());
        let millis = self.millis.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        "done"
    }

    fn takes(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.millis.store(millis, Ordering::SeqCst);
    }

    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn a_circuit_opens_when_nginx_stops_and_closes_again() {
    let mut nginx = Nginx::start("", "location / { return 204; }").await;
    let (client, handle) = client();
    let url = nginx.url("/");
    for _ in 0..20 {
        assert_eq!(get(&client, &url).await.0.unwrap(), 204);
    }

    nginx.stop();
    until_open(&client, &url).await;
    let (result, time) = get(&client, &url).await;
    assert_eq!(rejection(&result), Some(RejectedKind::CircuitOpen));
    assert!(time < Duration::from_millis(50), "not fast: {time:?}");

    nginx.start_again().await;
    let time = until_answered(&client, &url).await;
    // Open for a second at most, and a tenth of jitter.
    assert!(time < Duration::from_millis(1100) + SLACK, "{time:?}");
    for _ in 0..20 {
        assert_eq!(get(&client, &url).await.0.unwrap(), 204);
    }
    let circuit = handle.snapshot().circuits.remove(0).1;
    assert_eq!(circuit.state, BreakerState::Closed);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn a_restart_between_two_calls_costs_no_call() {
    let mut nginx = Nginx::start("", "location / { return 204; }").await;
    let (client, _handle) = client();
    let url = nginx.url("/");
    for _ in 0..5 {
        // Each connection of the pool is dead when the second round begins.
        let calls = (0..8).map(|_| send(&client, Method::GET, &url));
        for result in futures::future::join_all(calls).await {
            assert_eq!(result.unwrap(), 204);
        }
        nginx.stop();
        nginx.start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn attempts_to_a_slow_nginx_time_out_within_the_total() {
    let backend = Backend::start().await;
    let proxy = format!("location / {{ proxy_pass http://{}; }}", backend.address);
    let nginx = Nginx::start("", &proxy).await;
    let (client, handle) = client();
    let url = nginx.url("/");
    assert_eq!(get(&client, &url).await.0.unwrap(), 200);
    assert_eq!(backend.calls(), 1);

    backend.takes(Duration::from_secs(30));
    let (result, time) = get(&client, &url).await;
    assert_eq!(rejection(&result), Some(RejectedKind::TimedOut));
    assert!(time >= ATTEMPT, "{time:?}");
    assert!(time < TOTAL + SLACK, "{time:?}");
    let attempts = backend.calls();
    assert!((2..=3).contains(&attempts), "{attempts} attempts");
    // A POST may have been acted on, so it is not sent again.
    let result = send(&client, Method::POST, &url).await;
    assert_eq!(rejection(&result), Some(RejectedKind::TimedOut));
    assert_eq!(backend.calls(), 1);

    until_open(&client, &url).await;
    // What timed out was given up: nginx has passed that on.
    let start = Instant::now();
    while backend.running.load(Ordering::SeqCst) > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "nobody hung up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    backend.takes(Duration::ZERO);
    let time = until_answered(&client, &url).await;
    assert!(time < Duration::from_millis(1100) + SLACK, "{time:?}");
    assert_eq!(handle.snapshot().bulkheads[0].1.in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn dropped_connections_are_retried_for_get_not_post() {
    // The second sends a RST, which a client sees as another error.
    for (place, server) in [
        ("closed", "location / { return 444; }"),
        (
            "reset",
            "reset_timedout_connection on; location / { return 444; }",
        ),
    ] {
        let nginx = Nginx::start("", server).await;
        let (client, _handle) = client();
        let url = nginx.url("/drop");
        let error = send(&client, Method::GET, &url).await.unwrap_err();
        assert!(Rejected::find(&*error).is_none(), "{place}: {error:?}");
        assert_eq!(nginx.saw("GET /drop 444").await, 3, "{place}");

        assert!(send(&client, Method::POST, &url).await.is_err());
        assert_eq!(nginx.saw("POST /drop 444").await, 1, "{place}");

        let mut keyed = request(Method::POST, &url);
        let key = "idempotency-key".parse::<http::HeaderName>().unwrap();
        keyed.headers_mut().insert(key, "7".parse().unwrap());
        assert!(client.clone().oneshot(keyed).await.is_err());
        assert_eq!(nginx.saw("POST /drop 444").await, 4, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn gateway_errors_are_retried_for_get_not_post() {
    let backend = Backend::start().await;
    backend.takes(Duration::from_secs(30));
    let late = format!(
        "location /late {{ proxy_pass http://{}; proxy_read_timeout 50ms; }}",
        backend.address
    );
    // Nothing listens on port 1.
    let gone = "location /gone { proxy_pass http://127.0.0.1:1; }";
    let nginx = Nginx::start("", &format!("{late} {gone}")).await;
    for (path, status) in [("/late", 504), ("/gone", 502)] {
        let (client, _handle) = client();
        let url = nginx.url(path);
        assert_eq!(get(&client, &url).await.0.unwrap(), status);
        let line = format!("GET {path} {status}");
        assert_eq!(nginx.saw(&line).await, 3);

        assert_eq!(send(&client, Method::POST, &url).await.unwrap(), status);
        let line = format!("POST {path} {status}");
        assert_eq!(nginx.saw(&line).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx"]
async fn a_429_of_nginx_is_retried_after_its_retry_after() {
    // `return` would answer before the limit is asked.
    let backend = Backend::start().await;
    let limited = format!(
        "limit_req zone=quota; limit_req_status 429; add_header Retry-After 1 always; \
         location / {{ proxy_pass http://{}; }}",
        backend.address
    );
    let nginx = Nginx::start("", &limited).await;
    let stack = stack::client().http().build().unwrap();
    let client = stack.layer(Client::builder(TokioExecutor::new()).build_http());
    let url = nginx.url("/");
    let ask = || client.clone().oneshot(request(Method::GET, &url));
    assert_eq!(ask().await.unwrap().status(), 200);
    let start = Instant::now();
    assert_eq!(ask().await.unwrap().status(), 200);
    let time = start.elapsed();
    assert!(time >= Duration::from_secs(1), "too early: {time:?}");
    assert_eq!(nginx.saw("GET / 429").await, 1);
}

const ATTEMPT: Duration = Duration::from_millis(200);
const TOTAL: Duration = Duration::from_secs(1);
/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_secs(2);
