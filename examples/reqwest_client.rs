//! A reqwest client that retries what is safe to repeat, and stops calling a server that is down.
//!
//! ```console
//! cargo run --features reqwest-013 --example reqwest_client
//! ```

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
// This crate also builds with reqwest 0.12, hence the name. Yours is just `reqwest`.
use reqwest_013 as reqwest;
use tower::{BoxError, Layer, ServiceExt};
use tower_keep::{Rejected, RejectedKind, reqwest::Reqwest, stack};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let upstream = Upstream::default();
    let app = Router::new()
        .route("/orders", post(order))
        .with_state(upstream.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());

    let stack = stack::client().http().name("orders").build()?;
    let client = stack.layer(Reqwest::new(reqwest::Client::new()));
    // The key tells the server that a second request is the same order.
    let order = || {
        let request = Request::post(&url).header("idempotency-key", "order-7");
        request.body(Full::<Bytes>::from("three apples"))
    };

    upstream.failing.store(1, Ordering::Relaxed);
    let response = client.clone().oneshot(order()?).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.into_body().collect().await?.to_bytes();
    println!("one 503: attempt {} delivered {text:?}", upstream.calls());
    assert_eq!((upstream.calls(), &text[..]), (2, &b"three apples"[..]));

    upstream.failing.store(usize::MAX, Ordering::Relaxed);
    let mut rejected = 0;
    for _ in 0..100 {
        // A 503 that no retry has made good is a response; a rejection is an error.
        if let Err(error) = client.clone().oneshot(order()?).await {
            let reason = Rejected::find(&*error).ok_or("a rejection")?;
            assert_eq!(reason.kind, RejectedKind::CircuitOpen);
            rejected += 1;
        }
    }
    let sent = upstream.calls() - 2;
    println!(
        "of 100 calls to a server that is down, {rejected} were rejected; {sent} attempts reached it"
    );
    assert!(rejected > 70 && sent < 40);
    Ok(())
}

/// A server that fails as many calls as it is told.
#[derive(Clone, Default)]
struct Upstream {
    calls: Arc<AtomicUsize>,
    failing: Arc<AtomicUsize>,
}

impl Upstream {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

async fn order(State(upstream): State<Upstream>, body: Bytes) -> Result<Bytes, StatusCode> {
    upstream.calls.fetch_add(1, Ordering::Relaxed);
    let fewer = |failing: usize| failing.checked_sub(1);
    match upstream
        .failing
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
    {
        Ok(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
        Err(_) => Ok(body),
    }
}
