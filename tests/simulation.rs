//! The bounds of what `cargo bench --bench simulation` prints, in virtual time.

use std::time::Duration;

use tower_keep::algorithm::{Aimd, BreakerConfig, Gradient2, Vegas};

use adaptive::{Backlog, Limiter, PHASE, PHASES};
use throttle::{Load, Measured};

#[path = "../benches/simulation/adaptive.rs"]
mod adaptive;
#[path = "../benches/simulation/events.rs"]
mod events;
#[path = "../benches/simulation/metastable.rs"]
mod metastable;
#[path = "../benches/simulation/outage.rs"]
mod outage;
#[path = "../benches/simulation/throttle.rs"]
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
fn recovery(clients: usize, circuit: Option<BreakerConfig>, retries: bool) -> f64 {
    let case = outage::Case::new(clients, 0.8, circuit, retries);
    outage::mean_over_troubles(&case).0
}

#[test]
fn the_circuits_of_a_stack_recover_at_once() {
    for retries in [false, true] {
        assert!(recovery(50, None, retries) > 30.0, "{retries}");
        let stack = recovery(50, Some(outage::of_the_stack()), retries);
        assert!(stack < 3.0, "{retries}: {stack}");
    }
}

#[test]
fn a_circuit_that_stays_open_is_an_outage_of_its_own() {
    let recovery = recovery(50, Some(BreakerConfig::default()), false);
    assert!((10.0..30.0).contains(&recovery), "{recovery}");
}

#[test]
fn clients_that_call_once_a_second_recover_too() {
    let with = recovery(1000, Some(outage::of_the_stack()), true);
    let without = recovery(1000, None, true);
    assert!(with < 15.0 && without > 60.0, "{with}, {without}");
}
