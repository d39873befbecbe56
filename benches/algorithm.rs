//! What one decision costs on one thread: each limit, admitted and denied, beside what the machine
//! charges for one compare-and-swap and for one look at the clock. A function for each family of
//! algorithms.
//!
//! `cargo bench --bench algorithm` prints times; read them as multiples of the floor that the same
//! run measured.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use tower_keep::algorithm::{
    All, KeyedBuckets, LeakyBucket, Limit, Overflow, Rate, SlidingCounter, SlidingLog, SlidingRing,
    TokenBucket,
};

/// Between two calls: long enough that every limit below admits all of them.
const STEP: u64 = 10_000_000;
const HOUR: u64 = 3_600_000_000_000;

#[allow(clippy::disallowed_methods, reason = "the clock is what is measured")]
fn floor(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor");
    let word = AtomicU64::new(0);
    group.bench_function("compare_exchange", |bencher| {
        bencher.iter(|| {
            let current = word.load(Ordering::Relaxed);
            black_box(word.compare_exchange(
                current,
                current + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ))
        });
    });
    group.bench_function("clock", |bencher| bencher.iter(std::time::Instant::now));
}

fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit");
    let rate = Rate::per_second(1000);
    let bucket = || TokenBucket::new(rate, 10).unwrap();
    both(&mut group, "token_bucket", &bucket());
    both(
        &mut group,
        "leaky_bucket",
        &LeakyBucket::new(rate, Duration::ZERO).unwrap(),
    );
    both(&mut group, "sliding_log", &SlidingLog::new(rate).unwrap());
    both(
        &mut group,
        "sliding_ring",
        &SlidingRing::new(rate, 10).unwrap(),
    );
    both(
        &mut group,
        "sliding_counter",
        &SlidingCounter::new(rate).unwrap(),
    );
    both(&mut group, "all_of_two", &All::new(bucket()).and(bucket()));
}

fn keyed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keyed");
    let buckets = KeyedBuckets::new(Rate::per_second(1000), 10, 100_000, Overflow::Reject).unwrap();
    let (mut now, mut key) = (0, 0u64);
    group.bench_function("one key/admitted", |bencher| {
        bencher.iter(|| {
            now += STEP;
            buckets
                .acquire(black_box(0x9e37_79b9_7f4a_7c15), 1, now)
                .unwrap();
        });
    });
    group.bench_function("always a new key/admitted", |bencher| {
        bencher.iter(|| {
            now += STEP;
            key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
            buckets.acquire(black_box(key), 1, now).unwrap();
        });
    });
}

/// The admitted path, and then, of the same limit with nothing left, the denied one.
fn both(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, limit: &dyn Limit) {
    let mut now = 0;
    group.bench_function(format!("{name}/admitted"), |bencher| {
        bencher.iter(|| {
            now += STEP;
            limit.acquire(1, now).unwrap();
        });
    });
    while limit.acquire(1, now).is_ok() {}
    limit.close_until(now + HOUR, now);
    group.bench_function(format!("{name}/denied"), |bencher| {
        bencher.iter(|| limit.acquire(black_box(1), now).unwrap_err());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500)).sample_size(20);
    targets = floor, limits, keyed
}
criterion_main!(benches);
