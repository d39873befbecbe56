//! What other retries, budgets and hedges were seen to do wrong, each as a test of ours.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    collections::HashSet,
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::Empty;
use proptest::prelude::*;
use tokio::time::{Instant, timeout};
use tower::{
    BoxError, Layer, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit, service_fn,
};

use tower_keep::{
    algorithm::{Backoff, Jitter, RetryBudget},
    protocol::{Plain, http::Client},
    retry::RetryLayer,
};

const SECOND: Duration = Duration::from_secs(1);

const JITTERS: [Jitter; 6] = [
    Jitter::Exponential,
    Jitter::Additive(Duration::from_millis(100)),
    Jitter::Full,
    Jitter::Equal,
    Jitter::Decorrelated,
    Jitter::PlusMinus(0.25),
];

/// A thousand delays of one attempt.
fn delays(backoff: Backoff, attempt: u32) -> HashSet<Duration> {
    let randoms = (1..=1000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    randoms
        .map(|random| backoff.delay(attempt, backoff.max(), random))
        .collect()
}

/// seatbelt: 352 of 1000 delays are equal once the exponential is at its cap.
#[test]
fn delays_at_the_cap_differ_and_stay_below_it() {
    for jitter in JITTERS {
        let backoff = Backoff::new(SECOND / 10, SECOND, jitter).unwrap();
        for attempt in [4, 10, u32::MAX] {
            let delays = delays(backoff, attempt);
            assert!(delays.len() >= 999, "{jitter:?}: {}", delays.len());
            assert!(delays.iter().all(|delay| *delay <= SECOND), "{jitter:?}");
        }
    }
}

/// tower: a base of whole seconds is jittered in whole seconds.
#[test]
fn a_base_of_seconds_is_not_jittered_in_seconds() {
    for jitter in JITTERS {
        let backoff = Backoff::new(SECOND, 60 * SECOND, jitter).unwrap();
        let delays = delays(backoff, 1);
        let fractions: HashSet<_> = delays.iter().map(Duration::subsec_millis).collect();
        assert!(fractions.len() > 90, "{jitter:?}: {}", fractions.len());
    }
}

/// tower: a budget of 40 to 60 % grants 50 or 100 %.
#[test]
fn a_share_of_the_successes_is_granted_exactly() {
    for (ratio, granted) in [(0.4, 400), (0.45, 450), (0.5, 500), (0.6, 600)] {
        let budget = RetryBudget::new(1000, ratio).unwrap();
        while budget.withdraw() {}
        (0..1000).for_each(|_| budget.deposit());
        let paid = (0..).take_while(|_| budget.withdraw()).count();
        assert_eq!(paid, granted, "{ratio}");
    }
}

async fn told(field: &'static str) -> (StatusCode, u64, Duration) {
    let layer = RetryLayer::builder()
        .protocol(Client::new())
        .build()
        .unwrap();
    let busy = service_fn(move |_| async move {
        let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        let response = response.header(RETRY_AFTER, field);
        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
    });
    let start = Instant::now();
    let request = Request::new(Empty::<Bytes>::new());
    let response = layer.layer(busy).oneshot(request).await.unwrap();
    let retries = layer.handle().snapshot().retries;
    (response.status(), retries, start.elapsed())
}

/// seatbelt: a hint of a year is slept, whatever the longest delay is.
#[tokio::test(start_paused = true)]
async fn a_hint_of_a_year_is_not_slept() {
    for field in [
        "31536000",
        "99999999999999999999999",
        "18446744073709551615",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let (status, _, took) = told(field).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(took < 2 * SECOND, "{field}: {took:?}");
    }
    let (_, retries, took) = told("31536000").await;
    assert_eq!((retries, took), (0, Duration::ZERO));
}

/// tower-resilience: `Duration::MAX` panics under a lock, and poisons it.
#[tokio::test(start_paused = true)]
async fn the_longest_waits_do_not_panic() {
    let backoff = Backoff::new(Duration::MAX / 4, Duration::MAX, Jitter::Exponential);
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .backoff(backoff.unwrap())
        .budget(RetryBudget::default())
        .max_retry_after(Duration::MAX)
        .build()
        .unwrap();
    let down = service_fn(async |_: u32| Err::<u32, _>(io::Error::other("down")));
    for _ in 0..3 {
        let call = layer.layer(down).oneshot(1);
        let _ = timeout(3600 * SECOND, call).await;
    }
    assert_eq!(layer.handle().snapshot().budget, Some(10));
    let client = RetryLayer::builder()
        .protocol(Client::new())
        .max_retry_after(Duration::MAX)
        .build()
        .unwrap();
    let busy = service_fn(async |_| {
        let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        let response = response.header(RETRY_AFTER, u64::MAX);
        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
    });
    let call = client
        .layer(busy)
        .oneshot(Request::new(Empty::<Bytes>::new()));
    let _ = timeout(3600 * SECOND, call).await;
}

/// Retries a service twice, which counts its calls.
async fn three_attempts<S>(service: S)
where
    S: Service<u32, Response = u32, Error: Into<BoxError>> + Clone,
{
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    // Each attempt waits for readiness, so the next call finds a service that is free.
    for _ in 0..3 {
        layer.layer(service.clone()).oneshot(1).await.unwrap_err();
    }
    assert_eq!(layer.handle().snapshot().retries, 6);
}

/// seatbelt, tower-circuitbreaker: a clone is called that was never asked for readiness, over which
/// `ConcurrencyLimit` panics.
#[tokio::test(start_paused = true)]
async fn attempts_over_towers_limit_and_buffer_do_not_panic() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let down = service_fn(move |_: u32| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err::<u32, _>(io::Error::other("down")) }
    });
    three_attempts(ConcurrencyLimit::new(down.clone(), 1)).await;
    three_attempts(Buffer::new(down, 1)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 18);
}

proptest! {
    /// tower-resilience, backon, backoff: the jitter goes beyond the cap.
    #[test]
    fn no_delay_is_above_the_maximum(
        base in 1u64..10_000, more in 1u64..100_000, attempt in 0u32..=u32::MAX, random in 0u64..=u64::MAX, previous in 0u64..200_000,
    ) {
        let millis = Duration::from_millis;
        for jitter in JITTERS {
            // Settings that cannot work are told when they are made.
            if let Ok(backoff) = Backoff::new(millis(base), millis(base + more), jitter) {
                let delay = backoff.delay(attempt, millis(previous), random);
                prop_assert!(delay <= millis(base + more), "{:?}: {:?}", jitter, delay);
            }
        }
    }
}
