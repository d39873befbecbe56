//! A client that answers with the last known value while the upstream is down.
//!
//! `cargo run --example fallback_cache`

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{fallback::FallbackLayer, protocol::Plain};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    static DOWN: AtomicBool = AtomicBool::new(false);
    let prices: Arc<Mutex<HashMap<&str, u32>>> = Arc::default();

    // The upstream, and a note of what it said.
    let known = prices.clone();
    let upstream = service_fn(move |product: &'static str| {
        let known = known.clone();
        async move {
            if DOWN.load(Ordering::Relaxed) {
                return Err(BoxError::from("down"));
            }
            known.lock().unwrap().insert(product, 100);
            Ok(100)
        }
    });

    // What to keep of the request, and what to answer when it has failed: the last known price, or
    // the failure if there is none.
    let layer = FallbackLayer::builder(
        |product: &&'static str| *product,
        move |product: &'static str, failure: Result<u32, BoxError>| {
            let price = prices.lock().unwrap().get(product).copied();
            async move { price.map_or(failure, Ok) }
        },
    )
    .protocol(Plain::new()) // an `Err` is a failure
    .build()?;
    let client = layer.layer(upstream);

    assert_eq!(client.clone().oneshot("tea").await?, 100);
    DOWN.store(true, Ordering::Relaxed);
    assert_eq!(
        client.clone().oneshot("tea").await?,
        100,
        "the last known price"
    );
    assert!(
        client.oneshot("coffee").await.is_err(),
        "nothing is known of it"
    );

    let now = layer.handle().snapshot();
    println!(
        "{} answered from the cache, {} not",
        now.answered, now.failed
    );
    assert_eq!((now.answered, now.failed), (1, 1));
    Ok(())
}
