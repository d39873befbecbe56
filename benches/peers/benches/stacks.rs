//! The stack of five by several crates: calls that succeed, over a service that answers at once and
//! over one that suspends once, and calls that are rejected; on one thread, and by 64 tasks on a
//! runtime of several workers. Beside them stands what the machine takes in the same run for a
//! clock read, a locked addition, an allocation and a timer.
//!
//! `cargo bench --bench stacks` takes some minutes and prints nanoseconds a call and ratios.
//! `-- --json` prints them for `scripts/speed`, `-- --workers 1,2,4,8` sets the workers, and
//! `-- --quick` takes seconds and shows only that all of it works. Rounds are interleaved, and each
//! figure is the best of its rounds, because what else the machine does can only slow a round down.
//!
//! Calls of one thread run within a multi-threaded runtime, as those of `#[tokio::main]` do.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceBuilder, ServiceExt};

use tower_keep_peers::{
    leaf::{Echo, Yields},
    rejected::{self, Part},
    stacks::{
        Leaf, Stack, keep_client, keep_five, keep_gates, keep_timeout, mixed_five, resilience_five,
        seatbelt_five,
    },
};

const TASKS: u64 = 64;

/// The row that the others of a table are measured over.
const LEAF: &str = "no layer";

/// The row that the others of a table are compared with: the best that other crates give together.
const MIXED: &str = "mixed";

/// All that is compared over one leaf. A new stack is one row here.
fn admitted(leaf: impl Leaf) -> Vec<Contender> {
    vec![
        contender(LEAF, leaf.clone()),
        contender("five layers", keep_five(leaf.clone())),
        contender("five, three gates as one", keep_gates(leaf.clone())),
        contender("client stack", keep_client(leaf.clone(), None)),
        contender(
            "client stack, named",
            keep_client(leaf.clone(), Some("bench")),
        ),
        contender(MIXED, mixed_five(leaf.clone())),
        contender("seatbelt, governor, tower", seatbelt_five(leaf.clone())),
        contender("tower-resilience", resilience_five(leaf)),
    ]
}

fn timeouts(leaf: impl Leaf) -> Vec<Contender> {
    let tower = ServiceBuilder::new().timeout(Duration::from_secs(1));
    vec![
        contender(LEAF, leaf.clone()),
        contender("timeout", keep_timeout().layer(leaf.clone())),
        contender(MIXED, tower.service(leaf)),
    ]
}

fn rejections() -> Vec<Contender> {
    vec![
        contender("rejected by the limit", rejected::keep(Part::Limit)),
        contender("rejected by the circuit", rejected::keep(Part::Circuit)),
        contender("rejected by the bulkhead", rejected::keep(Part::Bulkhead)),
        contender(MIXED, rejected::mixed(Part::Limit)),
        contender("mixed, by the circuit", rejected::mixed(Part::Circuit)),
    ]
}

fn main() {
    let options = Options::read();
    let one = runtime(1);
    let _entered = one.enter();
    let mut tables = vec![machine(options.calls)];
    for (title, contenders) in [
        ("ready", admitted(Echo)),
        ("suspended once", admitted(Yields)),
        ("timeout, ready", timeouts(Echo)),
        ("timeout, suspended once", timeouts(Yields)),
        ("rejected", rejections()),
    ] {
        let alone = best(options.rounds, &contenders, |contender| {
            (contender.alone)(options.calls)
        });
        tables.push(Table::new(
            format!("{title}, one thread"),
            &contenders,
            &alone,
        ));
        for &workers in &options.workers {
            let runtime = runtime(workers);
            let together = best(options.rounds, &contenders, |contender| {
                (contender.by_tasks)(&runtime, options.calls)
            });
            let title = format!("{title}, {TASKS} tasks on {workers} workers");
            tables.push(Table::new(title, &contenders, &together));
        }
    }
    if options.json {
        let tables: Vec<_> = tables.iter().map(Table::json).collect();
        println!("[{}]", tables.join(","));
    } else {
        tables.iter().for_each(Table::print);
    }
}

struct Options {
    rounds: usize,
    calls: u64,
    workers: Vec<usize>,
    json: bool,
}

impl Options {
    fn read() -> Self {
        let arguments: Vec<_> = std::env::args().collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let workers = arguments
            .iter()
            .skip_while(|argument| *argument != "--workers");
        let workers = workers.skip(1).next().map_or("2", String::as_str);
        let (rounds, calls) = if has("--quick") {
            (2, 2_000)
        } else {
            (25, 100_000)
        };
        Self {
            rounds,
            calls,
            workers: workers
                .split(',')
                .map(|number| number.parse().unwrap())
                .collect(),
            json: has("--json"),
        }
    }
}

fn runtime(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .enable_time()
        .build()
        .unwrap()
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
    timed(calls, || {
        while service.poll_ready(&mut cx).is_pending() {}
        let mut future = pin!(service.call(black_box(7)));
        while black_box(future.as_mut().poll(&mut cx)).is_pending() {}
    })
}

fn timed(calls: u64, mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..calls).for_each(|_| call());
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
                    let _ = black_box(service.call(black_box(7)).await.is_ok());
                }
            })
        })
        .collect();
    let waiting = async {
        for task in tasks {
            task.await.expect("a task panicked");
        }
    };
    // Outside of the runtime that calls of one thread are made in.
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(waiting)).join().unwrap());
    for_a_thousand(start.elapsed(), each * TASKS)
}

/// The limits of the machine.
fn machine(calls: u64) -> Table {
    let count = AtomicU64::new(0);
    let second = Duration::from_secs(1);
    let rows: [(&'static str, Box<dyn Fn()>); 4] = [
        ("clock read", Box::new(|| _ = black_box(Instant::now()))),
        (
            "locked addition",
            Box::new(move || {
                black_box(count.fetch_add(1, Ordering::Relaxed));
            }),
        ),
        (
            "allocation",
            Box::new(|| drop(black_box(Box::new([0_u64; 4])))),
        ),
        (
            "timer",
            Box::new(move || {
                let mut timer = Box::pin(tokio::time::sleep(second));
                let mut cx = Context::from_waker(Waker::noop());
                assert!(timer.as_mut().poll(&mut cx).is_pending());
            }),
        ),
    ];
    let fastest = |call: &dyn Fn()| (0..5).map(|_| timed(calls, call)).min();
    let rows = rows.iter().map(|(name, call)| Row {
        name,
        nanos: nanos(fastest(call).unwrap_or_default()),
        over_leaf: None,
        to_mixed: None,
    });
    Table {
        title: "the machine".to_owned(),
        rows: rows.collect(),
    }
}

struct Table {
    title: String,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    nanos: f64,
    /// Above what the leaf alone takes.
    over_leaf: Option<f64>,
    /// That, as a ratio of what the mixed stack takes.
    to_mixed: Option<f64>,
}

/// Of a thousand calls to nanoseconds of one.
fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Table {
    fn new(title: String, contenders: &[Contender], best: &[Duration]) -> Self {
        let of = |name| {
            let place = contenders
                .iter()
                .position(|contender| contender.name == name);
            place.map(|place| nanos(best[place]))
        };
        let leaf = of(LEAF);
        let over = |nanos: f64| nanos - leaf.unwrap_or(0.0);
        let rows = contenders.iter().zip(best).map(|(contender, time)| Row {
            name: contender.name,
            nanos: nanos(*time),
            over_leaf: leaf.map(|_| over(nanos(*time))),
            to_mixed: of(MIXED).map(|mixed| over(nanos(*time)) / over(mixed)),
        });
        Self {
            title,
            rows: rows.collect(),
        }
    }

    fn print(&self) {
        println!(
            "\n{}\n{:<28}{:>10}{:>12}{:>10}",
            self.title, "", "ns", "over leaf", "to mixed"
        );
        for row in &self.rows {
            let shown = |value: Option<f64>, digits: usize| {
                value.map_or(String::new(), |value| format!("{value:.digits$}"))
            };
            println!(
                "{:<28}{:>10.1}{:>12}{:>10}",
                row.name,
                row.nanos,
                shown(row.over_leaf, 1),
                shown(row.to_mixed, 2),
            );
        }
    }

    fn json(&self) -> String {
        let number = |value: Option<f64>| match value {
            Some(value) if value.is_finite() => format!("{value:.3}"),
            _ => "null".to_owned(),
        };
        let rows = self.rows.iter().map(|row| {
            format!(
                r#"{{"name":"{}","nanos":{:.3},"over_leaf":{},"to_mixed":{}}}"#,
                row.name,
                row.nanos,
                number(row.over_leaf),
                number(row.to_mixed),
            )
        });
        let rows: Vec<_> = rows.collect();
        format!(
            r#"{{"title":"{}","rows":[{}]}}"#,
            self.title,
            rows.join(",")
        )
    }
}
