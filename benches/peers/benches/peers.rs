//! One admitted call, by pattern and by crate, on 1, 2, 4 and 8 threads that share one instance.
//!
//! `cargo bench` in this folder prints times; compare rows of one group, which are of one run.

use std::{
    fmt,
    future::{Ready, ready},
    hint::black_box,
    num::NonZeroU32,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use governor::{Quota, RateLimiter};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_resilience::{bulkhead, circuitbreaker, ratelimiter, retry, timelimiter};

use support::{THREADS, on_threads};
use tower_keep::{
    algorithm::{Rate, TokenBucket},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::Plain,
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

#[path = "../../support/mod.rs"]
mod support;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Echo;

#[derive(Debug, Clone)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Failed;
    type Future = Ready<Result<u64, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// One call to its end; all that is compared here answers at once.
fn call<S: Service<u64>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    while service.poll_ready(&mut cx).is_pending() {}
    let mut future = pin!(service.call(7));
    while black_box(future.as_mut().poll(&mut cx)).is_pending() {}
}

fn measure<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    threads: usize,
    service: S,
) where
    S: Service<u64> + Clone + Sync,
{
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            on_threads(threads, iterations, || {
                let mut service = service.clone();
                // Timers need the runtime's context; entering it is not part of a call.
                let entered = runtime.enter();
                move || {
                    let _ = &entered;
                    call(&mut service);
                }
            })
        });
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

fn each(
    criterion: &mut Criterion,
    pattern: &str,
    mut rows: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, &Runtime, usize),
) {
    let runtime = runtime();
    for threads in THREADS {
        let mut group = criterion.benchmark_group(format!("{pattern}, {threads} threads"));
        group.throughput(Throughput::Elements(threads as u64));
        rows(&mut group, &runtime, threads);
    }
}

fn keep_limit() -> RateLimitLayer {
    RateLimitLayer::builder(Rate::per_second(100_000_000))
        .burst(100_000_000)
        .build()
        .unwrap()
}

fn their_limit() -> ratelimiter::RateLimiterLayer {
    ratelimiter::RateLimiterLayer::builder()
        .limit_for_period(1_000_000_000)
        .refresh_period(SECOND)
        .timeout_duration(SECOND)
        .build()
        .unwrap()
}

fn keep_retry()
-> RetryLayer<Plain<tower_keep::protocol::ErrIsFailure, tower_keep::protocol::Always>> {
    RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap()
}

fn their_bulkhead() -> bulkhead::BulkheadLayer {
    bulkhead::BulkheadLayer::builder()
        .max_concurrent_calls(1000)
        .build()
        .unwrap()
}

fn rate_limit(criterion: &mut Criterion) {
    each(criterion, "rate limit", |group, runtime, threads| {
        let word = AtomicU64::new(0);
        group.bench_function("floor: fetch_add", |bencher| {
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || {
                    || word.fetch_add(1, Ordering::Relaxed)
                })
            });
        });
        group.bench_function("floor: clock read", |bencher| {
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || std::time::Instant::now)
            });
        });
        let bucket = TokenBucket::new(Rate::per_second(100_000_000), 100_000_000).unwrap();
        let start = std::time::Instant::now();
        group.bench_function("tower-keep TokenBucket", |bencher| {
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || {
                    || bucket.acquire(1, start.elapsed().as_nanos() as u64).is_ok()
                })
            });
        });
        let quota = Quota::per_second(NonZeroU32::new(100_000_000).unwrap())
            .allow_burst(NonZeroU32::new(100_000_000).unwrap());
        let governor = RateLimiter::direct(quota);
        group.bench_function("governor", |bencher| {
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || || governor.check().is_ok())
            });
        });
        measure(
            group,
            runtime,
            "tower-keep layer",
            threads,
            keep_limit().layer(Echo),
        );
        measure(
            group,
            runtime,
            "tower-resilience",
            threads,
            their_limit().layer(Echo),
        );
    });
}

fn breaker(criterion: &mut Criterion) {
    each(criterion, "circuit breaker", |group, runtime, threads| {
        measure(
            group,
            runtime,
            "tower-keep",
            threads,
            CircuitBreakerLayer::builder().build().unwrap().layer(Echo),
        );
        measure(
            group,
            runtime,
            "tower-resilience",
            threads,
            circuitbreaker::CircuitBreakerLayer::builder()
                .build()
                .unwrap()
                .layer(Echo),
        );
    });
}

fn bulkheads(criterion: &mut Criterion) {
    each(criterion, "bulkhead", |group, runtime, threads| {
        measure(
            group,
            runtime,
            "tower-keep",
            threads,
            BulkheadLayer::builder(1000).build().unwrap().layer(Echo),
        );
        measure(
            group,
            runtime,
            "tower (semaphore)",
            threads,
            GlobalConcurrencyLimitLayer::new(1000).layer(Echo),
        );
        measure(
            group,
            runtime,
            "tower-resilience",
            threads,
            their_bulkhead().layer(Echo),
        );
    });
}

fn stack(criterion: &mut Criterion) {
    each(criterion, "stack of five", |group, runtime, threads| {
        let ours = ServiceBuilder::new()
            .layer(keep_retry())
            .layer(CircuitBreakerLayer::builder().build().unwrap())
            .layer(keep_limit())
            .layer(BulkheadLayer::builder(1000).build().unwrap())
            .layer(TimeoutLayer::builder(SECOND).build().unwrap());
        measure(group, runtime, "tower-keep", threads, ours.service(Echo));
        let beneath = ServiceBuilder::new()
            .layer(
                circuitbreaker::CircuitBreakerLayer::builder()
                    .build()
                    .unwrap(),
            )
            .layer(their_limit())
            .layer(their_bulkhead())
            .layer(
                timelimiter::TimeLimiterLayer::builder()
                    .timeout_duration(SECOND)
                    .build(),
            );
        // Their retry wants a `Clone` error, which their stack's is not.
        let beneath = beneath.service(Echo);
        let theirs = retry::RetryLayer::<u64, u64, Failed>::builder()
            .max_attempts(3)
            .build();
        let theirs = theirs.layer(tower::util::MapErr::new(beneath, |_| Failed));
        measure(group, runtime, "tower-resilience", threads, theirs);
    });
}

criterion_group!(benches, rate_limit, breaker, bulkheads, stack);
criterion_main!(benches);
