//! The conditions for a map to evict a circuit.

use super::*;

fn windows() -> [BreakerConfig; 2] {
    [Window::Time(seconds(20)), Window::Calls(10)].map(|window| BreakerConfig {
        window,
        max_open: Some(seconds(20)),
        ..config()
    })
}

fn assert_evictable_from(breaker: &Breaker, second: u64) {
    assert!(!breaker.is_evictable(second * SECOND - 1));
    assert!(breaker.is_evictable(second * SECOND));
    assert!(breaker.is_evictable(1_000_000 * SECOND));
}

#[test]
fn a_fresh_circuit_may_be_evicted() {
    for config in windows() {
        assert!(breaker(config).is_evictable(0));
    }
}

#[test]
fn one_old_failure_does_not_pin_a_circuit() {
    for config in windows() {
        let breaker = breaker(config);
        run(&breaker, "F", 10 * SECOND);
        assert!(!breaker.is_evictable(10 * SECOND));
        assert_evictable_from(&breaker, 30);
    }
}

#[test]
fn a_dropped_call_pins_a_circuit_as_long_as_a_failure() {
    for config in windows() {
        let breaker = breaker(config);
        let pass = admit(&breaker, 10 * SECOND);
        breaker.abandon(pass, 0, 10 * SECOND);
        assert_evictable_from(&breaker, 30);
    }
}

/// Once, 1024 dead hosts filled the map for good, and all others shared one circuit.
#[test]
fn a_dead_circuit_is_evictable_after_one_more_window() {
    for config in windows() {
        let breaker = breaker(config);
        run(&breaker, "FFFFF", 0);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_evictable_from(&breaker, 25);
    }
}

#[test]
fn a_half_open_circuit_nobody_calls_may_be_evicted() {
    for config in windows() {
        for letters in ["", "F", "S"] {
            let breaker = breaker(config);
            run(&breaker, "FFFFF", 0);
            let _hung = admit(&breaker, 5 * SECOND);
            run(&breaker, letters, 7 * SECOND);
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            // A lease of five seconds, and a window.
            let newest = if letters.is_empty() { 5 } else { 7 };
            assert_evictable_from(&breaker, newest + 25);
        }
    }
}

#[test]
fn a_streak_pins_a_closed_circuit_for_a_window() {
    for config in windows() {
        let breaker = breaker(BreakerConfig {
            growing: true,
            probes: 1,
            ..config
        });
        run(&breaker, "FFFFF", 0);
        run(&breaker, "S", 10 * SECOND);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_evictable_from(&breaker, 30);
    }
}

/// Regression: a new circuit in its place had no ramp, and admitted everything at once.
#[test]
fn a_ramp_pins_a_circuit_to_its_end() {
    for config in windows() {
        let breaker = breaker(BreakerConfig {
            ramp: seconds(60),
            probes: 1,
            ..config
        });
        run(&breaker, "FFFFF", 0);
        run(&breaker, "S", 10 * SECOND);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_evictable_from(&breaker, 70);
    }
}

#[test]
fn what_was_set_by_hand_is_never_evicted() {
    for config in windows() {
        let breaker = breaker(config);
        for by_hand in [Breaker::force_open, Breaker::disable, Breaker::metrics_only] {
            by_hand(&breaker);
            for now in [0, 1_000_000 * SECOND, u64::MAX] {
                assert!(!breaker.is_evictable(now));
            }
        }
        breaker.close();
        assert!(breaker.is_evictable(0));
    }
}
