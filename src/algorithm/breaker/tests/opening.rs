//! The length of the open time, and recovery: growth, jitter, the upstream's hint, the ramp.

use super::*;

fn growing() -> BreakerConfig {
    BreakerConfig {
        growing: true,
        jitter: false,
        max_open: Some(seconds(60)),
        probes: 1,
        verdict: Verdict::AnyFailure,
        ..config()
    }
}

fn wait(breaker: &Breaker, now: u64) -> u64 {
    breaker.until_half_open(now).unwrap().as_secs()
}

#[test]
fn a_growing_open_time_doubles_with_each_failed_probe() {
    let breaker = breaker(growing());
    run(&breaker, "FFFFF", 0);
    let mut now = 0;
    for expected in [5, 10, 20, 40, 60, 60] {
        assert_eq!(wait(&breaker, now), expected);
        now += expected * SECOND;
        run(&breaker, "F", now);
    }
}

#[test]
fn the_streak_ends_after_a_whole_window_of_closed() {
    for (held, expected) in [(20, 5), (19, 20)] {
        let breaker = breaker(growing());
        run(&breaker, "FFFFF", 0);
        run(&breaker, "F", 5 * SECOND);
        let closed = 15;
        run(&breaker, "S", closed * SECOND);
        assert_eq!(breaker.state(), BreakerState::Closed);
        let now = (closed + held) * SECOND;
        run(&breaker, "FFFFF", now);
        assert_eq!(wait(&breaker, now), expected);
    }
}

#[test]
fn a_window_of_calls_has_held_when_it_is_full() {
    for (letters, expected) in [("SSSSSFFF", 5), ("SSSSFFF", 10)] {
        let breaker = breaker(BreakerConfig {
            window: Window::Calls(8),
            failure_rate: Some(0.375),
            ..growing()
        });
        run(&breaker, "FFFFF", 0);
        assert_eq!(wait(&breaker, 0), 5);
        run(&breaker, "S", 5 * SECOND);
        run(&breaker, letters, 5 * SECOND);
        assert_eq!(wait(&breaker, 5 * SECOND), expected);
    }
}

#[test]
fn closing_by_hand_forgets_the_streak() {
    let breaker = breaker(growing());
    run(&breaker, "FFFFF", 0);
    run(&breaker, "F", 5 * SECOND);
    breaker.close();
    run(&breaker, "FFFFF", 6 * SECOND);
    assert_eq!(wait(&breaker, 6 * SECOND), 5);
}

/// Returns the waits of a thousand circuits that open at the same time, in milliseconds, sorted.
fn fleet(config: BreakerConfig, retry_after: Option<Duration>) -> Vec<u128> {
    let mut waits: Vec<_> = (0..1000)
        .map(|seed| {
            let breaker = Breaker::new(&config, 1, seed).unwrap();
            for _ in 0..20 {
                let pass = breaker.admit_if_closed().unwrap_or_default();
                breaker.record(pass, Outcome::Failure, retry_after, 0, 0);
            }
            breaker.until_half_open(0).unwrap().as_millis()
        })
        .collect();
    waits.sort_unstable();
    waits
}

/// Returns the largest number of waits within a hundredth of the range.
fn most_at_once(waits: &[u128]) -> usize {
    let hundredth = (waits[waits.len() - 1] - waits[0]) / 100;
    let within = |from: &u128| {
        waits
            .iter()
            .filter(|wait| (*from..=from + hundredth).contains(wait))
            .count()
    };
    waits.iter().map(within).max().unwrap()
}

#[test]
fn a_fleet_of_default_circuits_probes_spread() {
    let waits = fleet(BreakerConfig::default(), None);
    assert!(waits.iter().all(|wait| (30_000..33_000).contains(wait)));
    assert!(waits[999] - waits[0] > 2_900 && most_at_once(&waits) < 40);
}

#[test]
fn a_fleet_of_growing_circuits_probes_spread() {
    let config = BreakerConfig {
        growing: true,
        ..BreakerConfig::default()
    };
    let waits = fleet(config, None);
    assert!(waits.iter().all(|wait| (15_000..30_000).contains(wait)));
    assert!(waits[999] - waits[0] > 14_500 && most_at_once(&waits) < 40);
}

#[test]
fn a_fleet_told_the_same_moment_probes_spread() {
    for growing in [false, true] {
        let config = BreakerConfig {
            growing,
            ..BreakerConfig::default()
        };
        let waits = fleet(config, Some(seconds(60)));
        assert!(waits.iter().all(|wait| (60_000..66_000).contains(wait)));
        assert!(waits[999] - waits[0] > 5_800 && most_at_once(&waits) < 40);
        // The hint is a year, and the longest open time is 300 s.
        let waits = fleet(config, Some(seconds(366 * 24 * 3600)));
        assert!(waits.iter().all(|wait| (272_000..=300_000).contains(wait)));
        assert!(waits[999] - waits[0] > 26_000 && most_at_once(&waits) < 40);
    }
}

#[test]
fn without_jitter_an_open_time_is_exact() {
    let config = BreakerConfig {
        jitter: false,
        ..BreakerConfig::default()
    };
    assert_eq!(fleet(config, None), [30_000; 1000]);
    assert_eq!(fleet(config, Some(seconds(60))), [60_000; 1000]);
}

#[test]
fn the_peer_may_ask_for_more_up_to_the_longest() {
    for (asked, expected) in [(1, 5), (7, 7), (40, 40), (61, 60), (u64::MAX, 60)] {
        let breaker = breaker(BreakerConfig {
            max_open: Some(seconds(60)),
            ..config()
        });
        for retry_after in [Some(seconds(asked)), None, None, None, None] {
            let pass = admit(&breaker, 0);
            breaker.record(pass, Outcome::Overload, retry_after, 0, 0);
        }
        assert_eq!(wait(&breaker, 0), expected);
    }
}

#[test]
fn a_hint_that_left_the_window_lengthens_nothing() {
    for (tripped_at, expected) in [(19, 41), (20, 5), (25, 5)] {
        let breaker = breaker(config());
        let pass = admit(&breaker, 0);
        breaker.record(pass, Outcome::Overload, Some(seconds(60)), 0, 0);
        while breaker.state() == BreakerState::Closed {
            run(&breaker, "F", tripped_at * SECOND);
        }
        assert_eq!(wait(&breaker, tripped_at * SECOND), expected);
    }
}

#[test]
fn a_hint_outside_a_window_of_calls_has_no_effect() {
    for calls in [5, 10, 11, 25] {
        for (later, expected) in [(calls / 2 - 1, 40), (2 * calls, 5)] {
            let breaker = breaker(BreakerConfig {
                window: Window::Calls(calls),
                ..config()
            });
            let pass = admit(&breaker, 0);
            breaker.record(pass, Outcome::Overload, Some(seconds(40)), 0, 0);
            run(&breaker, &"S".repeat(later as usize), 0);
            while breaker.state() == BreakerState::Closed {
                run(&breaker, "F", 0);
            }
            assert_eq!(wait(&breaker, 0), expected, "{later} of {calls}");
        }
    }
}

#[test]
fn a_hint_of_an_earlier_trip_lengthens_no_later_one() {
    let (breaker, now) = half_open(config());
    let probe = admit(&breaker, now);
    breaker.record(probe, Outcome::Overload, Some(seconds(50)), 0, now);
    run(&breaker, "SSS", now);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "FFFFF", now + SECOND);
    assert_eq!(wait(&breaker, now + SECOND), 5);
}

#[test]
fn hints_of_failed_probes_count_and_of_successes_not() {
    let breaker = breaker(BreakerConfig {
        max_open: Some(seconds(60)),
        ..growing()
    });
    let pass = admit(&breaker, 0);
    breaker.record(pass, Outcome::Success, Some(seconds(50)), 0, 0);
    run(&breaker, "FFFF", 0);
    assert_eq!(wait(&breaker, 0), 5);
    let probe = admit(&breaker, 5 * SECOND);
    breaker.record(probe, Outcome::Failure, Some(seconds(30)), 0, 5 * SECOND);
    assert_eq!(wait(&breaker, 5 * SECOND), 30);
}

#[test]
fn after_closing_the_ramp_admits_a_growing_share() {
    let breaker = breaker(BreakerConfig {
        ramp: seconds(10),
        probes: 1,
        ..config()
    });
    run(&breaker, "FFFFF", 0);
    run(&breaker, "S", 5 * SECOND);
    let admitted = |second: u64| {
        (0..1000)
            .filter(|_| breaker.admit(0, second * SECOND).0.is_ok())
            .count()
    };
    for (second, share) in [(5, 100), (7, 200), (10, 500), (14, 900)] {
        let admitted = admitted(second);
        assert!(
            admitted.abs_diff(share) <= 3,
            "{admitted} of 1000 at {second} s"
        );
    }
    assert_eq!(admitted(15), 1000);
}

#[test]
fn a_refusal_of_the_ramp_tells_when_it_is_over() {
    let breaker = breaker(BreakerConfig {
        ramp: seconds(10),
        probes: 1,
        ..config()
    });
    run(&breaker, "FFFFF", 0);
    run(&breaker, "S", 5 * SECOND);
    let refused = (0..100)
        .find_map(|_| breaker.admit(0, 6 * SECOND).0.err())
        .unwrap();
    assert_eq!(refused.wait, Some(seconds(9)));
    assert!(!breaker.refuses(6 * SECOND));
}

#[test]
fn a_ramp_follows_the_probes_and_nothing_else() {
    let breaker = breaker(BreakerConfig {
        ramp: seconds(10),
        probes: 1,
        ..config()
    });
    assert!(breaker.admit_if_closed().is_some());
    run(&breaker, "FFFFF", 0);
    breaker.close();
    assert!(breaker.admit_if_closed().is_some());
    run(&breaker, "FFFFF", 0);
    run(&breaker, "S", 5 * SECOND);
    assert!(breaker.admit_if_closed().is_none());
    // Once the window has passed as well, admissions need no time again.
    assert!(breaker.admit(0, 25 * SECOND).0.is_ok());
    assert!(breaker.admit_if_closed().is_some());
}

#[test]
fn a_trip_is_not_lost_to_the_end_of_a_ramp() {
    let breaker = breaker(BreakerConfig {
        ramp: seconds(1),
        probes: 1,
        ..config()
    });
    run(&breaker, "FFFFF", 0);
    run(&breaker, "S", 5 * SECOND);
    let old = breaker.load();
    run(&breaker, "SS", 30 * SECOND);
    assert_ne!(breaker.load(), old);
    let settings = breaker.settings.load();
    assert!(
        breaker
            .trip(old, Cause::FailureRate, &settings, 30 * SECOND)
            .is_some()
    );
}

#[test]
fn a_rejection_is_that_of_an_admission() {
    let breaker = breaker(config());
    assert_eq!(breaker.rejection(0), None, "closed");
    run(&breaker, "FFFFF", 0);
    for now in [0, SECOND, 5 * SECOND - 1] {
        let (admitted, transition) = breaker.admit(0, now);
        assert!(transition.is_none());
        assert_eq!(breaker.rejection(now), admitted.err());
    }
    assert_eq!(breaker.rejection(5 * SECOND), None, "half-open then");
    breaker.force_open();
    let (admitted, _) = breaker.admit(0, 5 * SECOND);
    assert_eq!(breaker.rejection(5 * SECOND), admitted.err());
}
