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
// This crate also builds with reqwest 0.12, hence the name. Yours is just `reqwest`.
use reqwest_013 as reqwest;
use tower::BoxError;
use tower_keep::{
    RejectedKind,
    reqwest::{Kept, KeptError},
    stack,
};

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
    let client = reqwest::Client::new();
    let kept = Kept::new(client.clone(), &stack);
    // The key tells the server that a second request is the same order. With reqwest's feature
    // `json` it may be `.json(&order)`, and `response.json()` below.
    let order = || {
        let request = client.post(&url).header("idempotency-key", "order-7");
        request.body("three apples")
    };

    upstream.failing.store(1, Ordering::Relaxed);
    let response = kept.send(order()).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await?;
    println!("one 503: attempt {} delivered {text:?}", upstream.calls());
    assert_eq!((upstream.calls(), &*text), (2, "three apples"));

    upstream.failing.store(usize::MAX, Ordering::Relaxed);
    let mut rejected = 0;
    for _ in 0..100 {
        // A 503 that no retry has made good is a response; a rejection is an error.
        match kept.send(order()).await {
            Ok(_) => {}
            Err(KeptError::Rejected(why)) => {
                assert_eq!(why.kind, RejectedKind::CircuitOpen);
                rejected += 1;
            }
            Err(error) => return Err(error.into()),
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
