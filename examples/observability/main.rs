//! An axum server with `/metrics`, for Prometheus: what its layers admit, reject and have in
//! flight.
//!
//! Beside this file: `prometheus.yml` scrapes it, `alerts.yml` says when to look, and
//! `dashboard.json` is a Grafana dashboard of the same numbers.
//!
//! `cargo run --example observability --features metrics`, or with `-- serve` to leave it running
//! on port 9464.

use axum::{Router, body::Body, extract::State, routing::get};
use http::{Request, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower::{BoxError, ServiceExt};
use tower_keep::{observe::Registry, rate_limit::Rate, stack};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let api = stack::server()
        .http()
        .name("api")
        .rate(Rate::per_second(5))
        .build()?;

    // May as well come after the layers were built and used: nothing is lost.
    let prometheus = PrometheusBuilder::new().install_recorder()?;

    let app = Router::new().route("/", get(async || "hello")).layer(api);
    let app = app.route("/metrics", get(render)).with_state(prometheus);
    if std::env::args().any(|argument| argument == "serve") {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:9464").await?;
        return Ok(axum::serve(listener, app).await?);
    }

    // `axum::serve` from here on; this sends the requests itself, to show what is counted.
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(send(&app, "/").await?.0);
    }
    let (status, metrics) = send(&app, "/metrics").await?;
    print!("{metrics}");

    let rejected = statuses
        .iter()
        .filter(|status| **status != StatusCode::OK)
        .count();
    assert_eq!(status, StatusCode::OK);
    assert!(rejected > 0);
    for line in [
        format!("keep_rate_limit_decisions_total{{name=\"api\",decision=\"rejected\"}} {rejected}"),
        String::from("keep_bulkhead_in_flight{name=\"api\"} 0"),
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}");
    }
    Ok(())
}

/// Prometheus asks for the state of now.
async fn render(State(prometheus): State<PrometheusHandle>) -> String {
    Registry::global().publish();
    prometheus.render()
}

async fn send(app: &Router, path: &str) -> Result<(StatusCode, String), BoxError> {
    let response = app
        .clone()
        .oneshot(Request::get(path).body(Body::empty())?)
        .await?;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await?;
    Ok((status, String::from_utf8(body.to_vec())?))
}
