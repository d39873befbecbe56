//! An axum service with `/metrics` for Prometheus, and the files with which Prometheus and Grafana
//! read it.
//!
//! Beside this file: `app.rs` is the service, and `prometheus.yml` scrapes it. `alerts.yml` has
//! alert rules for incidents, and `tuning.yml` for thresholds that do not fit, which wake nobody.
//! `alerts.test.yml` and `tuning.test.yml` test them. `dashboard.json` is a Grafana dashboard of
//! the same numbers. `tests/prometheus` runs all of it through an incident.
//!
//! ```console
//! cargo run --example observability --features metrics
//! cargo run --example observability --features metrics -- serve
//! ```
//!
//! The second command leaves it running on port 9464. Request `/search`, and make its upstream fail
//! nearly half of the calls, each after 200 ms, with `curl -X POST localhost:9464/upstream/45/200`.

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use tower::{BoxError, ServiceExt};

mod app;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let app = app::app().await?;
    if std::env::args().any(|argument| argument == "serve") {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:9464").await?;
        return Ok(axum::serve(listener, app).await?);
    }

    // `axum::serve` from here on; this sends the requests itself, to show what is counted.
    for _ in 0..10 {
        let (status, _) = send(&app, Method::GET, "/search").await?;
        assert_eq!(status, StatusCode::OK);
    }
    send(&app, Method::POST, "/upstream/100/0").await?;
    for _ in 0..20 {
        let (status, _) = send(&app, Method::GET, "/search").await?;
        assert_ne!(status, StatusCode::OK);
    }
    let (status, metrics) = send(&app, Method::GET, "/metrics").await?;
    print!("{metrics}");

    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"tower_keep_circuit_breaker_state{name="search",state="open"} 1"#,
        r#"tower_keep_bulkhead_in_flight{name="search"} 0"#,
        r#"tower_keep_rate_limit_decisions_total{name="api",decision="admitted"} 30"#,
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}");
    }
    Ok(())
}

async fn send(app: &Router, method: Method, path: &str) -> Result<(StatusCode, String), BoxError> {
    let request = Request::builder().method(method).uri(path);
    let response = app.clone().oneshot(request.body(Body::empty())?).await?;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await?;
    Ok((status, String::from_utf8(body.to_vec())?))
}
