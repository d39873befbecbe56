//! A client without slow answers: a read that takes long is sent once more, and the first answer
//! wins.
//!
//! `cargo run --example hedged_reads`

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{algorithm::RetryBudget, hedge::HedgeLayer, protocol::http::Client};

/// One answer in 25 takes a hundred times as long as the others.
async fn replica<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, BoxError> {
    static READS: AtomicU32 = AtomicU32::new(0);
    let unlucky = READS.fetch_add(1, Ordering::Relaxed) % 25 == 24;
    sleep(Duration::from_millis(if unlucky { 300 } else { 3 })).await;
    Ok(Response::new(Full::from("42")))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // After the time in which 90 % are answered, but not before 10 ms. There are many replicas, so
    // a hedge for each ten reads harms none; of one server the default asks for less.
    let hedge = HedgeLayer::builder()
        .protocol(Client::new())
        .quantile(0.9)
        .delay(Duration::from_millis(10))
        .budget(RetryBudget::new(5, 0.1)?)
        .build()?;
    let plain = slow_of_a_thousand(service_fn(replica)).await?;
    let hedged = slow_of_a_thousand(hedge.layer(service_fn(replica))).await?;

    let now = hedge.handle().snapshot();
    println!("slower than 200 ms, of 1000 reads: {plain} without hedges, {hedged} with");
    println!("{} hedges were sent, {} won", now.sent, now.won_by_hedge);
    assert!(plain >= 40 && hedged <= plain / 2, "{plain} {hedged}");
    assert!(
        now.won_by_hedge > 0 && now.sent < 150,
        "a budget pays for hedges"
    );
    Ok(())
}

/// How many of a thousand calls, ten at a time, take long.
async fn slow_of_a_thousand<S>(service: S) -> Result<usize, BoxError>
where
    S: tower::Service<Request<Full<Bytes>>, Error = BoxError> + Clone,
{
    let mut slow = 0;
    for _ in 0..100 {
        let calls = (0..10).map(|_| {
            let call = service.clone().oneshot(Request::new(Full::default()));
            timeout(Duration::from_millis(200), call)
        });
        for answered in futures::future::join_all(calls).await {
            match answered {
                Ok(answer) => drop(answer?),
                Err(_) => slow += 1,
            }
        }
    }
    Ok(slow)
}
