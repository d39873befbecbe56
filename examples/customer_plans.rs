//! An axum server whose customers have plans. Each customer has its own kind of limit, and all of
//! them share another one. An operator sees which customers use most, and changes one customer's
//! limit while the server runs.
//!
//! `cargo run --example customer_plans`

use std::sync::Arc;

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use tower::{BoxError, ServiceExt};
use tower_keep::{
    algorithm::{All, Limit, SlidingLog, TokenBucket},
    protocol::http::Server,
    rate_limit::{Missing, Rate, RateLimitLayer},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Customer {
    /// Ten a minute, in any minute.
    Free(String),
    /// A hundred a second, and two hundred at once.
    Pro(String),
}

/// Stands for a look-up of the key in a database, by a layer further out that puts what it finds
/// into the extensions.
fn customer(request: &Request<Body>) -> Option<Customer> {
    let name = request.headers().get("x-api-key")?.to_str().ok()?;
    Some(if name.starts_with("pro-") {
        Customer::Pro(name.to_owned())
    } else {
        Customer::Free(name.to_owned())
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let everybody = Arc::new(TokenBucket::new(Rate::per_second(1000), 1000)?);
    let limit = RateLimitLayer::builder(Rate::per_second(10))
        .protocol(Server::new())
        .per_key(customer, move |customer: &Customer| {
            let own: Arc<dyn Limit> = match customer {
                Customer::Free(_) => Arc::new(SlidingLog::new(Rate::per_minute(10))?),
                Customer::Pro(_) => Arc::new(TokenBucket::new(Rate::per_second(100), 200)?),
            };
            Ok(All::new(own).and(everybody.clone()))
        })
        .missing(Missing::Reject)
        .build()?;
    let handle = limit.handle();
    let app = Router::new().route("/", get(async || "hello")).layer(limit);

    // `axum::serve(listener, app)` from here on; this sends the requests itself, to show what
    // becomes of them.
    let mut admitted = [0, 0];
    for _ in 0..50 {
        admitted[0] += u32::from(ask(&app, Some("ann")).await? == StatusCode::OK);
        admitted[1] += u32::from(ask(&app, Some("pro-bob")).await? == StatusCode::OK);
    }
    let nobody = ask(&app, None).await?;
    println!(
        "of 50 requests each: ann {}, pro-bob {}; without a key: {nobody}",
        admitted[0], admitted[1]
    );
    for (customer, handle) in handle.heavy_hitters(10) {
        println!("{customer:?}: {} left", handle.snapshot().available);
    }

    // The operator is generous for once. (A `reset` would give back what all have used of the total
    // too.)
    handle
        .make(&Customer::Free("ann".to_owned()))
        .ok_or("no place")?
        .refund(5);
    let again = ask(&app, Some("ann")).await?;
    println!("ann, after a refund: {again}");
    assert_eq!(
        (admitted, nobody, again),
        ([10, 50], StatusCode::BAD_REQUEST, StatusCode::OK)
    );
    Ok(())
}

async fn ask(app: &Router, key: Option<&str>) -> Result<StatusCode, BoxError> {
    let request = key.into_iter().fold(Request::get("/"), |request, key| {
        request.header("x-api-key", key)
    });
    Ok(app
        .clone()
        .oneshot(request.body(Body::empty())?)
        .await?
        .status())
}
