//! A hyper client that survives an upstream which fails: its circuit opens, and closes again.
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

use axum::{
    Router,
    http::{Request, StatusCode},
    routing::get,
};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};
use tower_keep::{Rejected, stack};

#[tokio::main]
async fn main() -> Result<(), tower::BoxError> {
    let (down, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let (is_down, count) = (down.clone(), calls.clone());
    let answer = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        match is_down.load(Ordering::Relaxed) {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let upstream = Router::new().route("/", get(answer));
    tokio::spawn(axum::serve(listener, upstream).into_future());

    let stack = stack::client().http().name("upstream").build()?;
    let client = stack.layer(Client::builder(TokioExecutor::new()).build_http());
    let ask = || {
        let request = Request::get(&url).body(Empty::<Bytes>::new());
        client.clone().oneshot(request.expect("a valid URI"))
    };
    let mut rejected = 0;
    for _ in 0..50 {
        if let Err(error) = ask().await {
            rejected += u32::from(Rejected::find(&*error).is_some());
        }
    }
    // Ten failures in a row open the circuit of this host; the rest never left.
    let sent = calls.load(Ordering::Relaxed);
    println!("{sent} calls were sent, {rejected} failed fast");
    assert_eq!((sent, rejected), (10, 40));

    down.store(false, Ordering::Relaxed);
    let mut waits = 0;
    while ask().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        waits += 1;
    }
    println!("back after {} ms", waits * 50);
    assert!(waits <= 20, "the circuit probes after half a second");
    Ok(())
}
