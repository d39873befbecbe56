//! What the README's table of plain async functions says, each cell of it, as in the file above.

use std::{
    future::{Future, pending},
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use backon::{ConstantBuilder, ExponentialBuilder, Retryable};
use failsafe::{backoff, failure_policy, futures::CircuitBreaker};
use futures_util::{FutureExt, future::join_all};
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{
    CallError, Run,
    circuit_breaker::CircuitBreakerLayer,
    protocol::{Always, ErrIsFailure, Plain},
    retry::{Backoff, RetryLayer},
    run,
};
use tower_resilience::{circuitbreaker, retry};

#[test]
fn every_row_of_the_functions_has_its_tests() {
    let readme = include_str!("../../../../README.md");
    let (_, table) = readme.split_once("| plain async functions |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let labels = table
        .lines()
        .skip(2)
        .map(|row| row.split('|').nth(1).unwrap().trim());
    let labels: Vec<_> = labels.collect();
    let here = include_str!("functions.rs");
    let rows = here
        .lines()
        .filter_map(|line| line.strip_prefix("// Row: "));
    let rows: Vec<_> = rows.collect();
    assert_eq!(labels, rows);
}

// Row: the function's own error

#[derive(Debug, Clone, PartialEq)]
struct DbError(u32);

#[tokio::test(start_paused = true)]
async fn the_functions_error_keeps_its_type() {
    async fn query() -> Result<(), DbError> {
        Err(DbError(7))
    }
    let kept = run::retry(Backoff::none(), query).await;
    assert_eq!(kept, Err(DbError(7)));
    let layers = (keep_retry(), keep_breaker());
    assert!(matches!(
        layers.run(query).await,
        Err(CallError::Inner(DbError(7)))
    ));

    let backon = query.retry(ConstantBuilder::default()).await;
    assert_eq!(backon, Err(DbError(7)));

    let failsafe = failsafe_breaker().call(query()).await;
    assert!(matches!(failsafe, Err(failsafe::Error::Inner(DbError(7)))));

    let service = service_fn(|()| query());
    let resilience = resilience_breaker().layer(service).oneshot(()).await;
    let inner = circuitbreaker::CircuitBreakerError::Inner(DbError(7));
    assert_eq!(
        format!("{resilience:?}"),
        format!("{:?}", Err::<(), _>(inner))
    );
}

// Row: 1000 calls that fail are sent

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_amplified_by_functions() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    async fn query() -> io::Result<()> {
        SENT.fetch_add(1, Ordering::Relaxed);
        Err(io::Error::other("down"))
    }
    let sent = || SENT.swap(0, Ordering::Relaxed);
    let keep = keep_retry();
    for _ in 0..1000 {
        keep.run(query).await.unwrap_err();
    }
    assert_eq!(sent(), 1010);
    for _ in 0..1000 {
        query
            .retry(ExponentialBuilder::default())
            .await
            .unwrap_err();
    }
    assert_eq!(sent(), 4000);
    let layer = retry::RetryLayer::<(), (), io::Error>::builder().build();
    let service = layer.layer(service_fn(|()| query()));
    for _ in 0..1000 {
        service.clone().oneshot(()).await.unwrap_err();
    }
    assert_eq!(sent(), 3000);
}

// Row: of 10 calls at once to a half-open circuit, are sent

#[tokio::test]
async fn a_half_open_circuit_lets_few_functions_through() {
    let keep = keep_breaker();
    let calls = probes(|call| {
        let keep = &keep;
        async move { keep.run(|| call()).await.is_ok() }
    });
    assert_eq!(calls.await, 3);
    let failsafe = failsafe_breaker();
    let calls = probes(|call| {
        let failsafe = &failsafe;
        async move { failsafe.call(call()).await.is_ok() }
    });
    assert_eq!(calls.await, 10);
    // One service, since each that its layer makes has a circuit of its own.
    let service = resilience_breaker().layer(service_fn(|call: Function| call()));
    let calls = probes(|call| {
        let service = service.clone();
        async move { service.oneshot(call).await.is_ok() }
    });
    assert_eq!(calls.await, 3);
}

// Row: 20 calls that hang and are dropped

#[tokio::test]
async fn hung_functions_open_the_circuit() {
    let keep = keep_breaker();
    let open = is_open_after_hangs(|query| {
        let keep = &keep;
        async move { keep.run(|| query()).await.is_err() }
    });
    assert!(open.await);
    let failsafe = failsafe_breaker();
    let open = is_open_after_hangs(|query| {
        let failsafe = &failsafe;
        async move { failsafe.call(query()).await.is_err() }
    });
    assert!(!open.await);
    let service = resilience_breaker().layer(service_fn(|call: Function| call()));
    let open = is_open_after_hangs(|query| {
        let service = service.clone();
        async move { service.oneshot(query).await.is_err() }
    });
    assert!(!open.await);
}

// Row: 20 calls that panic

#[tokio::test]
async fn functions_that_panic_open_the_circuit() {
    let keep = keep_breaker();
    let open = is_open_after_panics(|query| {
        let keep = &keep;
        async move { keep.run(|| query()).await.is_err() }
    });
    assert!(open.await);
    let failsafe = failsafe_breaker();
    let open = is_open_after_panics(|query| {
        let failsafe = &failsafe;
        async move { failsafe.call(query()).await.is_err() }
    });
    assert!(!open.await);
    let service = resilience_breaker().layer(service_fn(|call: Function| call()));
    let open = is_open_after_panics(|query| {
        let service = service.clone();
        async move { service.oneshot(query).await.is_err() }
    });
    assert!(!open.await);
}

// Row: a retry whose circuit opens meanwhile ends with

#[tokio::test(start_paused = true)]
async fn the_last_error_outlives_an_open_circuit() {
    let down = async || Err::<(), _>(DbError(7));
    let breaker = keep_breaker();
    let retry = RetryLayer::builder()
        .protocol(plain())
        .stop_while_open(breaker.handle());
    let layers = (
        retry.attempts(30).without_budget().build().unwrap(),
        breaker,
    );
    let kept = layers.run(down).await;
    assert!(
        matches!(kept, Err(CallError::Inner(DbError(7)))),
        "{kept:?}"
    );

    let failsafe = failsafe_breaker();
    let call = async || failsafe.call(down()).await;
    let often = ExponentialBuilder::default().with_max_times(30);
    let mixed = call.retry(often).await;
    assert!(matches!(mixed, Err(failsafe::Error::Rejected)), "{mixed:?}");
}

fn plain() -> Plain<ErrIsFailure, Always> {
    Plain::new().idempotent()
}

fn keep_retry() -> RetryLayer<Plain<ErrIsFailure, Always>> {
    RetryLayer::builder().protocol(plain()).build().unwrap()
}

fn keep_breaker() -> CircuitBreakerLayer<Plain<ErrIsFailure, Always>> {
    CircuitBreakerLayer::builder()
        .min_calls(5)
        .open_for(OPEN)
        .jitter(false)
        .probes(3)
        .protocol(plain())
        .build()
        .unwrap()
}

fn failsafe_breaker() -> impl CircuitBreaker {
    let policy = failure_policy::consecutive_failures(5, backoff::constant(OPEN));
    failsafe::Config::new().failure_policy(policy).build()
}

fn resilience_breaker() -> circuitbreaker::CircuitBreakerLayer<circuitbreaker::DefaultClassifier> {
    super::resilience_settings(3).build().unwrap()
}

/// How many of ten calls at once are sent through a circuit that has been open.
async fn probes<R: Future<Output = bool>>(through: impl Fn(Function) -> R) -> usize {
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..5 {
        through(Arc::new(|| async { Err(io::Error::other("down")) }.boxed())).await;
    }
    sleep(2 * OPEN).await;
    let calls = (0..10).map(|_| {
        let sent = sent.clone();
        through(Arc::new(move || {
            sent.fetch_add(1, Ordering::Relaxed);
            pending().boxed()
        }))
    });
    let _ = timeout(OPEN / 2, join_all(calls)).await;
    sent.load(Ordering::Relaxed)
}

async fn is_open_after_hangs<R: Future<Output = bool>>(through: impl Fn(Function) -> R) -> bool {
    for _ in 0..20 {
        let hung = through(Arc::new(|| pending().boxed()));
        let _ = timeout(Duration::from_millis(1), hung).await;
    }
    through(Arc::new(|| async { Ok(()) }.boxed())).await
}

async fn is_open_after_panics<R: Future<Output = bool>>(through: impl Fn(Function) -> R) -> bool {
    for _ in 0..20 {
        let panics = through(Arc::new(|| async { panic!("on purpose") }.boxed()));
        let _ = AssertUnwindSafe(panics).catch_unwind().await;
    }
    through(Arc::new(|| async { Ok(()) }.boxed())).await
}

/// A function that is called again.
type Function = Arc<dyn Fn() -> Query + Send + Sync>;
type Query = std::pin::Pin<Box<dyn Future<Output = Result<(), io::Error>> + Send>>;

const OPEN: Duration = Duration::from_millis(200);
