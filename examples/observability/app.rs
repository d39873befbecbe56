//! The service: `/search` asks an upstream that fails on demand, `/metrics` tells of it.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{Request, Response, StatusCode},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_keep::{
    algorithm::{Budget, RetryBudget},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    observe::{BUCKETS, Registry},
    protocol::http,
    rate_limit::Rate,
    retry::RetryLayer,
    stack,
    timeout::TimeoutLayer,
};

/// The service, whose upstream answers on a port of its own.
pub(crate) async fn app() -> Result<Router, BoxError> {
    let upstream = Upstream::default();
    let search = Search {
        url: upstream.clone().serve().await?,
        client: client()?,
    };
    let api = stack::server()
        .http()
        .name("api")
        .rate(Rate::per_second(50))
        .max_in_flight(100)
        .build()?;

    // May as well come after the layers were built and used: nothing is lost.
    let prometheus = PrometheusBuilder::new()
        .set_buckets(&BUCKETS)?
        .install_recorder()?;

    Ok(Router::new()
        .route("/search", get(ask).with_state(search))
        .layer(api)
        .route("/metrics", get(render).with_state(prometheus))
        .route("/upstream/{percent}/{millis}", post(sabotage))
        .with_state(upstream))
}

/// Prometheus asks for the state of now.
async fn render(State(prometheus): State<PrometheusHandle>) -> String {
    Registry::global().publish();
    prometheus.render()
}

type Searched = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Incoming>, BoxError>;

/// The budget is a generous one to begin with: the alert on many retries tells when to lower it.
fn client() -> Result<Searched, BoxError> {
    let (protocol, name) = (http::Client::new(), "search");
    let budget = Arc::new(Budget::from(RetryBudget::new(20, 0.5)?));
    let timeout = |duration| {
        TimeoutLayer::builder(duration)
            .protocol(protocol)
            .name(name)
    };
    let retry = RetryLayer::builder().protocol(protocol).name(name);
    let breaker = CircuitBreakerLayer::builder().protocol(protocol).name(name);
    let bulkhead = BulkheadLayer::builder(10).protocol(protocol).name(name);
    let bulkhead = bulkhead.max_wait(Duration::from_millis(100));
    let layers = ServiceBuilder::new()
        .layer(timeout(Duration::from_secs(2)).total(true).build()?)
        .layer(retry.budget(budget).build()?)
        .layer(breaker.open_for(Duration::from_millis(500)).build()?)
        .layer(bulkhead.build()?)
        .layer(timeout(Duration::from_millis(500)).build()?);
    let client = Client::builder(TokioExecutor::new()).build_http();
    Ok(Searched::new(layers.service(client)))
}

#[derive(Clone)]
struct Search {
    url: String,
    client: Searched,
}

async fn ask(State(Search { url, client }): State<Search>) -> StatusCode {
    let request = Request::get(url).body(Empty::new()).expect("a valid URL");
    match client.oneshot(request).await {
        Ok(response) => response.status(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Fails the share of calls that it is told to, one as far from the next as can be.
#[derive(Clone, Default)]
struct Upstream(Arc<Trouble>);

#[derive(Default)]
struct Trouble {
    percent: AtomicU64,
    millis: AtomicU64,
    calls: AtomicU64,
}

impl Upstream {
    async fn serve(self) -> Result<String, BoxError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let upstream = Router::new().route("/", get(answer)).with_state(self);
        tokio::spawn(axum::serve(listener, upstream).into_future());
        Ok(url)
    }
}

async fn answer(State(Upstream(trouble)): State<Upstream>) -> StatusCode {
    let millis = trouble.millis.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(millis)).await;
    let percent = trouble.percent.load(Ordering::Relaxed);
    let call = trouble.calls.fetch_add(1, Ordering::Relaxed);

    match (call + 1) * percent / 100 > call * percent / 100 {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::OK,
    }
}

/// `POST /upstream/45/200`: from now on 45 % of its answers are errors, and each takes 200 ms.
async fn sabotage(
    State(Upstream(trouble)): State<Upstream>,
    Path((percent, millis)): Path<(u64, u64)>,
) {
    trouble.percent.store(percent.min(100), Ordering::Relaxed);
    trouble.millis.store(millis, Ordering::Relaxed);
}
