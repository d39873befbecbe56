//! An axum server whose tenants cannot take each other's share. Each has its own rate, in memory
//! that no flood of tenants can grow, and its own bound on calls in flight.
//!
//! A tenant over its rate gets a 429 with `Retry-After`, one over its bound in flight a 503, and a
//! request without a tenant a 400. The client writes the tenant's name, which may be of any length,
//! and `keyed::header` keeps at most 256 bytes of it. A closure of your own that copies a header
//! keeps all of it. For plans that differ see `customer_plans`.
//!
//! ```console
//! cargo run --example per_tenant_limits
//! ```

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{Request, header::RETRY_AFTER};
use tower::{BoxError, ServiceExt};
use tower_keep::{
    bulkhead::BulkheadLayer,
    keyed,
    rate_limit::{Missing, Rate, RateLimitLayer},
    stack,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let rate = RateLimitLayer::builder(Rate::per_minute(60))
        .burst(5)
        .keyed_by(|request: &Request<Body>| keyed::header("x-tenant")(request))
        .missing(Missing::Reject);
    let places = BulkheadLayer::builder(2)
        .keyed_by(|request: &Request<Body>| keyed::header("x-tenant")(request));
    let stack = stack::server()
        .http()
        .rate_limit(rate)
        .bulkhead(places)
        .timeout(Duration::from_secs(5))
        .build()?;
    let handle = stack.handle();
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/slow", get(std::future::pending::<()>))
        .layer(stack);

    // `axum::serve(listener, app)` from here on; this sends the requests itself, to show what
    // becomes of them.
    let ask = |tenant: &str, path: &str| {
        let request = Request::get(path).header("x-tenant", tenant);
        let request = request.body(Body::empty()).expect("a valid request");
        app.clone().oneshot(request)
    };
    let mut admitted = 0;
    for _ in 0..8 {
        admitted += u32::from(ask("busy", "/").await?.status() == 200);
    }
    let over = ask("busy", "/").await?;
    println!("busy: {admitted} of 8, then {}", over.status());
    assert_eq!((admitted, over.status().as_u16()), (5, 429));
    assert_eq!(over.headers()[RETRY_AFTER], "1");

    let slow = [
        tokio::spawn(ask("slow", "/slow")),
        tokio::spawn(ask("slow", "/slow")),
    ];
    tokio::task::yield_now().await;
    let full = ask("slow", "/").await?.status();
    let quiet = ask("quiet", "/").await?.status();
    println!("slow: {full}; quiet: {quiet}");
    assert_eq!((full.as_u16(), quiet.as_u16()), (503, 200));
    slow.iter().for_each(tokio::task::JoinHandle::abort);

    let endless = "x".repeat(60_000);
    assert_eq!(ask(&endless, "/").await?.status(), 200);
    let kept = handle.bulkhead.keys();
    let longest = kept.iter().map(|(tenant, _)| tenant.as_bytes().len()).max();
    println!("a name of {} bytes takes {longest:?}", endless.len());
    assert_eq!(longest, Some(256));

    let nobody = app.clone().oneshot(Request::get("/").body(Body::empty())?);
    assert_eq!(nobody.await?.status(), 400);
    assert_eq!(handle.snapshot().rate_limit.active, 4);
    Ok(())
}
