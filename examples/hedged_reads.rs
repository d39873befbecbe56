//! A client whose slowest answers are cut: a read that takes long is sent once more, and the first
//! answer wins.
//!
//! `cargo run --example hedged_reads`

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{hedge::HedgeLayer, protocol::http::Client};

/// One answer in fifty takes a hundred times as long, by chance.
async fn replica<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, BoxError> {
    let unlucky = rand::random::<u8>() < 5;
    sleep(Duration::from_millis(if unlucky { 200 } else { 2 })).await;
    Ok(Response::new(Full::from("42")))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // After the time in which 90 % are answered, but not before 5 ms.
    let hedge = HedgeLayer::builder()
        .protocol(Client::new())
        .quantile(0.9)
        .delay(Duration::from_millis(5))
        .build()?;
    let plain = slowest_of(service_fn(replica)).await?;
    let hedged = slowest_of(hedge.layer(service_fn(replica))).await?;

    let now = hedge.handle().snapshot();
    println!("98th percentile: plain {plain:?}, hedged {hedged:?}");
    println!(
        "{} hedges in 1000 calls, of which {} won",
        now.sent, now.won_by_hedge
    );
    assert!(hedged < plain / 2 && now.won_by_hedge > 0);
    assert!(now.sent < 150, "a budget pays for hedges");
    Ok(())
}

/// The 98th percentile of a thousand calls, ten at a time.
async fn slowest_of<S>(service: S) -> Result<Duration, BoxError>
where
    S: tower::Service<Request<Full<Bytes>>, Error = BoxError> + Clone,
{
    let mut took = Vec::new();
    for _ in 0..100 {
        let calls = (0..10).map(|_| {
            let service = service.clone();
            async move {
                let start = Instant::now();
                service
                    .oneshot(Request::get("/").body(Full::default())?)
                    .await?;
                Ok::<_, BoxError>(start.elapsed())
            }
        });
        took.extend(futures::future::try_join_all(calls).await?);
    }
    took.sort_unstable();
    Ok(took[979])
}
