//! An adaptive bulkhead that finds its limit, before an upstream whose capacity is halved while it
//! is used. Time is virtual, so it takes a second.
//!
//! `cargo run --release --example adaptive_limit`
#![allow(clippy::disallowed_methods, reason = "an example measures")]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, pause, sleep},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{algorithm::Vegas, bulkhead::BulkheadLayer};

/// How long the upstream works on a call; the more come, the longer the others wait.
const WORK: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    pause();
    let places = Arc::new(Semaphore::new(40));
    let upstream = {
        let places = places.clone();
        service_fn(move |()| {
            let places = places.clone();
            async move {
                let _place = places.acquire().await;
                sleep(WORK).await;
                Ok::<_, Infallible>(())
            }
        })
    };

    // At most 500, whatever it learns; a timeout, if there is one, belongs beneath.
    let bulkhead = BulkheadLayer::builder(500)
        .adaptive(Vegas::default())
        .name("search")
        .build()?;
    let handle = bulkhead.handle();
    let service = bulkhead.layer(upstream);

    println!("a width of 40 calls, and 100 callers");
    let wide = drive(service.clone(), Duration::from_secs(10)).await;
    println!("the limit is {}, {wide} calls/s", handle.snapshot().limit);
    assert!((30..=60).contains(&handle.snapshot().limit));
    assert!(wide >= 1800, "of 2000");

    println!("half of the places are gone");
    places.forget_permits(20);
    let narrow = drive(service, Duration::from_secs(10)).await;
    let snapshot = handle.snapshot();
    println!("the limit is {}, {narrow} calls/s", snapshot.limit);
    println!("calls take {:?}", snapshot.rtt.unwrap_or_default());
    assert!((12..=32).contains(&snapshot.limit));
    assert!(narrow >= 850, "of 1000");
    Ok(())
}

/// A hundred callers that call again as soon as they are answered, or a little after a rejection.
/// How many calls a second succeed in the second half of the time.
async fn drive<S>(service: S, time: Duration) -> usize
where
    S: Service<(), Error = BoxError> + Clone,
{
    let (start, done) = (Instant::now(), AtomicUsize::new(0));
    let callers = (0..100).map(|_| async {
        let mut service = service.clone();
        while start.elapsed() < time {
            let answer = match service.ready().await {
                Ok(service) => service.call(()).await,
                Err(error) => Err(error),
            };
            if answer.is_err() {
                sleep(Duration::from_millis(5)).await;
            } else if start.elapsed() > time / 2 {
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    futures::future::join_all(callers).await;
    done.into_inner() * 1000 / usize::try_from(time.as_millis() / 2).unwrap_or(1)
}
