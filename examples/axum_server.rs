//! An axum server that protects itself: at most two calls at once, and three in a burst.
//!
//! ```console
//! cargo run --example axum_server
//! ```

use std::{future::IntoFuture, time::Duration};

use axum::{Router, http::Request, routing::get};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower_keep::{rate_limit::Rate, stack};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let stack = stack::server()
        .http()
        .name("api")
        .rate(Rate::per_hour(60))
        .burst(3)
        .max_in_flight(2)
        .timeout(Duration::from_secs(5))
        .build()?;
    let handle = stack.handle();
    let app = Router::new()
        .route("/slow", get(async || std::future::pending::<()>().await))
        .layer(stack)
        // Beyond the layers: it answers when all else is full.
        .route("/health", get(async || "well"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, app).into_future());

    let client = Client::builder(TokioExecutor::new()).build_http();
    let ask = |path: &str| {
        let request = Request::get(format!("http://{address}{path}"));
        client.request(request.body(Empty::<Bytes>::new()).expect("a valid URI"))
    };
    // Two calls are in flight; the third fits the rate and not the bulkhead, the fourth neither.
    let slow = [tokio::spawn(ask("/slow")), tokio::spawn(ask("/slow"))];
    while handle.snapshot().bulkhead.in_flight < 2 {
        tokio::task::yield_now().await;
    }
    let full = ask("/slow").await?;
    assert_eq!(full.status(), 503);
    // What the bulkhead rejects costs no token.
    slow.iter().for_each(tokio::task::JoinHandle::abort);
    while handle.snapshot().bulkhead.in_flight > 0 {
        tokio::task::yield_now().await;
    }
    let last = tokio::spawn(ask("/slow"));
    while handle.snapshot().bulkhead.in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let over = ask("/slow").await?;
    assert_eq!(over.status(), 429);
    println!(
        "over the rate: try again in {:?} s",
        over.headers()["retry-after"]
    );
    assert_eq!(ask("/health").await?.status(), 200);
    last.abort();
    Ok(())
}
