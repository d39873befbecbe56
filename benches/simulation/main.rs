//! Adaptive limits, the client's throttle, the size of a bulkhead and the open time of circuits,
//! simulated in virtual time with the crate's own algorithms. It prints tables;
//! `tests/layers/simulation.rs` holds the bounds.
//!
//! cargo bench --bench simulation

use std::time::Duration;

use tower_keep::algorithm::{Aimd, Gradient2, Vegas};

use adaptive::{Backlog, Limiter, Measured, PHASE, PHASES};
use throttle::Load;

mod adaptive;
mod contention;
mod events;
mod metastable;
mod outage;
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
        "\nCircuits: seconds to recover, mean of troubles of 7 to 60 s. Retries are paid for by a"
    );
    println!("budget. A mean with a + has troubles in it that were not over after two minutes.\n");
    println!(
        "| circuits open for | retries | 50 clients, 70 % | 80 % | 90 % | 1000 clients, 80 % |"
    );
    println!("|---|---|---|---|---|---|");
    for retries in [outage::Retries::None, outage::Retries::Layer] {
        for (name, circuit) in outage::circuits() {
            let cell = |clients, load| {
                let case = outage::Case::new(clients, load, circuit, retries);
                let (mean, never) = outage::mean_over_troubles(&case);
                let more = if never > 0 { "+" } else { "" };
                format!("{mean:.1}{more}")
            };
            let cells =
                [(50, 0.7), (50, 0.8), (50, 0.9), (1000, 0.8)].map(|(n, load)| cell(n, load));
            let retries = if retries == outage::Retries::None {
                "none"
            } else {
                "two"
            };
            println!("| {name} | {retries} | {} |", cells.join(" | "));
        }
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
        "\nRetries after ten seconds at half the capacity: seconds to recover, and attempts for"
    );
    println!("each call during the trouble.\n");
    println!("| retries | clients | 70 % load | 80 % | 90 % |");
    println!("|---|---|---|---|---|");
    for clients in [50, 1000] {
        for (name, retries) in outage::retries() {
            let cells = [0.7, 0.8, 0.9].map(|load| {
                let case = outage::Case::of_ten_seconds(clients, load, retries);
                let found = outage::recovery(&case);
                let seconds = found.seconds.map_or("never".into(), |s| format!("{s} s"));
                format!("{seconds}, x {:.2}", found.amplification)
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
    println!(
        "times, 90 % load: seconds to recover from ten seconds at half the capacity, of ten runs.\n"
    );
    println!("| places | service times | after the caller has left | recovers after |");
    println!("|---|---|---|---|");
    for (goes_on, left) in [(false, "ends"), (true, "goes on")] {
        for (is_fixed, times) in [(false, "random"), (true, "fixed")] {
            for places in [50, 95, 100, 120] {
                let runs: Vec<_> = (0..10)
                    .map(|seed| {
                        metastable::seconds_to_recover(metastable::Case {
                            places,
                            load: 0.9,
                            is_fixed,
                            goes_on,
                            seed,
                        })
                    })
                    .collect();
                println!("| {places} | {times} | {left} | {} |", range(&runs));
            }
        }
    }
}

fn range(runs: &[Option<usize>]) -> String {
    let found: Vec<_> = runs.iter().flatten().collect();
    let never = runs.len() - found.len();
    match (found.iter().min(), found.iter().max()) {
        (Some(min), Some(max)) if never == 0 => format!("{min} to {max} s"),
        (Some(min), Some(max)) => format!("{min} to {max} s, never in {never} of {}", runs.len()),
        _ => "never".into(),
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
