//! The bounds of what `cargo bench --bench simulation` prints, in virtual time.

use std::time::Duration;

use tower_keep::algorithm::{Aimd, BreakerConfig, Gradient2, Vegas};

use adaptive::{Backlog, Limiter, PHASE, PHASES};
use outage::{Case, Retries};
use throttle::{Load, Measured};

#[path = "../../benches/simulation/adaptive.rs"]
mod adaptive;
#[path = "../../benches/simulation/contention.rs"]
mod contention;
#[path = "../../benches/simulation/events.rs"]
mod events;
#[path = "../../benches/simulation/metastable.rs"]
mod metastable;
#[path = "../../benches/simulation/outage.rs"]
mod outage;
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

#[test]
fn half_the_places_recover_at_once_and_all_of_them_never() {
    for goes_on in [false, true] {
        let recovery = |places| {
            metastable::seconds_to_recover(metastable::Case {
                places,
                load: 0.9,
                is_fixed: true,
                goes_on,
                seed: 0,
            })
        };
        assert!(recovery(50) <= Some(3), "{goes_on}");
        assert_ne!(recovery(50), None, "{goes_on}");
        assert_eq!(recovery(100), None, "{goes_on}");
    }
}

/// Mean seconds to recover from troubles of 7 to 60 s, at 80 % load.
fn recovery(clients: usize, circuit: Option<BreakerConfig>, retries: Retries) -> f64 {
    let case = outage::Case::new(clients, 0.8, circuit, retries);
    outage::mean_over_troubles(&case).0
}

#[test]
fn the_circuits_of_a_stack_recover_at_once() {
    for retries in [Retries::None, Retries::Layer] {
        assert!(recovery(50, None, retries) > 30.0, "{retries:?}");
        let stack = recovery(50, Some(outage::of_the_stack()), retries);
        assert!(stack < 3.0, "{retries:?}: {stack}");
    }
}

#[test]
fn a_circuit_that_stays_open_is_an_outage_of_its_own() {
    let recovery = recovery(50, Some(BreakerConfig::default()), Retries::None);
    assert!((10.0..30.0).contains(&recovery), "{recovery}");
}

#[test]
fn clients_that_call_once_a_second_recover_too() {
    let with = recovery(1000, Some(outage::of_the_stack()), Retries::Layer);
    let without = recovery(1000, None, Retries::Funded);
    assert!(with < 15.0 && without > 60.0, "{with}, {without}");
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

const LOADS: [f64; 3] = [0.7, 0.8, 0.9];

fn storm(clients: usize, load: f64, retries: Retries) -> outage::Recovery {
    outage::recovery(&Case::of_ten_seconds(clients, load, retries))
}

#[test]
fn retries_that_failures_pay_for_never_end() {
    for retries in [Retries::Unbounded, Retries::Windowed] {
        for load in LOADS {
            let found = storm(50, load, retries);
            assert_eq!(found.seconds, None, "{retries:?} at {load}");
        }
    }
}

#[test]
fn retries_that_successes_pay_for_end_where_none_would() {
    // Seconds to recover: without retries, and with.
    for (load, bare, most) in [(0.7, 7, 9), (0.8, 15, 18), (0.9, 40, 45)] {
        let without = storm(50, load, Retries::None);
        assert!(
            without.seconds.is_some_and(|s| s <= bare),
            "{load}: {without:?}"
        );
        for retries in [Retries::Funded, Retries::Layer] {
            let found = storm(50, load, retries);
            assert!(
                found.seconds.is_some_and(|s| s <= most),
                "{retries:?} at {load}: {found:?}"
            );
        }
    }
}

#[test]
fn a_thousand_clients_that_call_rarely_make_no_storm() {
    for load in LOADS {
        let full = storm(1000, load, Retries::Funded);
        assert!((2.0..2.4).contains(&full.amplification), "{load}: {full:?}");
        let ours = storm(1000, load, Retries::Layer);
        assert!(ours.amplification < 1.3, "{load}: {ours:?}");
        assert!(ours.seconds.is_some_and(|s| s <= 45), "{load}: {ours:?}");
    }
    assert_eq!(storm(1000, 0.9, Retries::Funded).seconds, None);
}
