//! A hyper client that survives a failing upstream. Its circuit opens, and closes again. Other
//! hosts are not affected, because each has its own circuit.
//!
//! ```console
//! cargo run --example hyper_client
//! ```

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::Request, http::StatusCode, routing::get};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};
use tower_keep::{Rejected, stack};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let (sick, well) = (Upstream::default(), Upstream::default());
    let (sick_url, well_url) = (serve(&sick).await?, serve(&well).await?);
    let stack = stack::client().http().name("upstream").build()?;
    let client = stack.layer(Client::builder(TokioExecutor::new()).build_http());
    let ask = |url: &str| {
        let request = Request::get(url).body(Empty::<Bytes>::new());
        client.clone().oneshot(request.expect("a valid URI"))
    };

    sick.down.store(true, Ordering::Relaxed);
    let mut rejected = 0;
    for _ in 0..50 {
        assert_eq!(ask(&well_url).await?.status(), 200);
        if let Err(error) = ask(&sick_url).await {
            rejected += u32::from(Rejected::find(&*error).is_some());
        }
    }
    // Eight calls are enough to judge this host by; the rest never left.
    let sent = sick.calls.load(Ordering::Relaxed);
    println!("{sent} calls were sent, {rejected} failed fast");
    assert_eq!((sent, rejected), (8, 42));

    sick.down.store(false, Ordering::Relaxed);
    let mut waits = 0;
    while ask(&sick_url).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        waits += 1;
    }
    println!("back after {} ms", waits * 50);
    assert!(waits <= 20, "the circuit probes after half a second");
    Ok(())
}

/// A server that fails while it is told to.
#[derive(Debug, Clone, Default)]
struct Upstream {
    down: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
}

async fn serve(upstream: &Upstream) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let router = Router::new().route("/", get(answer));
    let router = router.with_state(upstream.clone());
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(url)
}

async fn answer(State(upstream): State<Upstream>) -> StatusCode {
    upstream.calls.fetch_add(1, Ordering::Relaxed);
    match upstream.down.load(Ordering::Relaxed) {
        true => StatusCode::INTERNAL_SERVER_ERROR,
        false => StatusCode::OK,
    }
}
