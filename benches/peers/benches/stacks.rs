//! The stack of five by several crates: a call that succeeds, over a service that answers at once
//! and over one that suspends once; on one thread, and by 64 tasks on a runtime of two workers.
//!
//! `cargo bench --bench stacks` takes a minute and prints nanoseconds a call and ratios; `--
//! --quick` takes seconds and shows only that all of it works. Rounds are interleaved, and each
//! figure is the best of its rounds, because what else the machine does can only slow a round down.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use tower_keep_peers::{
    leaf::{Echo, Yields},
    stacks::{Leaf, Stack, keep_five, mixed_five, resilience_five, seatbelt_five},
};

const TASKS: u64 = 64;

/// All that is compared, over one leaf; the first is what the others are measured over, the second
/// is what they are compared with. A new stack is one row here.
fn contenders(leaf: impl Leaf) -> Vec<Contender> {
    vec![
        contender("no layer", leaf.clone()),
        contender("tower-keep", keep_five(leaf.clone())),
        contender("mixed five", mixed_five(leaf.clone())),
        contender("seatbelt, governor, tower", seatbelt_five(leaf.clone())),
        contender("tower-resilience", resilience_five(leaf)),
    ]
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, calls) = if quick { (2, 2_000) } else { (25, 100_000) };
    let one = Builder::new_current_thread().enable_time().build().unwrap();
    let two = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    for (leaf, contenders) in [
        ("ready", one.block_on(async { contenders(Echo) })),
        ("suspended once", one.block_on(async { contenders(Yields) })),
    ] {
        let alone = best(rounds, &contenders, |contender| {
            let _entered = one.enter();
            (contender.alone)(calls)
        });
        table(&format!("{leaf}, one thread"), &contenders, &alone);
        let together = best(rounds, &contenders, |contender| {
            (contender.by_tasks)(&two, calls)
        });
        table(
            &format!("{leaf}, {TASKS} tasks on 2 workers"),
            &contenders,
            &together,
        );
    }
}

struct Contender {
    name: &'static str,
    alone: Box<dyn Fn(u64) -> Duration>,
    by_tasks: Box<dyn Fn(&Runtime, u64) -> Duration>,
}

fn contender<S: Stack>(name: &'static str, service: S) -> Contender {
    let shared = service.clone();
    Contender {
        name,
        alone: Box::new(move |calls| alone(service.clone(), calls)),
        by_tasks: Box::new(move |runtime, calls| by_tasks(runtime, &shared, calls)),
    }
}

/// The best time of one call of each contender.
fn best(
    rounds: usize,
    contenders: &[Contender],
    nanos: impl Fn(&Contender) -> Duration,
) -> Vec<Duration> {
    let mut best = vec![Duration::MAX; contenders.len()];
    for _ in 0..rounds {
        for (best, contender) in best.iter_mut().zip(contenders) {
            *best = nanos(contender).min(*best);
        }
    }
    best
}

/// The time of 1000 calls: `Duration` counts whole nanoseconds, and one call takes few of them.
fn for_a_thousand(elapsed: Duration, calls: u64) -> Duration {
    elapsed.mul_f64(1000.0 / calls as f64)
}

fn alone<S: Stack>(mut service: S, calls: u64) -> Duration {
    let mut cx = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for _ in 0..calls {
        while service.poll_ready(&mut cx).is_pending() {}
        let mut future = pin!(service.call(black_box(7)));
        while black_box(future.as_mut().poll(&mut cx)).is_pending() {}
    }
    for_a_thousand(start.elapsed(), calls)
}

fn by_tasks<S: Stack>(runtime: &Runtime, service: &S, calls: u64) -> Duration {
    let each = calls / TASKS;
    let start = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let mut service = service.clone();
            runtime.spawn(async move {
                for _ in 0..each {
                    let service = service.ready().await.ok().expect("readiness");
                    assert!(service.call(black_box(7)).await.is_ok());
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("a task panicked");
        }
    });
    for_a_thousand(start.elapsed(), each * TASKS)
}

fn table(title: &str, contenders: &[Contender], best: &[Duration]) {
    let over_leaf = |time: &Duration| time.saturating_sub(best[0]).as_secs_f64() * 1e6;
    let ours = over_leaf(&best[1]);
    println!(
        "\n{title}\n{:<28}{:>10}{:>12}{:>10}",
        "", "ns a call", "over leaf", "to ours"
    );
    for (contender, time) in contenders.iter().zip(best) {
        println!(
            "{:<28}{:>10.1}{:>12.1}{:>9.2}x",
            contender.name,
            time.as_secs_f64() * 1e6,
            over_leaf(time),
            over_leaf(time) / ours,
        );
    }
}
