//! The breaker's scenarios.

use super::*;
use crate::call::Outcome;

mod conditions;
mod eviction;
mod model;
mod opening;
mod stress;
mod updates;
mod wraps;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 20 s window, at least 5 calls, 50 %, open for exactly 5 s, 4 probes judged by rate.
fn config() -> BreakerConfig {
    BreakerConfig {
        window: Window::Time(seconds(20)),
        min_calls: 5,
        open_for: seconds(5),
        jitter: false,
        probes: 4,
        verdict: Verdict::Rate,
        ..BreakerConfig::default()
    }
}

fn breaker(config: BreakerConfig) -> Breaker {
    Breaker::new(&config, 2, 0).unwrap()
}

fn admit(breaker: &Breaker, now: u64) -> Pass {
    breaker.admit(0, now).0.unwrap()
}

/// Returns `S`, `F`, `O` or `X` as an outcome.
fn outcome(letter: char) -> Outcome {
    match letter {
        'S' => Outcome::Success,
        'F' => Outcome::Failure,
        'O' => Outcome::Overload,
        _ => Outcome::Ignore,
    }
}

fn record(breaker: &Breaker, pass: Pass, letter: char, now: u64) -> Option<Transition> {
    breaker.record(pass, outcome(letter), None, 0, now)
}

/// Runs whole calls, one after the other.
fn run(breaker: &Breaker, letters: &str, now: u64) {
    for letter in letters.chars() {
        let pass = admit(breaker, now);
        record(breaker, pass, letter, now);
    }
}

fn half_open(config: BreakerConfig) -> (Breaker, u64) {
    let breaker = breaker(config);
    run(&breaker, "FFFFF", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
    (breaker, 5 * SECOND)
}

#[test]
fn opens_on_the_call_that_makes_up_the_minimum() {
    let breaker = breaker(config());
    run(&breaker, "FFFS", 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "S", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(
        breaker.admit(0, 0),
        (
            Err(CircuitOpen {
                wait: Some(seconds(5))
            }),
            None
        )
    );
}

#[test]
fn opens_when_the_rate_reaches_the_threshold() {
    let breaker = breaker(config());
    for (now, letter) in ["S", "S", "S", "F", "F"].into_iter().enumerate() {
        run(&breaker, letter, now as u64 * SECOND);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "F", 5 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Open);
}

/// Regression: a share that no decimal fraction is was rounded up, so that it was never reached.
#[test]
fn any_share_of_whole_calls_reaches_itself() {
    for total in 1..=100u32 {
        for failed in 1..=total {
            let breaker = breaker(BreakerConfig {
                min_calls: total,
                failure_rate: Some(f64::from(failed) / f64::from(total)),
                open_on_no_answer: false,
                ..config()
            });
            run(&breaker, &"S".repeat((total - failed) as usize), 0);
            run(&breaker, &"F".repeat(failed as usize - 1), 0);
            assert_eq!(breaker.state(), BreakerState::Closed, "{failed} of {total}");
            run(&breaker, "F", 0);
            assert_eq!(breaker.state(), BreakerState::Open, "{failed} of {total}");
        }
    }
}

#[test]
fn remembers_failures_for_the_whole_window() {
    let breaker = breaker(BreakerConfig {
        window: Window::Time(seconds(10)),
        min_calls: 4,
        ..config()
    });
    run(&breaker, "FFF", 0);
    run(&breaker, "F", 10 * SECOND - 1);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn opens_when_successes_leave_the_window() {
    let breaker = breaker(BreakerConfig {
        window: Window::Time(seconds(10)),
        min_calls: 4,
        ..config()
    });
    run(&breaker, &"S".repeat(10), 0);
    run(&breaker, "FFFF", 5 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "S", 10 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn an_overloaded_peer_counts_as_a_failing_one() {
    let breaker = breaker(config());
    run(&breaker, "OOOOO", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn ignored_calls_count_for_nothing() {
    let breaker = breaker(config());
    run(&breaker, &format!("{}FFFF", "X".repeat(10)), 0);
    assert_eq!(breaker.counts(0).total(), 4);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn half_open_admits_no_more_than_its_probes() {
    let (breaker, now) = half_open(config());
    let mut probes: Vec<_> = (0..4).map(|_| admit(&breaker, now)).collect();
    assert!(breaker.admit(0, now).0.is_err());
    assert!(breaker.admit(0, now).0.is_err());
    record(&breaker, probes.remove(0), 'X', now);
    probes.push(admit(&breaker, now));
    assert!(breaker.admit(0, now).0.is_err());
    breaker.abandon(probes.remove(0), 0, now);
    assert!(breaker.admit(0, now).0.is_ok());
    assert!(breaker.admit(0, now).0.is_err());
}

/// Admits all four probes at once, and ends one after the other until there is a verdict.
fn verdict_after(config: BreakerConfig, letters: &str) -> (usize, Cause) {
    let (breaker, now) = half_open(config);
    let probes: Vec<_> = (0..4).map(|_| admit(&breaker, now)).collect();
    let mut ends = probes.into_iter().zip(letters.chars()).enumerate();
    let verdict = ends.find_map(|(place, (probe, letter))| {
        let transition = record(&breaker, probe, letter, now)?;
        Some((place + 1, transition.cause))
    });
    assert_eq!(breaker.counts(now).total(), 0);
    verdict.expect("four results give a verdict")
}

#[test]
fn a_verdict_by_rate_is_given_once_it_is_certain() {
    for (letters, verdict) in [
        ("SSSF", (3, Cause::ProbesSucceeded)),
        ("FSSS", (4, Cause::ProbesSucceeded)),
        ("SFSS", (4, Cause::ProbesSucceeded)),
        ("FFSS", (2, Cause::ProbesFailed)),
        ("FSFS", (3, Cause::ProbesFailed)),
        ("SSFF", (4, Cause::ProbesFailed)),
    ] {
        assert_eq!(verdict_after(config(), letters), verdict, "{letters}");
    }
}

#[test]
fn an_ignored_probe_is_no_part_of_the_verdict() {
    let (breaker, now) = half_open(config());
    run(&breaker, "SXFXS", now);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    run(&breaker, "XS", now);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn probes_are_judged_by_rate_by_default() {
    assert_eq!(BreakerConfig::default().verdict, Verdict::Rate);
    assert_eq!(Verdict::default(), Verdict::Rate);
}

#[test]
fn without_a_failure_rate_any_failed_probe_reopens() {
    let config = BreakerConfig {
        failure_rate: None,
        consecutive_failures: Some(5),
        ..config()
    };
    assert_eq!(verdict_after(config, "SSSF"), (4, Cause::ProbesFailed));
    assert_eq!(verdict_after(config, "SSSS"), (4, Cause::ProbesSucceeded));
}

/// An upstream that fails 40 % of its calls is below the threshold. By any failure a false trip
/// would last five rounds of probes on average, by rate one and a half.
#[test]
fn a_false_trip_ends_soon_by_rate() {
    let probings = |verdict| {
        let config = BreakerConfig {
            probes: 3,
            verdict,
            ..config()
        };
        let (mut random, mut probings) = (7_u64, 0);
        for _ in 0..1000 {
            let (breaker, mut now) = half_open(config);
            while breaker.state() != BreakerState::Closed {
                if let (Ok(pass), _) = breaker.admit(0, now) {
                    random = scatter(random, 1);
                    let letter = if random % 10 < 4 { 'F' } else { 'S' };
                    if let Some(judged) = record(&breaker, pass, letter, now) {
                        probings += 1;
                        now += u64::from(judged.to == BreakerState::Open) * 6 * SECOND;
                    }
                }
            }
        }
        probings
    };
    let (rate, any) = (probings(Verdict::Rate), probings(Verdict::AnyFailure));
    assert!((1300..1800).contains(&rate) && any > 4000, "{rate}, {any}");
}

#[test]
fn a_verdict_by_any_failure_is_given_at_the_first() {
    let (breaker, now) = half_open(BreakerConfig {
        verdict: Verdict::AnyFailure,
        ..config()
    });
    run(&breaker, "SF", now);
    assert_eq!(breaker.state(), BreakerState::Open);
    run(&breaker, "SSSS", now + 5 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn late_results_from_an_old_generation_are_ignored() {
    let breaker = breaker(config());
    let late = [admit(&breaker, 0), admit(&breaker, 0)];
    run(&breaker, "FFFFF", 0);
    let now = 5 * SECOND;
    let probe = admit(&breaker, now);
    for (late, letter) in late.into_iter().zip(['S', 'F']) {
        assert_eq!(record(&breaker, late, letter, now), None);
    }
    assert_eq!(breaker.late(), 2);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    run(&breaker, "SS", now);
    let closed = record(&breaker, probe, 'S', now).unwrap();
    assert_eq!(
        (closed.to, closed.cause),
        (BreakerState::Closed, Cause::ProbesSucceeded)
    );
}

#[test]
fn hung_probes_cannot_hold_the_circuit_half_open() {
    let (breaker, now) = half_open(config());
    let mut hung: Vec<_> = (0..4).map(|_| admit(&breaker, now)).collect();
    assert_eq!(
        breaker.admit(0, now + 5 * SECOND - 1),
        (Err(CircuitOpen { wait: None }), None)
    );
    let (refused, transition) = breaker.admit(0, now + 5 * SECOND);
    assert_eq!(
        refused,
        Err(CircuitOpen {
            wait: Some(seconds(5))
        })
    );
    assert_eq!(transition.unwrap().cause, Cause::LeaseExpired);
    run(&breaker, "SSSS", now + 10 * SECOND);
    record(&breaker, hung.remove(0), 'F', now + 10 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn probes_far_apart_in_a_short_window_still_close() {
    let config = BreakerConfig {
        window: Window::Time(Duration::from_millis(200)),
        min_calls: 5,
        open_for: Duration::from_millis(100),
        jitter: false,
        ..BreakerConfig::default()
    };
    let breaker = breaker(config);
    run(&breaker, "FFFFF", 0);
    for probe in 0..3 {
        run(&breaker, "S", (100 + probe * 150) * MILLI);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// A bucket from before 128 transitions was once taken for a newer one, and every result for late.
/// A circuit that had reopened 64 times, in half an hour of outage, closed and never opened again.
#[test]
fn a_circuit_still_opens_after_a_long_outage() {
    for reopenings in [63, 64, 100, 127, 128] {
        let breaker = breaker(BreakerConfig {
            probes: 1,
            verdict: Verdict::AnyFailure,
            ..config()
        });
        run(&breaker, "FFFFF", 0);
        let mut now = 0;
        for _ in 0..reopenings {
            now += 5 * SECOND;
            run(&breaker, "F", now);
        }
        run(&breaker, "S", now + 5 * SECOND);
        assert_eq!(breaker.state(), BreakerState::Closed);
        run(&breaker, "FFFFF", now + 6 * SECOND);
        assert_eq!((breaker.state(), breaker.late()), (BreakerState::Open, 0));
    }
}

#[test]
fn forced_open_refuses_after_any_wait() {
    let breaker = breaker(config());
    assert_eq!(breaker.force_open().unwrap().cause, Cause::ByHand);
    assert_eq!(breaker.force_open(), None);
    assert_eq!(
        breaker.admit(0, u64::MAX),
        (Err(CircuitOpen { wait: None }), None)
    );
    breaker.close();
    assert!(breaker.admit_if_closed().is_some());
}

#[test]
fn disabled_lets_all_through_and_counts_nothing() {
    let breaker = breaker(config());
    breaker.disable();
    run(&breaker, "FFFFFFFFFF", 0);
    assert_eq!(breaker.state(), BreakerState::Disabled);
    assert_eq!(breaker.counts(0).total(), 0);
}

#[test]
fn an_open_time_ends_however_long_nobody_called() {
    let (breaker, _) = half_open(config());
    assert!(breaker.admit(0, 400 * 24 * 3600 * SECOND).0.is_ok());
}

#[test]
fn metrics_only_counts_and_never_opens() {
    let breaker = breaker(config());
    assert_eq!(
        breaker.metrics_only().unwrap().to,
        BreakerState::MetricsOnly
    );
    run(&breaker, "FFFFFFFFFF", 0);
    assert_eq!(
        (breaker.state(), breaker.counts(0).failures),
        (BreakerState::MetricsOnly, 10)
    );
    breaker.close();
    assert_eq!(breaker.counts(0).total(), 0);
    run(&breaker, "FFFFF", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn close_keeps_a_closed_window_and_reset_empties_it() {
    let breaker = breaker(config());
    run(&breaker, "FFF", 0);
    assert_eq!(breaker.close(), None);
    assert_eq!(breaker.counts(0).failures, 3);
    assert_eq!(breaker.reset().unwrap().generation, 1);
    assert_eq!(breaker.counts(0).failures, 0);
}

#[test]
fn an_update_keeps_state_and_window() {
    let breaker = breaker(config());
    run(&breaker, "SSSSSSFF", 0);
    breaker
        .update(&BreakerConfig {
            failure_rate: Some(0.3),
            ..config()
        })
        .unwrap();
    assert_eq!(
        (breaker.state(), breaker.counts(0).total()),
        (BreakerState::Closed, 8)
    );
    run(&breaker, "F", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn an_update_applies_to_the_next_result_of_any_kind() {
    let breaker = breaker(BreakerConfig {
        failure_rate: Some(0.9),
        ..config()
    });
    run(&breaker, "SSSFFF", 0);
    breaker
        .update(&BreakerConfig {
            failure_rate: Some(0.4),
            ..config()
        })
        .unwrap();
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "S", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_window_of_calls_keeps_its_length() {
    let calls = |calls| BreakerConfig {
        window: Window::Calls(calls),
        ..config()
    };
    let refused = |before, after| {
        let breaker = breaker(before);
        run(&breaker, "F", 0);
        let field = breaker.update(&after).unwrap_err().field;
        (field, breaker.counts(0).failures, breaker.generation())
    };
    assert_eq!(refused(config(), calls(10)), ("window", 1, 0));
    assert_eq!(refused(calls(10), config()), ("window", 1, 0));
    assert_eq!(refused(calls(10), calls(11)), ("window", 1, 0));
    breaker(calls(10)).update(&calls(10)).unwrap();
}

/// With four probes configured and two judged, a change to two would leave none to bring the
/// verdict.
#[test]
fn lowered_probes_settle_half_open_at_the_next_call() {
    for (letters, probes, verdict) in [
        ("SS", 2, BreakerState::Closed),
        ("F", 1, BreakerState::Open),
    ] {
        let (breaker, now) = half_open(config());
        run(&breaker, letters, now);
        breaker
            .update(&BreakerConfig { probes, ..config() })
            .unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let transition = breaker.admit(0, now).1.unwrap();
        assert_eq!((transition.to, breaker.state()), (verdict, verdict));
    }
}

#[test]
fn overdue_probes_can_be_expired_without_a_call() {
    let (breaker, now) = half_open(config());
    let _hung: Vec<_> = (0..4).map(|_| admit(&breaker, now)).collect();
    assert_eq!(breaker.until_change(now + SECOND), Some(seconds(4)));
    assert_eq!(breaker.expire(now + 5 * SECOND - 1), None);
    assert_eq!(
        breaker.expire(now + 5 * SECOND).unwrap().cause,
        Cause::LeaseExpired
    );
    assert_eq!(breaker.expire(now + 5 * SECOND), None);
    assert_eq!(breaker.expire(now + 100 * SECOND), None);
}

#[test]
fn refuses_settings_that_cannot_work() {
    let refused = |config: BreakerConfig| Breaker::new(&config, 1, 0).unwrap_err().field;
    for rate in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(
            refused(BreakerConfig {
                failure_rate: Some(rate),
                ..config()
            }),
            "failure_rate"
        );
        assert_eq!(
            refused(BreakerConfig {
                slow_calls: Some(SlowCalls {
                    after: seconds(1),
                    rate
                }),
                ..config()
            }),
            "slow_calls"
        );
    }
    assert_eq!(
        refused(BreakerConfig {
            failure_rate: None,
            ..config()
        }),
        "failure_rate"
    );
    for length in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
        assert_eq!(
            refused(BreakerConfig {
                window: Window::Time(length),
                ..config()
            }),
            "window"
        );
    }
    for calls in [0, (1 << 20) + 1, u32::MAX] {
        assert_eq!(
            refused(BreakerConfig {
                window: Window::Calls(calls),
                ..config()
            }),
            "window"
        );
    }
    for after in [Duration::ZERO, Duration::MAX] {
        assert_eq!(
            refused(BreakerConfig {
                slow_calls: Some(SlowCalls { after, rate: 0.5 }),
                ..config()
            }),
            "slow_calls"
        );
    }
    for open_for in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        assert_eq!(
            refused(BreakerConfig {
                open_for,
                ..config()
            }),
            "open_for"
        );
    }
    for probes in [0, 512, u16::MAX] {
        assert_eq!(refused(BreakerConfig { probes, ..config() }), "probes");
    }
    for lease in [Duration::ZERO, Duration::MAX] {
        assert_eq!(
            refused(BreakerConfig {
                lease: Some(lease),
                ..config()
            }),
            "lease"
        );
    }
    for longest in [Duration::ZERO, seconds(4), Duration::MAX] {
        assert_eq!(
            refused(BreakerConfig {
                max_open: Some(longest),
                ..config()
            }),
            "max_open"
        );
    }
    assert_eq!(
        refused(BreakerConfig {
            ramp: Duration::MAX,
            ..config()
        }),
        "ramp"
    );
    assert_eq!(
        refused(BreakerConfig {
            min_calls: 0,
            ..config()
        }),
        "min_calls"
    );
    assert_eq!(
        refused(BreakerConfig {
            consecutive_failures: Some(0),
            ..config()
        }),
        "consecutive_failures"
    );
}

#[test]
fn a_pass_of_no_admission_does_nothing() {
    let breaker = breaker(config());
    breaker.reset();
    assert!(!breaker.has_changed(&Pass::default()));
    assert_eq!(record(&breaker, Pass::default(), 'F', 0), None);
    breaker.abandon(Pass::default(), 0, 0);
    breaker.head(&mut Pass::default(), 0);
    assert_eq!((breaker.counts(0).total(), breaker.late()), (0, 0));
}

#[test]
fn a_pass_tells_whether_the_state_has_changed_since() {
    for slow_calls in [
        None,
        Some(SlowCalls {
            after: seconds(1),
            rate: 0.5,
        }),
    ] {
        let breaker = breaker(BreakerConfig {
            slow_calls,
            ..config()
        });
        let pass = admit(&breaker, SECOND);
        assert!(!breaker.has_changed(&pass));
        breaker.force_open();
        assert!(breaker.has_changed(&pass));
    }
}
