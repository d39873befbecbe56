//! An axum server that gives each tenant its own rate limit, in memory that no flood of tenants can
//! grow.
//!
//! The layer goes straight onto the router: a tenant over its limit gets a 429 with `Retry-After`,
//! and a request without a tenant a 400.
//!
//! `cargo run --example tenant_limit`

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode, header::RETRY_AFTER};
use tower::{BoxError, ServiceExt};
use tower_keep::{
    keyed,
    protocol::http::Server,
    rate_limit::{Missing, Rate, RateLimitLayer},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let limit = RateLimitLayer::builder(Rate::per_minute(60))
        .burst(5)
        .protocol(Server::new())
        .keyed_by(keyed::header("x-tenant"))
        .missing(Missing::Reject)
        .build()?;
    let handle = limit.handle();
    let app = Router::new().route("/", get(async || "hello")).layer(limit);

    // `axum::serve(listener, app)` from here on; this sends the requests itself, to show what
    // becomes of them.
    let mut busy = Vec::new();
    for _ in 0..8 {
        busy.push(app.clone().oneshot(from(Some("busy"))?).await?);
    }
    let admitted = busy
        .iter()
        .filter(|response| response.status() == StatusCode::OK)
        .count();
    let quiet = app.clone().oneshot(from(Some("quiet"))?).await?.status();
    let nobody = app.oneshot(from(None)?).await?.status();

    println!(
        "busy: {admitted} of 8, then {} after {:?} s",
        busy[7].status(),
        busy[7].headers().get(RETRY_AFTER)
    );
    println!("quiet: {quiet}; without a tenant: {nobody}");
    assert_eq!(admitted, 5);
    assert_eq!(
        (busy[7].status(), &busy[7].headers()[RETRY_AFTER]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse()?)
    );
    assert_eq!((quiet, nobody), (StatusCode::OK, StatusCode::BAD_REQUEST));
    assert_eq!(handle.snapshot().active, 2);
    Ok(())
}

fn from(tenant: Option<&str>) -> Result<Request<Body>, http::Error> {
    let request = Request::get("/");
    tenant
        .into_iter()
        .fold(request, |request, tenant| {
            request.header("x-tenant", tenant)
        })
        .body(Body::empty())
}
