//! What the circuit breaker costs, beside the least that any could: bare atomics, and a clock read.
//!
//! `cargo bench --bench breaker`. Use the ratios within one run: the machine's own speed cancels
//! out. The groups: one thread; the window's size; one instance under 1, 2, 4 and 8 threads (time
//! of one thread's call, with all at it).
#![allow(
    clippy::disallowed_methods,
    reason = "measures what a clock read costs, and how long threads take"
)]

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tower_keep::{
    Outcome,
    algorithm::{Breaker, BreakerConfig, SlowCalls, Window},
};

const SECOND: u64 = 1_000_000_000;

fn breaker(change: impl FnOnce(&mut BreakerConfig)) -> Breaker {
    let mut config = BreakerConfig::default();
    change(&mut config);
    Breaker::new(&config, 8, 0).unwrap()
}

fn default_breaker() -> Breaker {
    breaker(|_| {})
}

fn watching_slow_calls() -> Breaker {
    breaker(|config| {
        config.slow_calls = Some(SlowCalls {
            after: Duration::from_secs(1),
            rate: 0.5,
        });
    })
}

/// One call that succeeds, on a closed circuit.
fn succeed(breaker: &Breaker, stripe: usize, now: u64) {
    let pass = match breaker.admit_if_closed() {
        Some(pass) => pass,
        None => breaker.admit(stripe, now).0.unwrap(),
    };
    black_box(breaker.record(pass, Outcome::Success, None, stripe, now));
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one thread");
    let word = AtomicU64::new(0);
    group.bench_function("floor: load", |bencher| {
        bencher.iter(|| black_box(word.load(Ordering::Acquire)));
    });
    group.bench_function("floor: fetch_add", |bencher| {
        bencher.iter(|| black_box(word.fetch_add(1, Ordering::Relaxed)));
    });
    group.bench_function("floor: clock read", |bencher| {
        bencher.iter(|| black_box(Instant::now()));
    });

    let closed = default_breaker();
    group.bench_function("closed: admit + success", |bencher| {
        bencher.iter(|| succeed(black_box(&closed), 0, SECOND));
    });
    let slow = watching_slow_calls();
    group.bench_function("closed, slow calls watched: admit + success", |bencher| {
        bencher.iter(|| succeed(black_box(&slow), 0, SECOND));
    });
    let calls = breaker(|config| config.window = Window::Calls(100));
    group.bench_function("closed, window of 100 calls: admit + success", |bencher| {
        bencher.iter(|| succeed(black_box(&calls), 0, SECOND));
    });
    let failing = breaker(|config| config.min_calls = u32::MAX);
    group.bench_function("closed: admit + failure", |bencher| {
        bencher.iter(|| {
            let pass = failing.admit_if_closed().unwrap();
            black_box(failing.record(pass, Outcome::Failure, None, 0, SECOND))
        });
    });
    let open = default_breaker();
    open.force_open();
    group.bench_function("open: refuse", |bencher| {
        bencher.iter(|| black_box(open.admit(0, SECOND).0.is_err()));
    });
    group.finish();
}

/// A success among a thousand to ten million calls already in the window, and the dearest result: a
/// failure that looks at all of it.
fn window_size(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("calls in the window");
    for calls in [1_000u64, 100_000, 10_000_000] {
        let breaker = breaker(|config| config.min_calls = u32::MAX);
        for call in 0..calls {
            succeed(
                &breaker,
                usize::try_from(call % 8).unwrap(),
                SECOND * (call * 9 / calls),
            );
        }
        let now = 9 * SECOND;
        group.bench_with_input(
            BenchmarkId::new("admit + success", calls),
            &now,
            |bencher, now| {
                bencher.iter(|| succeed(black_box(&breaker), 0, *now));
            },
        );
        group.bench_with_input(
            BenchmarkId::new("counts of the whole window", calls),
            &now,
            |bencher, now| {
                bencher.iter(|| black_box(breaker.counts(*now)));
            },
        );
    }
    group.finish();
}

/// The time of `iterations` on each of so many threads at once.
fn contended(threads: usize, iterations: u64, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads + 1);
    thread::scope(|scope| {
        for stripe in 0..threads {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..iterations {
                    work(stripe);
                }
                barrier.wait();
            });
        }
        barrier.wait();
        let start = Instant::now();
        barrier.wait();
        start.elapsed()
    })
}

fn many_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("threads");
    for threads in [1, 2, 4, 8] {
        let mut bench = |name: &str, work: &(dyn Fn(usize) + Sync)| {
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                bencher.iter_custom(|iterations| contended(threads, iterations, work));
            });
        };
        let shared = AtomicU64::new(0);
        bench("floor: fetch_add on one word", &|_| {
            black_box(shared.fetch_add(1, Ordering::Relaxed));
        });
        let closed = default_breaker();
        bench("closed: admit + success", &|stripe| {
            succeed(&closed, stripe, SECOND);
        });
        let slow = watching_slow_calls();
        bench("closed, slow calls watched: admit + success", &|stripe| {
            succeed(&slow, stripe, SECOND);
        });
        let calls = breaker(|config| config.window = Window::Calls(100));
        bench("closed, window of 100 calls: admit + success", &|stripe| {
            succeed(&calls, stripe, SECOND);
        });
        let open = default_breaker();
        open.force_open();
        bench("open: refuse", &|stripe| {
            black_box(open.admit(stripe, SECOND).0.is_err());
        });
    }
    group.finish();
}

fn brief() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = brief(); targets = one_thread, window_size, many_threads }
criterion_main!(benches);
