//! What decisions cost when threads share them: one limiter, and many keys of which all or a few are popular, beside
//! a bare compare-and-swap loop on one word and a clock read. A function for each family of algorithms.
//!
//! `cargo bench --bench contention` prints calls a second; read them as fractions of what the same run's loop does.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};

use support::{THREADS, on_threads};
use tower_keep::algorithm::{KeyedBuckets, Limit, Overflow, Rate, SlidingCounter, SlidingLog, SlidingRing, TokenBucket};

mod support;

/// All that a token bucket holds: more than any one bench takes, so that time can stand still and nothing is denied.
const BURST: u32 = (1 << 27) - 1;
const KEYS: usize = 10_000;

#[allow(clippy::disallowed_methods, reason = "the clock is what is measured")]
fn floor(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor");
    let word = AtomicU64::new(0);
    for threads in THREADS {
        contended(&mut group, "compare_exchange loop", threads, || {
            || word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(word + 1))
        });
        contended(&mut group, "clock", threads, || std::time::Instant::now);
    }
}

fn one_limit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one limit");
    let rate = Rate::per_second(1_000_000);
    admitted(&mut group, "token_bucket", || TokenBucket::new(rate, BURST).unwrap());
    admitted(&mut group, "sliding_ring", || SlidingRing::new(Rate::per_second(u64::from(u32::MAX)), 10).unwrap());
    // The others hold too few for an admission a nanosecond; what they deny costs no write.
    denied(&mut group, "token_bucket", &TokenBucket::new(rate, 1).unwrap());
    denied(&mut group, "sliding_counter", &SlidingCounter::new(rate).unwrap());
    denied(&mut group, "sliding_ring", &SlidingRing::new(rate, 10).unwrap());
    denied(&mut group, "sliding_log", &SlidingLog::new(rate).unwrap());
}

fn many_keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("many keys");
    for (name, zipf) in [("uniform", false), ("zipf", true)] {
        let keys = popularity(zipf);
        for threads in THREADS {
            let buckets = KeyedBuckets::new(Rate::per_second(1_000_000), BURST, KEYS, Overflow::Shared).unwrap();
            contended(&mut group, name, threads, || {
                let mut next = 0;
                let (buckets, keys) = (&buckets, &keys);
                move || {
                    next = (next + 7919) % keys.len();
                    buckets.acquire(keys[next], 1, 0).unwrap();
                }
            });
        }
    }
}

fn admitted<L: Limit>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, limit: impl Fn() -> L) {
    for threads in THREADS {
        let limit = limit();
        contended(group, &format!("{name}/admitted"), threads, || || limit.acquire(1, 0).unwrap());
    }
}

fn denied(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, limit: &dyn Limit) {
    limit.close_until(u64::MAX >> 8, 0);
    for threads in THREADS {
        contended(group, &format!("{name}/denied"), threads, || || limit.acquire(1, 0).unwrap_err());
    }
}

/// Hashes in the order in which they are asked for: each as often, or the k-th most popular 1/k times as often as the
/// first.
fn popularity(zipf: bool) -> Vec<u64> {
    let hash =
        |key: usize| (key as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (0..KEYS).flat_map(|key| vec![hash(key); if zipf { (KEYS / (key + 1)).max(1) } else { 1 }]).collect()
}

fn contended<W, T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: usize, worker: impl Fn() -> W + Sync)
where
    W: FnMut() -> T,
{
    group.throughput(Throughput::Elements(threads as u64));
    group.bench_function(BenchmarkId::new(name, threads), |bencher| {
        bencher.iter_custom(|iterations| on_threads(threads, iterations, &worker));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300)).sample_size(10);
    targets = floor, one_limit, many_keys
}
criterion_main!(benches);
