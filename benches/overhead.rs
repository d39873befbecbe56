//! What a layer adds to a call that is admitted and answered at once: each of the five, the stack
//! of five, and the rejections, beside what the machine charges for one shared write and for one
//! look at the clock.
//!
//! `cargo bench --bench overhead` prints times; read them as multiples of the floor that the same
//! run measured.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};

use echo::{Echo, call};
use support::{THREADS, on_threads};
use tower_keep::{
    algorithm::{TokenBucket, adaptive::Vegas},
    bulkhead::{BulkheadGate, BulkheadLayer},
    circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerLayer, CircuitGate},
    gate::{Asking, Chain, GateLayer},
    hedge::HedgeLayer,
    keyed::NotKeyed,
    protocol::{Always, Chosen, ErrIsFailure, Plain},
    rate_limit::{LimitGate, Rate, RateLimitBuilder, RateLimitLayer},
    retry::{RetryBuilder, RetryLayer},
    throttle::{ThrottleBuilder, ThrottleLayer},
    timeout::TimeoutLayer,
};

#[path = "support/echo.rs"]
mod echo;
mod support;

fn limit() -> RateLimitLayer {
    limits().build().unwrap()
}

fn limits() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(100_000_000)).burst(100_000_000)
}

fn breakers() -> CircuitBreakerBuilder<NotKeyed, Chosen<Plain>> {
    CircuitBreakerLayer::builder().protocol(Plain::new())
}

fn breaker() -> CircuitBreakerLayer {
    breakers().build().unwrap()
}

fn bulkhead() -> BulkheadLayer {
    BulkheadLayer::builder(1000).build().unwrap()
}

fn learning(most: usize) -> BulkheadLayer {
    BulkheadLayer::builder(most)
        .adaptive(Vegas::default())
        .build()
        .unwrap()
}

fn throttle() -> ThrottleBuilder<NotKeyed, Chosen<Plain>> {
    ThrottleLayer::builder().protocol(Plain::new())
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::builder(SECOND).build().unwrap()
}

fn retries() -> RetryBuilder<Chosen<Plain<ErrIsFailure, Always>>> {
    RetryLayer::builder().protocol(Plain::new().idempotent())
}

fn retry() -> RetryLayer<Plain<ErrIsFailure, Always>> {
    retries().build().unwrap()
}

fn hedge() -> HedgeLayer<Plain<ErrIsFailure, Always>> {
    HedgeLayer::builder()
        .protocol(Plain::new().idempotent())
        .delay(Duration::from_millis(50))
        .build()
        .unwrap()
}

const SECOND: Duration = Duration::from_secs(1);
const NAME: &str = "bench";

/// Breaker, limit and bulkhead as one layer.
type Together = GateLayer<Chain<CircuitGate, Chain<Asking<LimitGate>, Asking<BulkheadGate>>>>;

fn together() -> Together {
    GateLayer::new((
        CircuitBreakerLayer::builder().gate().unwrap(),
        limits().gate().unwrap(),
        BulkheadLayer::builder(1000).gate().unwrap(),
    ))
    .protocol(Plain::new())
}

fn measure<S>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: usize, service: S)
where
    S: Service<u64> + Clone + Sync,
{
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            on_threads(threads, iterations, || {
                let mut service = service.clone();
                move || call(&mut service)
            })
        });
    });
}

#[allow(clippy::disallowed_methods, reason = "the clock is what is measured")]
fn floors(group: &mut BenchmarkGroup<'_, WallTime>, threads: usize) {
    let word = AtomicU64::new(0);
    group.bench_function("floor: fetch_add", |bencher| {
        bencher.iter_custom(|iterations| {
            on_threads(threads, iterations, || {
                || word.fetch_add(1, Ordering::Relaxed)
            })
        });
    });
    group.bench_function("floor: clock read", |bencher| {
        bencher
            .iter_custom(|iterations| on_threads(threads, iterations, || std::time::Instant::now));
    });
}

fn admitted(criterion: &mut Criterion) {
    for threads in THREADS {
        let mut group = criterion.benchmark_group(format!("admitted, {threads} threads"));
        group.throughput(Throughput::Elements(threads as u64));
        floors(&mut group, threads);
        measure(&mut group, "no layer", threads, Echo);
        measure(&mut group, "rate limit", threads, limit().layer(Echo));
        // All threads ask for the same key: the worst case.
        let keyed = limits()
            .keyed_by(|request: &u64| Some(*request))
            .build()
            .unwrap();
        measure(&mut group, "keyed rate limit", threads, keyed.layer(Echo));
        let own = |_: &u64| TokenBucket::new(Rate::per_second(100_000_000), 100_000_000);
        let listed = limits()
            .per_key(|request: &u64| Some(*request), own)
            .build()
            .unwrap();
        measure(
            &mut group,
            "per-key rate limit",
            threads,
            listed.layer(Echo),
        );
        measure(
            &mut group,
            "circuit breaker",
            threads,
            breaker().layer(Echo),
        );
        measure(&mut group, "bulkhead", threads, bulkhead().layer(Echo));
        let waits = BulkheadLayer::builder(1000).max_wait(Duration::from_secs(1));
        let waits = waits.build().unwrap().layer(Echo);
        measure(&mut group, "bulkhead that may wait", threads, waits);
        let learns = learning(1000).layer(Echo);
        measure(&mut group, "bulkhead that learns", threads, learns);
        let single = throttle().build().unwrap();
        measure(&mut group, "throttle", threads, single.layer(Echo));
        let keyed = throttle().keyed_by(|request: &u64| Some(*request));
        let keyed = keyed.build().unwrap();
        measure(&mut group, "keyed throttle", threads, keyed.layer(Echo));
        measure(&mut group, "retry", threads, retry().layer(Echo));
        measure(&mut group, "hedge", threads, hedge().layer(Echo));
        let learns = HedgeLayer::builder().protocol(Plain::new().idempotent());
        let learns = learns.build().unwrap();
        measure(&mut group, "hedge by quantile", threads, learns.layer(Echo));
        measure(&mut group, "timeout", threads, timeout().layer(Echo));
        let stack = ServiceBuilder::new()
            .layer(retry())
            .layer(breaker())
            .layer(limit())
            .layer(bulkhead())
            .layer(timeout());
        measure(&mut group, "stack of five", threads, stack.service(Echo));
        let stack = ServiceBuilder::new()
            .layer(retries().name(NAME).build().unwrap())
            .layer(breakers().name(NAME).build().unwrap())
            .layer(limits().name(NAME).build().unwrap())
            .layer(BulkheadLayer::builder(1000).name(NAME).build().unwrap())
            .layer(TimeoutLayer::builder(SECOND).name(NAME).build().unwrap());
        let five = stack.service(Echo);
        measure(&mut group, "stack of five that is observed", threads, five);
        let three = together().layer(Echo);
        measure(&mut group, "three gates as one layer", threads, three);
        let stack = ServiceBuilder::new()
            .layer(retry())
            .layer(together())
            .layer(timeout());
        let five = stack.service(Echo);
        measure(&mut group, "five, three gates as one", threads, five);
    }
}

fn rejected(criterion: &mut Criterion) {
    for threads in THREADS {
        let mut group = criterion.benchmark_group(format!("rejected, {threads} threads"));
        group.throughput(Throughput::Elements(threads as u64));
        floors(&mut group, threads);
        let empty = RateLimitLayer::builder(Rate::per_day(1))
            .burst(1)
            .build()
            .unwrap();
        call(&mut empty.layer(Echo));
        measure(&mut group, "rate limit", threads, empty.layer(Echo));
        let keyed = RateLimitLayer::builder(Rate::per_day(1))
            .burst(1)
            .keyed_by(|request: &u64| Some(*request))
            .build()
            .unwrap();
        call(&mut keyed.layer(Echo));
        measure(&mut group, "keyed rate limit", threads, keyed.layer(Echo));
        let open = breaker();
        open.handle().force_open();
        measure(&mut group, "circuit breaker", threads, open.layer(Echo));
        let full = BulkheadLayer::builder(1).build().unwrap();
        let _held = full.layer(Echo).call(7);
        measure(&mut group, "bulkhead", threads, full.layer(Echo));
        let full = learning(1);
        let _held = full.layer(Echo).call(7);
        let full = full.layer(Echo);
        measure(&mut group, "bulkhead that learns", threads, full);
        let single = throttle().max_rejection(1.0).build().unwrap();
        overload(&mut single.layer(service_fn(down)));
        measure(&mut group, "throttle", threads, single.layer(Echo));
        let keyed = throttle().max_rejection(1.0);
        let keyed = keyed.keyed_by(|request: &u64| Some(*request));
        let keyed = keyed.build().unwrap();
        overload(&mut keyed.layer(service_fn(down)));
        measure(&mut group, "keyed throttle", threads, keyed.layer(Echo));
    }
}

async fn down(_: u64) -> Result<u64, BoxError> {
    Err("too much".into())
}

/// Fails until all but one call in ten thousand is rejected.
fn overload(service: &mut impl Service<u64>) {
    for _ in 0..10_000 {
        call(service);
    }
}

/// What a scrape costs before the recorder renders.
#[cfg(feature = "metrics")]
fn published(criterion: &mut Criterion) {
    use tower_keep::{observe::Registry, stack};

    let layers: Vec<_> = (0..1000)
        .map(|number| {
            let builder = CircuitBreakerLayer::builder().protocol(Plain::new());
            builder.name(format!("upstream {number}")).build().unwrap()
        })
        .collect();
    let recorder = || metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let local = recorder();
    criterion.bench_function("published to a local recorder, 1000 breakers", |bencher| {
        bencher.iter(|| {
            metrics::with_local_recorder(&local, || Registry::global().publish());
        });
    });
    assert!(metrics::set_global_recorder(recorder()).is_ok());
    criterion.bench_function("published, 1000 circuit breakers", |bencher| {
        bencher.iter(|| Registry::global().publish());
    });
    drop(layers);

    // Five named parts each, and one call, so that each histogram holds something.
    let stacks: Vec<_> = (0..200)
        .map(|number| {
            let builder = stack::client().plain(Plain::new().idempotent());
            // A literal as far as the names are concerned, of which there is room for 1024.
            let name: &str = format!("stack {number}").leak();
            let stack = builder.name(name).build().unwrap();
            call(&mut stack.layer(Echo));
            stack
        })
        .collect();
    criterion.bench_function("published, 200 stacks of five", |bencher| {
        bencher.iter(|| Registry::global().publish());
    });
    drop(stacks);
}

#[cfg(not(feature = "metrics"))]
fn published(_: &mut Criterion) {}

/// What a look at a page costs before it is written: four patterns, after a call each.
fn snapshots(criterion: &mut Criterion) {
    use tower_keep::observe::Registry;

    let registry = Registry::new();
    let layers: Vec<_> = (0..250)
        .map(|number| {
            let name: &str = format!("instance {number}").leak();
            registry.with(|| {
                let breaker = CircuitBreakerLayer::builder().protocol(Plain::new());
                let breaker = breaker.name(name).build().unwrap();
                let bulkhead = BulkheadLayer::builder(10).name(name).build().unwrap();
                let limit = RateLimitLayer::builder(Rate::per_second(1000)).name(name);
                let limit = limit.build().unwrap();
                let timeout = TimeoutLayer::builder(Duration::from_secs(1)).name(name);
                let timeout = timeout.build().unwrap();
                let layers = (timeout, breaker, limit, bulkhead);
                call(&mut ServiceBuilder::new().layer(layers.clone()).service(Echo));
                layers
            })
        })
        .collect();
    assert_eq!(registry.snapshot().len(), 1000);
    criterion.bench_function("a snapshot of 1000 instances", |bencher| {
        bencher.iter(|| registry.snapshot());
    });
    drop(layers);
}

criterion_group!(benches, admitted, rejected, snapshots, published);
criterion_main!(benches);
