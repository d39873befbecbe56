//! The events: once a second, only what has changed, for few.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, advance, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{
    ConfigError,
    algorithm::{Limit, OverLimit, Rate, TokenBucket},
    observe::{self, Page, PageBody, Registry},
    rate_limit::RateLimitLayer,
};

use crate::support::{answer, ask, breaker, get, open, snapshot};

/// The next event of a body, and its name.
async fn next(body: &mut PageBody) -> Option<(String, Value)> {
    let frame = body.frame().await?.unwrap().into_data().unwrap();
    let text = String::from_utf8(frame.to_vec()).unwrap();
    assert!(text.ends_with("\n\n"), "{text}");
    let field = |name: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].to_owned()
    };
    Some((
        field("event: "),
        serde_json::from_str(&field("data: ")).unwrap(),
    ))
}

async fn listen(page: &Page) -> PageBody {
    let answer = ask(page, get("/events")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body()
}

#[tokio::test(start_paused = true)]
async fn one_event_a_second_has_only_differences() {
    let registry = Registry::new();
    let (one, two) = (breaker(&registry, "one"), breaker(&registry, "two"));
    let mut body = listen(&observe::page(&registry)).await;
    let began = Instant::now();
    let (name, full) = next(&mut body).await.unwrap();
    assert_eq!((&*name, began.elapsed()), ("full", Duration::ZERO));
    assert_eq!(full["instances"].as_object().unwrap().len(), 2);
    let (name, diff) = next(&mut body).await.unwrap();
    assert_eq!((&*name, began.elapsed()), ("diff", Duration::from_secs(1)));
    assert_eq!(diff.as_object().unwrap().keys().collect::<Vec<_>>(), ["at"]);
    open(&two).await;
    let (_, diff) = next(&mut body).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let changed = diff["instances"].as_object().unwrap();
    assert_eq!(changed.len(), 1, "{diff}");
    let circuit = changed.values().next().unwrap();
    assert_eq!(circuit["totals"]["failure"], 2);
    assert_eq!(
        circuit["config"],
        Value::Null,
        "thresholds are as they were"
    );
    drop(one);
    let (_, diff) = next(&mut body).await.unwrap();
    let gone = diff["instances"].as_object().unwrap();
    assert!(gone.values().any(Value::is_null), "{diff}");
}

#[tokio::test(start_paused = true)]
async fn few_may_listen_and_a_dropped_one_makes_room() {
    let page = observe::page(Registry::new()).max_listeners(2);
    let (first, _second) = (listen(&page).await, listen(&page.clone()).await);
    let full = ask(&page, get("/events")).await;
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(full.headers()["retry-after"], "2");
    assert_eq!(page.listeners(), 2);
    drop(first);
    assert_eq!(page.listeners(), 1);
    drop(listen(&page).await);
}

/// Otherwise a graceful shutdown waits for the last browser to be closed.
#[tokio::test(start_paused = true)]
async fn events_end_for_a_shutdown() {
    let page = observe::page(Registry::new());
    let mut body = listen(&page).await;
    next(&mut body).await.unwrap();
    page.end();
    let end = timeout(Duration::from_secs(2), next(&mut body)).await;
    assert!(end.unwrap().is_none());
    let status = ask(&page, get("/events")).await.status();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

/// A limit that counts how often it is asked for its rate, as snapshots do.
#[derive(Debug)]
struct Asked(TokenBucket, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Limit for Asked {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.0.acquire(cost, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        Limit::wait(&self.0, units, now)
    }

    fn refund(&self, cost: u32, now: u64) {
        self.0.refund(cost, now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.0.charge(cost, now);
    }

    fn close_until(&self, until: u64, now: u64) {
        Limit::close_until(&self.0, until, now);
    }

    fn available(&self, now: u64) -> u32 {
        self.0.available(now)
    }

    fn burst(&self) -> u32 {
        self.0.burst()
    }

    fn rate(&self) -> Rate {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.rate()
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.0.update(rate, burst)
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_computed_while_nobody_looks() {
    let registry = Registry::new();
    let asked = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let bucket = TokenBucket::new(Rate::per_second(1), 1).unwrap();
    let limit = RateLimitLayer::with(Asked(bucket, asked.clone())).name("asked");
    let layer = registry.with(|| limit.build()).unwrap();
    let count = || asked.swap(0, std::sync::atomic::Ordering::Relaxed);
    count();
    let page = observe::page(&registry);
    layer.layer(service_fn(answer)).oneshot(1).await.unwrap();
    advance(Duration::from_secs(100)).await;
    let unlooked = count();
    let mut bodies = Vec::new();
    for _ in 0..8 {
        bodies.push(listen(&page).await);
    }
    for body in &mut bodies {
        next(body).await.unwrap();
    }
    let looked = count();
    assert_eq!((unlooked, looked), (0, 1), "one snapshot for all of them");
    drop(bodies);
    advance(Duration::from_secs(100)).await;
    tokio::task::yield_now().await;
    assert_eq!(count(), 0);
}

/// Other processes are shown by their JSON, and one that is gone says why.
#[tokio::test]
async fn other_processes_are_shown_by_their_json() {
    let registry = Registry::new();
    let layer = breaker(&registry, "elsewhere");
    open(&layer).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/keep/", listener.local_addr().unwrap());
    let other = axum::Router::new().nest_service("/keep", observe::page(&registry).title("two"));
    let server = tokio::spawn(async { axum::serve(listener, other).await });
    let gone = {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", port.local_addr().unwrap())
    };
    let page = observe::page(Registry::new())
        .others([&address, &gone])
        .unwrap();
    let mut body = listen(&page).await;
    let (_, full) = next(&mut body).await.unwrap();
    assert_eq!(full["others"][&address]["error"], "not asked yet");
    let model = loop {
        next(&mut body).await.unwrap();
        let model = snapshot(&page).await;
        if model["others"][&address]["title"] == "two"
            && model["others"][&gone] != full["others"][&gone]
        {
            break model;
        }
    };
    assert!(model["others"][&address].to_string().contains("elsewhere"));
    let error = model["others"][&gone]["error"].as_str().unwrap();
    assert!(error.starts_with("cannot be reached"), "{error}");
    server.abort();
    for wrong in [
        "",
        "https://10.0.0.2/",
        "10.0.0.2:9000",
        "file:///etc/passwd",
        "http://",
    ] {
        let error = observe::page(Registry::new())
            .others([wrong])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("others") && error.contains("http://"),
            "{error}"
        );
    }
}
