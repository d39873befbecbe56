//! What goes wrong where the layers stand in another order than the guide's.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    protocol::{Always, ErrIsFailure, Plain},
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::builder()
        .consecutive_failures(5)
        .protocol(Plain::new())
        .build()
        .unwrap()
}

fn retry() -> RetryLayer<Plain<ErrIsFailure, Always>> {
    let retry = RetryLayer::builder().without_budget();
    let retry = retry.protocol(Plain::new().idempotent());
    retry.build().unwrap()
}

fn timeout(duration: Duration) -> TimeoutLayer {
    TimeoutLayer::builder(duration).build().unwrap()
}

/// Fails, and counts its calls.
fn down(
    calls: &Arc<AtomicU32>,
) -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
    let calls = calls.clone();
    service_fn(move |()| {
        calls.fetch_add(1, Ordering::Relaxed);
        async { Err("down".into()) }
    })
}

async fn hangs(_: ()) -> Result<(), BoxError> {
    pending().await
}

fn kind(result: &Result<(), BoxError>) -> Option<RejectedKind> {
    Some(Rejected::find(&**result.as_ref().err()?)?.kind)
}

/// Calls until the circuit is open, and counts what the upstream got.
async fn calls_until_open<L>(stack: L, layer: &CircuitBreakerLayer, calls: &Arc<AtomicU32>) -> u32
where
    L: Service<(), Response = (), Error = BoxError> + Clone,
{
    while layer.handle().state() == BreakerState::Closed {
        let _ = stack.clone().oneshot(()).await;
    }
    calls.swap(0, Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_breaker_around_the_retry_opens_late() {
    let calls = Arc::default();
    let (beneath, around) = (breaker(), breaker());
    let right = retry().layer(beneath.layer(down(&calls)));
    let wrong = around.layer(retry().layer(down(&calls)));
    let right = calls_until_open(right, &beneath, &calls).await;
    let wrong = calls_until_open(wrong, &around, &calls).await;
    // It counts operations of three attempts each.
    assert_eq!((right, wrong), (5, 15));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_the_breaker_hides_hung_calls() {
    let (around, beneath) = (breaker(), breaker());
    let right = around.layer(timeout(SECOND).layer(service_fn(hangs)));
    let wrong = timeout(SECOND).layer(beneath.layer(service_fn(hangs)));
    for _ in 0..5 {
        right.clone().oneshot(()).await.unwrap_err();
        wrong.clone().oneshot(()).await.unwrap_err();
    }
    let states = (around.handle().state(), beneath.handle().state());
    // Beneath, they are dropped: a window of at least 20 of them would open it.
    assert_eq!(states, (BreakerState::Open, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn an_outer_rate_limit_charges_for_rejections() {
    let limit = || {
        RateLimitLayer::builder(Rate::per_day(1))
            .burst(3)
            .build()
            .unwrap()
    };
    let (right, wrong, open) = (limit(), limit(), breaker());
    open.handle().force_open();
    let answers = service_fn(async |()| Ok::<(), BoxError>(()));
    let beneath = open.layer(right.layer(answers));
    let around = wrong.layer(open.layer(answers));
    for _ in 0..3 {
        beneath.clone().oneshot(()).await.unwrap_err();
        around.clone().oneshot(()).await.unwrap_err();
    }
    open.handle().close();
    assert!(beneath.oneshot(()).await.is_ok());
    let rejected = around.oneshot(()).await;
    assert_eq!(kind(&rejected), Some(RejectedKind::RateLimited));
}

#[tokio::test(start_paused = true)]
async fn an_outer_bulkhead_fills_with_rate_limit_waiters() {
    let limit = || {
        RateLimitLayer::builder(Rate::per_second(1))
            .burst(1)
            .max_wait(60 * SECOND)
            .build()
            .unwrap()
    };
    let bulkhead = || BulkheadLayer::builder(2).build().unwrap();
    let answers = service_fn(async |()| Ok::<(), BoxError>(()));
    let right = limit().layer(bulkhead().layer(answers));
    let wrong = bulkhead().layer(limit().layer(answers));
    let ask = async |service: &dyn Fn() -> tokio::task::JoinHandle<Result<(), BoxError>>| {
        let calls: Vec<_> = (0..5).map(|_| service()).collect();
        let mut full = 0;
        for call in calls {
            full += u32::from(kind(&call.await.unwrap()) == Some(RejectedKind::BulkheadFull));
        }
        full
    };
    let beneath = ask(&|| tokio::spawn(right.clone().oneshot(()))).await;
    let around = ask(&|| tokio::spawn(wrong.clone().oneshot(()))).await;
    // One is answered at once, two wait for their turn with both places, and nothing is in flight.
    assert_eq!((beneath, around), (0, 2));
}

#[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
#[tokio::test(start_paused = true)]
async fn a_total_timeout_beneath_the_retry_is_no_total() {
    let right = ServiceBuilder::new()
        .layer(timeout(SECOND))
        .layer(retry())
        .service_fn(hangs);
    let wrong = ServiceBuilder::new()
        .layer(retry())
        .layer(timeout(SECOND))
        .service_fn(hangs);
    let start = Instant::now();
    let late = right.oneshot(()).await;
    assert_eq!(kind(&late), Some(RejectedKind::TimedOut));
    assert_eq!(start.elapsed(), SECOND);
    let start = Instant::now();
    let late = wrong.oneshot(()).await;
    assert_eq!(kind(&late), Some(RejectedKind::TimedOut));
    assert!(start.elapsed() >= 3 * SECOND);
}
