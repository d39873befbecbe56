//! The bounds of what `cargo bench --features drill --bench simulation` prints of single
//! algorithms, in virtual time. Those of whole stacks are in `tests/drill/outages.rs`.

use std::time::Duration;

use tower_keep::algorithm::{Aimd, Gradient2, Vegas};

use adaptive::{Backlog, Limiter, PHASE, PHASES};
use throttle::{Load, Measured};

#[path = "../../benches/simulation/adaptive.rs"]
mod adaptive;
#[path = "../../benches/simulation/contention.rs"]
mod contention;
#[path = "../../benches/simulation/events.rs"]
mod events;
#[path = "../../benches/simulation/throttle.rs"]
mod throttle;

/// In each phase, at twice the capacity: nine tenths of what the best fixed limit gives, at twice
/// the latency of an idle server at most.
fn finds_the_capacity(limiter: Limiter, backlog: Backlog) {
    let found = adaptive::run(limiter, &PHASES, PHASE, backlog, 1);
    for (phase, found) in PHASES.iter().zip(found) {
        let (_, best) = adaptive::best_fixed(*phase, backlog);
        assert!(
            found.goodput >= 0.9 * best.goodput,
            "{phase:?}: {found:?}, {best:?}"
        );
        assert!(found.latency <= 2.0, "{phase:?}: {found:?}");
    }
}

#[test]
fn aimd_finds_the_capacity_by_rejections() {
    finds_the_capacity(Limiter::adaptive(Aimd::default()), Backlog::Bounded);
}

#[test]
fn vegas_finds_the_capacity_by_its_queue() {
    finds_the_capacity(Limiter::adaptive(Vegas::default()), Backlog::Unbounded);
}

#[test]
fn gradient2_finds_the_capacity_by_round_trips() {
    finds_the_capacity(Limiter::adaptive(Gradient2::default()), Backlog::Unbounded);
}

#[test]
fn a_limit_too_high_takes_twenty_times_as_long() {
    let found = adaptive::run(
        Limiter::fixed(1000),
        &PHASES[..1],
        PHASE,
        Backlog::Unbounded,
        1,
    );
    assert!(found[0].latency > 15.0, "{found:?}");
}

fn throttled(window: u64, loads: &[Load]) -> Vec<Measured> {
    let config = throttle::over(Duration::from_secs(window));
    throttle::run(Some(config), loads, 1)
}

fn load(capacity: u64, seconds: u64, failures: f64) -> Load {
    Load {
        rate: 200,
        capacity,
        seconds,
        failures,
    }
}

#[test]
fn a_throttle_rejects_nothing_that_is_well() {
    // A third fails by chance.
    let measured = throttled(120, &[load(400, 300, 0.33)]);
    assert_eq!(measured[0].sent, measured[0].asked);
}

#[test]
fn a_throttle_lets_an_overloaded_upstream_work() {
    let loads = [load(100, 300, 0.0), load(400, 300, 0.01)];
    let with = throttled(120, &loads);
    let without = throttle::run(None, &loads, 1);
    assert!(
        with[0].done * 10 > without[0].done * 12,
        "{with:?}, {without:?}"
    );
    assert!(with[1].recovered < Some(60), "{with:?}");
}

#[test]
fn a_throttle_takes_some_windows_to_forget_an_outage() {
    let loads = [load(0, 120, 0.0), load(400, 900, 0.01)];
    let (long, short) = (throttled(120, &loads), throttled(30, &loads));
    assert!(long[0].sent * 5 < long[0].asked, "{long:?}");
    let recovered = |measured: &[Measured]| measured[1].recovered.unwrap();
    assert!((120..480).contains(&recovered(&long)), "{long:?}");
    assert!((30..120).contains(&recovered(&short)), "{short:?}");
}

/// Seconds and writes of SEMANTICS, by the name of the backoff.
const CONTENTION: [(&str, f64, f64); 6] = [
    ("none", 2.0, 2417.0),
    ("exponential", 63.9, 1860.0),
    ("equal", 6.6, 813.0),
    ("full", 4.9, 796.0),
    ("decorrelated", 4.5, 999.0),
    ("range of the exponential", 6.7, 733.0),
];

#[test]
fn a_crowd_at_one_row_gets_on_as_it_is_known_to() {
    let found = CONTENTION.map(|(name, seconds, calls)| {
        let found = contention::mean(wait(name), 100, 100);
        for (found, known) in [(found.seconds, seconds), (found.calls, calls)] {
            assert!(
                (found / known - 1.0).abs() < 0.15,
                "{name}: {found}, not {known}"
            );
        }
        (name, found.seconds, found.calls)
    });
    let order = |of: fn(&(&'static str, f64, f64)) -> f64, mut rows: [_; 6]| {
        rows.sort_by(|a, b| of(a).total_cmp(&of(b)));
        rows.map(|(name, ..)| name)
    };
    assert_eq!(order(|row| row.1, found), order(|row| row.1, CONTENTION));
    assert_eq!(order(|row| row.2, found), order(|row| row.2, CONTENTION));
}

#[test]
fn a_range_of_just_the_base_barely_spreads_a_crowd() {
    let found = contention::mean(wait("range of the base"), 100, 20);
    assert!(found.seconds > 40.0, "{found:?}");
}

fn wait(name: &str) -> contention::Wait {
    let mut waits = contention::waits().into_iter();
    waits.find(|(known, _)| *known == name).unwrap().1
}
