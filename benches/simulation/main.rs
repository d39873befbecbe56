//! Adaptive limits, the client's throttle and the size of a bulkhead, simulated in virtual time
//! with the crate's own algorithms. It prints tables; `tests/simulation.rs` holds the bounds.
//!
//! cargo bench --bench simulation

use tower_keep::algorithm::{Aimd, Gradient2, Vegas};

use adaptive::{Backlog, Limiter, Measured, PHASE, PHASES};

mod adaptive;
mod events;

fn main() {
    adaptive_limits();
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
    let cases: [(&str, Limiter, Backlog); 5] = [
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
        ("none", Limiter::fixed(usize::MAX), Backlog::Bounded),
        ("fixed at 1000", Limiter::fixed(1000), Backlog::Unbounded),
    ];
    for (name, limiter, backlog) in cases {
        let measured = adaptive::run(limiter, &PHASES, PHASE, backlog);
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
