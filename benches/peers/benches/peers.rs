//! One admitted call, by pattern and by crate, on 1, 2, 4 and 8 threads that share one instance.
//!
//! `cargo bench` in this folder prints times; compare rows of one group, which are of one run.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Waker},
};

use backon::{ExponentialBuilder, Retryable};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use failsafe::futures::CircuitBreaker;
use governor::RateLimiter;
use recloser::Recloser;
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, Layer, Service, limit::GlobalConcurrencyLimitLayer, service_fn};
use tower_resilience::retry;

use support::{THREADS, on_threads};
use tower_keep::{
    Run,
    algorithm::{Rate, TokenBucket},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::Plain,
    retry::{Backoff, RetryLayer},
    run,
};
use tower_keep_peers::{
    leaf::Echo,
    mixed::recloser_layer,
    stacks::{
        keep_five, keep_limit, mixed_five, quota, resilience_breaker, resilience_bulkhead,
        resilience_five, resilience_limit, seatbelt_breaker,
    },
};

#[path = "../../support/mod.rs"]
mod support;

/// One call to its end; all that is compared here answers at once.
fn call<S: Service<u64>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    while service.poll_ready(&mut cx).is_pending() {}
    finish(service.call(7));
}

fn finish(future: impl Future) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    while black_box(future.as_mut().poll(&mut cx)).is_pending() {}
}

/// What is called through the crates that need no service.
async fn function() -> Result<u64, BoxError> {
    Ok(black_box(7))
}

/// One call of a function, which `begin` begins.
fn measure_function<F: Future>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    (name, threads): (&str, usize),
    begin: impl Fn() -> F + Sync,
) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            on_threads(threads, iterations, || {
                let (entered, begin) = (runtime.enter(), &begin);
                move || {
                    let _ = &entered;
                    finish(begin());
                }
            })
        });
    });
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
    let _entered = runtime.enter();
    for threads in THREADS {
        let mut group = criterion.benchmark_group(format!("{pattern}, {threads} threads"));
        group.throughput(Throughput::Elements(threads as u64));
        rows(&mut group, &runtime, threads);
    }
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
        let governor = RateLimiter::direct(quota());
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
            resilience_limit().layer(Echo),
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
            CircuitBreakerLayer::builder()
                .protocol(Plain::new())
                .build()
                .unwrap()
                .layer(Echo),
        );
        measure(
            group,
            runtime,
            "tower-resilience",
            threads,
            resilience_breaker().layer(Echo),
        );
        let reclosed = recloser_layer(Recloser::custom().build());
        measure(group, runtime, "recloser", threads, reclosed.layer(Echo));
        measure(
            group,
            runtime,
            "seatbelt",
            threads,
            seatbelt_breaker().layer(Echo),
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
            resilience_bulkhead().layer(Echo),
        );
    });
}

fn stack(criterion: &mut Criterion) {
    each(criterion, "stack of five", |group, runtime, threads| {
        measure(group, runtime, "tower-keep", threads, keep_five(Echo));
        measure(group, runtime, "mixed five", threads, mixed_five(Echo));
        measure(
            group,
            runtime,
            "tower-resilience",
            threads,
            resilience_five(Echo),
        );
    });
}

fn functions(criterion: &mut Criterion) {
    each(criterion, "function, retried", |group, runtime, threads| {
        measure_function(group, runtime, ("floor: the function", threads), function);
        let alone = || run::retry(Backoff::default(), function);
        measure_function(
            group,
            runtime,
            ("tower-keep without a layer", threads),
            alone,
        );
        let layer = RetryLayer::builder().protocol(Plain::new().idempotent());
        let layer = layer.build().unwrap();
        measure_function(group, runtime, ("tower-keep", threads), || {
            layer.run(function)
        });
        let backon = || function.retry(ExponentialBuilder::default());
        measure_function(group, runtime, ("backon", threads), backon);
        let resilience = retry::RetryLayer::<u64, u64, BoxError>::builder().build();
        let service = resilience.layer(service_fn(|_| function()));
        measure(group, runtime, "tower-resilience", threads, service);
    });
    each(criterion, "function, circuit", |group, runtime, threads| {
        let layer = CircuitBreakerLayer::builder().protocol(Plain::new());
        let layer = layer.build().unwrap();
        measure_function(group, runtime, ("tower-keep", threads), || {
            layer.run(function)
        });
        let failsafe = failsafe::Config::new().build();
        let begin = || failsafe.call(function());
        measure_function(group, runtime, ("failsafe", threads), begin);
        let service = resilience_breaker().layer(service_fn(|_: u64| function()));
        measure(group, runtime, "tower-resilience", threads, service);
    });
}

criterion_group!(benches, rate_limit, breaker, bulkheads, stack, functions);
criterion_main!(benches);
