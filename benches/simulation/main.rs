//! Adaptive limits, the client's throttle and crowds at one row, simulated with the crate's own
//! algorithms. Then the size of a bulkhead, circuits and retries, drilled as whole stacks. All is
//! in virtual time. It prints tables. `tests/layers/simulation.rs` and `tests/drill/outages.rs`
//! hold the bounds.
//!
//! cargo bench --features drill --bench simulation

use std::time::Duration;

use tower_keep::{
    algorithm::{Aimd, Gradient2, Vegas},
    drill::Measure,
};

use adaptive::{Backlog, Limiter, Measured, PHASE, PHASES};
use outages::{Bulkhead, Retries};
use throttle::Load;

mod adaptive;
mod contention;
mod events;
mod outages;
mod throttle;

fn main() {
    adaptive_limits();
    throttles();
    bulkheads();
    circuits();
    contention();
    storms();
}

fn circuits() {
    println!(
        "\nCircuits: seconds to recover from ten seconds at half the capacity. Retries have the"
    );
    println!("layer's own budget. Never is 40 s.\n");
    println!("| circuits open for | 50 clients, 70 % | 80 % | 90 % | 1000 clients, 80 % |");
    println!("|---|---|---|---|---|");
    let stacks = outages::circuits().map(|(name, circuit)| (name, circuit, Retries::Layer));
    let reports = [(50, 0.7), (50, 0.8), (50, 0.9), (1000, 0.8)]
        .map(|(clients, load)| outages::compare(stacks, clients, load));
    for (name, ..) in stacks {
        let cells = reports
            .each_ref()
            .map(|report| outages::recovery(report, name));
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn contention() {
    println!("\n100 clients that write one row with optimistic locking, mean of 100 runs.\n");
    println!("| backoff | until all are done | writes |");
    println!("|---|---|---|");
    for (name, wait) in contention::waits() {
        let contention::Finished { seconds, calls } = contention::mean(wait, 100, 100);
        println!("| {name} | {seconds:.1} s | {calls:.0} |");
    }
}

fn storms() {
    println!(
        "\nRetries without circuits: seconds to recover from ten seconds at half the capacity, and"
    );
    println!("calls sent for each asked, in all.\n");
    println!("| retries | clients | 70 % load | 80 % | 90 % |");
    println!("|---|---|---|---|---|");
    for clients in [50, 1000] {
        let stacks = outages::RETRIES.map(|(name, retries)| (name, None, retries));
        let reports = [0.7, 0.8, 0.9].map(|load| outages::compare(stacks, clients, load));
        for (name, ..) in stacks {
            let cells = reports.each_ref().map(|report| {
                let sent = report.each(Measure::Sent).of(name).mean().value();
                format!("{}, x {sent:.2}", outages::recovery(report, name))
            });
            println!("| {name} | {clients} | {} |", cells.join(" | "));
        }
    }
}

fn adaptive_limits() {
    println!("Adaptive limits at twice the capacity: the last 10 of 30 seconds of each phase.");
    println!("Goodput is a share of the capacity, latency a multiple of the service time.\n");
    println!("| limit | phase | limit | goodput | latency | settled after |");
    println!("|---|---|---|---|---|---|");
    for phase in PHASES {
        let (limit, measured) = adaptive::best_fixed(phase, Backlog::Unbounded);
        row(&format!("best fixed ({limit})"), phase.name, measured);
    }
    let cases: [(&str, Limiter, Backlog); 4] = [
        ("AIMD", Limiter::adaptive(Aimd::default()), Backlog::Bounded),
        (
            "Vegas",
            Limiter::adaptive(Vegas::default()),
            Backlog::Unbounded,
        ),
        (
            "Gradient2",
            Limiter::adaptive(Gradient2::default()),
            Backlog::Unbounded,
        ),
        ("fixed at 1000", Limiter::fixed(1000), Backlog::Unbounded),
    ];
    for (name, limiter, backlog) in cases {
        let measured = adaptive::run(limiter, &PHASES, PHASE, backlog, 1);
        for (phase, measured) in PHASES.iter().zip(measured) {
            row(name, phase.name, measured);
        }
    }
}

fn row(limit: &str, phase: &str, measured: Measured) {
    let Measured {
        goodput,
        latency,
        limit: mean,
        settled,
    } = measured;
    println!(
        "| {limit} | {phase} | {mean:.0} | {:.1} % | {latency:.2} | {settled} s |",
        goodput * 100.0
    );
}

fn throttles() {
    println!(
        "\nThe client's throttle: 1000 calls a second; a rejection costs the upstream 0.3 calls.\n"
    );
    println!("| throttle | upstream | sent | done | all sent again after |");
    println!("|---|---|---|---|---|");
    let cases = [
        ("none", None),
        ("2 min", Some(throttle::over(Duration::from_secs(120)))),
        ("30 s", Some(throttle::over(Duration::from_secs(30)))),
    ];
    for (name, config) in cases {
        let phases = throttle::run(config, &LOADS.map(|(_, load)| load), 1);
        for ((upstream, load), measured) in LOADS.iter().zip(phases) {
            let per_second = |count: u64| count / load.seconds;
            let recovered = measured
                .recovered
                .map_or("never".into(), |s| format!("{s} s"));
            println!(
                "| {name} | {upstream} | {}/s | {}/s | {recovered} |",
                per_second(measured.sent),
                per_second(measured.done),
            );
        }
    }
}

fn bulkheads() {
    println!(
        "\nA bulkhead before 1000 calls a second of capacity, callers that wait 100 ms and ask three"
    );
    println!("times, 90 % load: seconds to recover from ten seconds at half the capacity.\n");
    println!("| places | service times | after the caller has left | recovers after |");
    println!("|---|---|---|---|");
    for (goes_on, left) in [(false, "ends"), (true, "goes on")] {
        for (is_fixed, times) in [(false, "random"), (true, "fixed")] {
            for places in [50, 100, 120] {
                let bulkhead = Bulkhead {
                    places,
                    is_fixed,
                    goes_on,
                };
                let report = bulkhead.drill(0.9).seeds(0..2).run();
                let recovery = outages::recovery(&report, "stack");
                println!("| {places} | {times} | {left} | {recovery} |");
            }
        }
    }
}

/// What the throttle's upstream goes through.
const LOADS: [(&str, Load); 5] = [
    ("well, 1 % fail", load(2000, 300, 0.01)),
    ("does half", load(500, 300, 0.0)),
    ("well again", load(2000, 600, 0.01)),
    ("down", load(0, 120, 0.0)),
    ("well again", load(2000, 600, 0.01)),
];

const fn load(capacity: u64, seconds: u64, failures: f64) -> Load {
    Load {
        rate: 1000,
        capacity,
        seconds,
        failures,
    }
}
