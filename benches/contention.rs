//! What decisions cost when threads share them: one limiter, and many keys of which all or a few
//! are popular, beside a bare compare-and-swap loop on one word and a clock read. A function for
//! each family of algorithms.
//!
//! `cargo bench --bench contention` prints calls a second; read them as fractions of what the same
//! run's loop does.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};

use tower::{Layer, Service, limit::GlobalConcurrencyLimitLayer};

use echo::{Echo, call};
use support::{THREADS, on_threads};
use tower_keep::{
    algorithm::{
        InFlight, KeyedBuckets, LeakyBucket, Lease, Limit, Overflow, Rate, SlidingCounter,
        SlidingLog, SlidingRing, TokenBucket,
    },
    bulkhead::{BulkheadBuilder, BulkheadLayer},
};

#[path = "support/echo.rs"]
mod echo;
mod support;

/// All that a token bucket holds: more than any one bench takes, so that time can stand still and
/// nothing is denied.
const BURST: u32 = (1 << 27) - 1;
const KEYS: usize = 10_000;
/// By how much each call moves the time that threads share, where the limit needs time to pass:
/// enough that all of the calls that any limit here still counts would fit.
const STEP: u64 = 10_000;
const FAR: u64 = u64::MAX >> 8;

#[allow(clippy::disallowed_methods, reason = "the clock is what is measured")]
fn floor(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor");
    let word = AtomicU64::new(0);
    for threads in THREADS {
        contended(&mut group, "compare_exchange loop", threads, || {
            || word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(word + 1))
        });
        contended(&mut group, "clock", threads, || std::time::Instant::now);
        contended(&mut group, "shared time", threads, || {
            || word.fetch_add(STEP, Ordering::Relaxed)
        });
    }
}

fn one_limit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one limit");
    let rate = Rate::per_second(1_000_000);
    admitted(&mut group, "token_bucket", || {
        TokenBucket::new(rate, BURST).unwrap()
    });
    admitted(&mut group, "sliding_ring", || {
        SlidingRing::new(Rate::per_second(u64::from(u32::MAX)), 10).unwrap()
    });
    // The others hold too few for time to stand still.
    let rate = Rate::new(1000, Duration::from_millis(1));
    in_shared_time(&mut group, "token_bucket", || {
        TokenBucket::new(rate, 1000).unwrap()
    });
    in_shared_time(&mut group, "leaky_bucket", || {
        LeakyBucket::new(rate, Duration::ZERO).unwrap()
    });
    in_shared_time(&mut group, "sliding_log", || SlidingLog::new(rate).unwrap());
    in_shared_time(&mut group, "sliding_ring", || {
        SlidingRing::new(rate, 10).unwrap()
    });
    in_shared_time(&mut group, "sliding_counter", || {
        SlidingCounter::new(rate).unwrap()
    });
    // What is denied costs no write.
    denied(
        &mut group,
        "token_bucket",
        &TokenBucket::new(rate, 1).unwrap(),
    );
    denied(
        &mut group,
        "sliding_counter",
        &SlidingCounter::new(rate).unwrap(),
    );
    denied(
        &mut group,
        "sliding_ring",
        &SlidingRing::new(rate, 10).unwrap(),
    );
    denied(&mut group, "sliding_log", &SlidingLog::new(rate).unwrap());
    denied(
        &mut group,
        "leaky_bucket",
        &LeakyBucket::new(rate, Duration::ZERO).unwrap(),
    );
}

/// A call that spends a lease of a limit that processes share, beside one of a local limit.
fn leases(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("leases");
    let bucket = TokenBucket::new(Rate::per_second(1_000_000), BURST).unwrap();
    let lease = Lease::new();
    for threads in THREADS {
        bucket.reset(0);
        contended(&mut group, "token_bucket", threads, || {
            || assert!(bucket.acquire(1, 0).is_ok())
        });
        lease.add(BURST, 1 << 31, 0);
        contended(&mut group, "lease", threads, || {
            || assert!(lease.spend(1, 0))
        });
        lease.drain(BURST, 0);
    }
}

/// A place taken and given back: by an atomic that knows no limit, by ours, and by tokio's
/// semaphore, which takes a mutex on each release.
fn places(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("places");
    let (bare, in_flight) = (AtomicU64::new(0), InFlight::new(1000));
    let semaphore = tokio::sync::Semaphore::new(1000);
    for threads in THREADS {
        contended(&mut group, "bare atomic", threads, || {
            || {
                bare.fetch_add(1, Ordering::Relaxed);
                bare.fetch_sub(1, Ordering::Relaxed)
            }
        });
        contended(&mut group, "in_flight", threads, || {
            || {
                assert!(in_flight.enter());
                in_flight.leave();
            }
        });
        contended(&mut group, "tokio semaphore", threads, || {
            || drop(semaphore.try_acquire().unwrap())
        });
    }
    // Full: what a rejection costs.
    let (full, taken) = (InFlight::new(0), tokio::sync::Semaphore::new(0));
    for threads in THREADS {
        contended(&mut group, "in_flight/full", threads, || {
            || assert!(!full.enter())
        });
        contended(&mut group, "tokio semaphore/full", threads, || {
            || taken.try_acquire().is_err()
        });
    }
}

/// A call through a bulkhead of 1000 places: ours, tower's over a semaphore, and what the least
/// code around a call would be, with a semaphore or an atomic alone.
fn bulkheads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bulkhead layers");
    let (bare, semaphore) = (AtomicU64::new(0), tokio::sync::Semaphore::new(1000));
    let waits = |builder: BulkheadBuilder| builder.max_wait(Duration::from_secs(1));
    for threads in THREADS {
        let group = &mut group;
        contended(group, "no layer", threads, || || call(&mut Echo));
        contended(group, "bare atomic", threads, || {
            || {
                bare.fetch_add(1, Ordering::Relaxed);
                call(&mut Echo);
                bare.fetch_sub(1, Ordering::Relaxed)
            }
        });
        contended(group, "tokio semaphore", threads, || {
            || {
                let permit = semaphore.try_acquire().unwrap();
                call(&mut Echo);
                drop(permit);
            }
        });
        let tower = GlobalConcurrencyLimitLayer::new(1000).layer(Echo);
        layered(group, "tower concurrency limit", threads, &tower);
        let bulkhead = BulkheadLayer::builder(1000);
        layered(group, "bulkhead", threads, &layer_of(bulkhead));
        let queued = waits(BulkheadLayer::builder(1000));
        layered(group, "bulkhead that may wait", threads, &layer_of(queued));
    }
}

fn layer_of(builder: BulkheadBuilder) -> impl Service<u64> + Clone + Sync {
    builder.build().unwrap().layer(Echo)
}

fn layered<S>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: usize, service: &S)
where
    S: Service<u64> + Clone + Sync,
{
    contended(group, name, threads, || {
        let mut service = service.clone();
        move || call(&mut service)
    });
}

fn many_keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("many keys");
    for (name, zipf) in [("uniform", false), ("zipf", true)] {
        let keys = popularity(zipf);
        for (path, closed) in [("admitted", false), ("denied", true)] {
            for threads in THREADS {
                let buckets =
                    KeyedBuckets::new(Rate::per_second(1_000_000), BURST, KEYS, Overflow::Shared)
                        .unwrap();
                keys.iter()
                    .filter(|_| closed)
                    .for_each(|key| buckets.close_until(*key, FAR, 0));
                contended(&mut group, &format!("{name}/{path}"), threads, || {
                    let mut next = 0;
                    let (buckets, keys) = (&buckets, &keys);
                    move || {
                        next = (next + 7919) % keys.len();
                        assert!(buckets.acquire(keys[next], 1, 0).is_err() == closed);
                    }
                });
            }
        }
    }
}

/// Each call brings a key that was never seen before: to a table whose keys are all in debt, so
/// that it ends in the overflow, and to one whose debts are paid, where each pushes an old key out.
fn new_keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new keys");
    for (name, step) in [
        ("into a full table", 0),
        ("each in place of an old one", STEP),
    ] {
        for threads in THREADS {
            let buckets =
                KeyedBuckets::new(Rate::per_second(1_000_000), 1, KEYS, Overflow::Shared).unwrap();
            let (time, seeds) = (AtomicU64::new(0), AtomicU64::new(1));
            let full = (0..KEYS as u64 * 10).filter(|_| step == 0);
            full.for_each(|key| buckets.charge(hash(key), 1_000_000_000, 0));
            contended(&mut group, name, threads, || {
                let mut key = seeds.fetch_add(1, Ordering::Relaxed) << 40;
                let (buckets, time) = (&buckets, &time);
                move || {
                    key += 1;
                    let now = if step == 0 {
                        0
                    } else {
                        time.fetch_add(step, Ordering::Relaxed)
                    };
                    buckets.acquire(hash(key), 1, now)
                }
            });
        }
    }
}

fn admitted<L: Limit>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, limit: impl Fn() -> L) {
    for threads in THREADS {
        let limit = limit();
        contended(group, &format!("{name}/admitted"), threads, || {
            || limit.acquire(1, 0).unwrap()
        });
    }
}

/// Admitted as time passes, which threads share: what `floor/shared time` takes is in it. One that
/// was stopped with an old time in its hand may find the limit ahead of it; it asks again, as one
/// more call.
fn in_shared_time<L: Limit>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    limit: impl Fn() -> L,
) {
    for threads in THREADS {
        let (limit, time) = (limit(), AtomicU64::new(0));
        contended(
            group,
            &format!("{name}/admitted in shared time"),
            threads,
            || {
                || {
                    while limit
                        .acquire(1, time.fetch_add(STEP, Ordering::Relaxed))
                        .is_err()
                    {}
                }
            },
        );
    }
}

fn denied(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, limit: &dyn Limit) {
    limit.close_until(FAR, 0);
    for threads in THREADS {
        contended(group, &format!("{name}/denied"), threads, || {
            || limit.acquire(1, 0).unwrap_err()
        });
    }
}

/// Hashes in the order in which they are asked for: each as often, or the k-th most popular 1/k
/// times as often as the first.
fn popularity(zipf: bool) -> Vec<u64> {
    (0..KEYS)
        .flat_map(|key| vec![hash(key as u64); if zipf { (KEYS / (key + 1)).max(1) } else { 1 }])
        .collect()
}

fn hash(key: u64) -> u64 {
    (key + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn contended<W, T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    threads: usize,
    worker: impl Fn() -> W + Sync,
) where
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
    targets = floor, one_limit, leases, places, bulkheads, many_keys, new_keys
}
criterion_main!(benches);
