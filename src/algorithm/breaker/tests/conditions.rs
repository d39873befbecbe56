//! The conditions that open the circuit: shares, slow and hung calls, runs, and windows of calls.

use super::*;

fn of_calls(calls: u32) -> Breaker {
    breaker(BreakerConfig {
        window: Window::Calls(calls),
        ..BreakerConfig::default()
    })
}

/// Returns settings in which calls are slow from 4 s, at a share of a half.
fn watching_slow() -> BreakerConfig {
    BreakerConfig {
        slow_calls: Some(SlowCalls {
            after: seconds(4),
            rate: 0.5,
        }),
        ..config()
    }
}

/// Begins all calls at once and ends each after its own time, in tenths of a second.
fn run_for(breaker: &Breaker, calls: &[(u64, char)], start: u64) -> Option<Transition> {
    let passes: Vec<_> = calls.iter().map(|_| admit(breaker, start)).collect();
    let mut ends: Vec<_> = passes.into_iter().zip(calls).collect();
    ends.sort_by_key(|(_, (tenths, _))| *tenths);
    ends.into_iter()
        .filter_map(|(pass, (tenths, letter))| {
            record(breaker, pass, *letter, start + tenths * SECOND / 10)
        })
        .last()
}

/// In other libraries a window of calls only grows: after 100 000 successes it takes as many
/// failures to open.
#[test]
fn a_window_of_calls_slides() {
    let breaker = of_calls(10);
    run(&breaker, &"S".repeat(1000), 0);
    run(&breaker, "FFFF", 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "F", 0);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_window_of_calls_is_judged_only_when_full() {
    let breaker = of_calls(10);
    run(&breaker, "FFFFFFFFF", 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "S", 400 * 24 * 3600 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn a_window_of_calls_starts_empty_after_closing() {
    let breaker = of_calls(4);
    run(&breaker, "FFFF", 0);
    run(&breaker, "SS", 30 * SECOND);
    assert_eq!(
        (breaker.state(), breaker.counts(0).total()),
        (BreakerState::Closed, 0)
    );
    run(&breaker, "FFF", 30 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn too_many_slow_calls_open_the_circuit_and_are_named() {
    let breaker = breaker(watching_slow());
    let opened = run_for(
        &breaker,
        &[(50, 'F'), (50, 'S'), (1, 'F'), (1, 'S'), (50, 'S')],
        0,
    )
    .unwrap();
    assert_eq!(
        (opened.to, opened.cause),
        (BreakerState::Open, Cause::SlowRate)
    );
}

#[test]
fn counts_tell_slow_calls_from_quick_ones() {
    let breaker = breaker(BreakerConfig {
        min_calls: 100,
        ..watching_slow()
    });
    run_for(
        &breaker,
        &[(50, 'F'), (40, 'S'), (1, 'F'), (39, 'S'), (50, 'S')],
        0,
    );
    let counts = breaker.counts(5 * SECOND);
    assert_eq!((counts.successes, counts.failures, counts.slow), (3, 2, 3));
    assert!((counts.slow_rate() - 0.6).abs() < 1e-9);
}

#[test]
fn the_failure_rate_is_named_when_both_hold() {
    let breaker = breaker(watching_slow());
    let opened = run_for(&breaker, &[(50, 'F'); 5], 0).unwrap();
    assert_eq!(opened.cause, Cause::FailureRate);
}

#[test]
fn drops_are_neutral_when_early_and_slow_when_late() {
    let breaker = breaker(BreakerConfig {
        open_on_no_answer: false,
        ..watching_slow()
    });
    let drop_after = |tenths| {
        let passes: Vec<_> = (0..5).map(|_| admit(&breaker, 0)).collect();
        passes
            .into_iter()
            .filter_map(|pass| breaker.abandon(pass, 0, tenths * SECOND / 10))
            .last()
    };
    assert_eq!(drop_after(39), None);
    assert_eq!(breaker.counts(4 * SECOND).total(), 0);
    assert_eq!(drop_after(40).unwrap().cause, Cause::SlowRate);
}

#[test]
fn a_dropped_call_fails_only_if_asked_to() {
    for (cancelled_as_failure, state) in [(false, BreakerState::Closed), (true, BreakerState::Open)]
    {
        let breaker = breaker(BreakerConfig {
            cancelled_as_failure,
            open_on_no_answer: false,
            ..config()
        });
        for _ in 0..5 {
            let pass = admit(&breaker, 0);
            breaker.abandon(pass, 0, SECOND);
        }
        assert_eq!(breaker.state(), state);
    }
}

fn abandon(breaker: &Breaker, calls: usize, now: u64) -> Option<Transition> {
    let dropped = (0..calls).filter_map(|_| {
        let pass = breaker.admit(0, now).0.ok()?;
        breaker.abandon(pass, 0, now + MILLI)
    });
    dropped.last()
}

fn windows() -> [BreakerConfig; 2] {
    [Window::Time(seconds(20)), Window::Calls(10)]
        .map(|window| BreakerConfig { window, ..config() })
}

/// Once, 3000 of 3000 calls hung, an outer timeout dropped them all, and the circuit stayed closed.
#[test]
fn a_window_of_dropped_calls_alone_opens() {
    for config in windows() {
        let breaker = breaker(config);
        assert_eq!(abandon(&breaker, 4, 0), None);
        assert_eq!(breaker.counts(MILLI).abandoned, 4);
        let opened = abandon(&breaker, 1, SECOND).unwrap();
        assert_eq!(
            (opened.to, opened.cause),
            (BreakerState::Open, Cause::NoAnswer)
        );
        assert_eq!(abandon(&breaker, 3000, SECOND), None);
        assert_eq!(breaker.counts(SECOND).abandoned, 0);
    }
    let default = breaker(BreakerConfig::default());
    assert!(abandon(&default, 3000, 0).is_some());
    assert_eq!(default.state(), BreakerState::Open);
}

#[test]
fn dropped_calls_beside_an_answered_one_are_neutral() {
    for config in windows() {
        for answer in ["S", "F"] {
            let breaker = breaker(BreakerConfig {
                min_calls: 4,
                ..config
            });
            abandon(&breaker, 3, 0);
            run(&breaker, answer, 0);
            assert_eq!(abandon(&breaker, 3, 0), None);
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }
}

#[test]
fn an_ignored_call_is_no_answer() {
    for config in windows() {
        let breaker = breaker(config);
        abandon(&breaker, 4, 0);
        run(&breaker, "XXXXX", 0);
        assert_eq!(abandon(&breaker, 1, 0).unwrap().cause, Cause::NoAnswer);
    }
}

#[test]
fn dropped_calls_leave_the_window_of_time() {
    let breaker = breaker(config());
    abandon(&breaker, 4, 0);
    assert_eq!(abandon(&breaker, 4, 20 * SECOND), None);
    assert_eq!(
        abandon(&breaker, 1, 39 * SECOND).unwrap().cause,
        Cause::NoAnswer
    );
}

#[test]
fn slow_and_quick_drops_together_are_no_answer() {
    for window in [Window::Time(seconds(20)), Window::Calls(10)] {
        let breaker = breaker(BreakerConfig {
            window,
            ..watching_slow()
        });
        let slow: Vec<_> = (0..3).map(|_| admit(&breaker, 0)).collect();
        abandon(&breaker, 2, 4 * SECOND);
        let ends = slow
            .into_iter()
            .map(|pass| breaker.abandon(pass, 0, 4 * SECOND));
        let causes: Vec<_> = ends.map(|end| end.map(|opened| opened.cause)).collect();
        assert_eq!(causes, [None, None, Some(Cause::NoAnswer)]);
    }
}

#[test]
fn a_setting_keeps_dropped_calls_neutral() {
    for config in windows() {
        let breaker = breaker(BreakerConfig {
            open_on_no_answer: false,
            ..config
        });
        assert_eq!(abandon(&breaker, 3000, 0), None);
        breaker.metrics_only();
        assert_eq!(abandon(&breaker, 3000, 0), None);
    }
}

#[test]
fn metrics_only_counts_dropped_calls_and_stays() {
    for config in windows() {
        let breaker = breaker(config);
        breaker.metrics_only();
        assert_eq!(abandon(&breaker, 9, 0), None);
        assert_eq!(breaker.counts(SECOND).abandoned, 9);
    }
}

#[test]
fn dropped_probes_only_give_their_slots_back() {
    for config in windows() {
        let breaker = breaker(config);
        abandon(&breaker, 5, 0);
        assert_eq!(abandon(&breaker, 20, 6 * SECOND), None);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        run(&breaker, "SSS", 6 * SECOND);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(abandon(&breaker, 4, 7 * SECOND), None);
    }
}

#[test]
fn a_body_dropped_after_its_head_is_an_answer() {
    let [time, calls] = windows();
    for config in [time, calls, watching_slow()] {
        let breaker = breaker(config);
        abandon(&breaker, 3, 0);
        for _ in 0..10 {
            let mut pass = breaker
                .admit_if_closed()
                .unwrap_or_else(|| admit(&breaker, 0));
            breaker.head(&mut pass, MILLI);
            assert_eq!(breaker.abandon(pass, 0, SECOND), None);
        }
        assert_eq!(abandon(&breaker, 2, SECOND), None);
        assert_eq!(breaker.counts(SECOND).total(), 0);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}

#[test]
fn hung_calls_open_the_circuit_before_any_ends() {
    let breaker = breaker(watching_slow());
    let _hung: Vec<_> = (0..5).map(|_| admit(&breaker, 0)).collect();
    let mut opened = None;
    for tenth in 1..=60 {
        opened = opened.or(breaker
            .admit(0, tenth * SECOND / 10)
            .1
            .map(|transition| (tenth, transition.cause)));
    }
    let (tenth, cause) = opened.expect("five calls have hung for six seconds");
    assert_eq!(cause, Cause::SlowRate);
    assert!(
        (40..=60).contains(&tenth),
        "noticed after {tenth} tenths of a second"
    );
}

#[test]
fn hung_calls_of_an_old_generation_open_no_later_one() {
    let breaker = breaker(BreakerConfig {
        min_calls: 1,
        probes: 1,
        ..watching_slow()
    });
    let hung: Vec<_> = (0..5).map(|_| admit(&breaker, 0)).collect();
    assert!(breaker.admit(0, 6 * SECOND).0.is_err());
    run(&breaker, "S", 12 * SECOND);
    assert_eq!(
        (breaker.state(), breaker.hung(20 * SECOND)),
        (BreakerState::Closed, 0)
    );
    run(&breaker, "SSSS", 20 * SECOND);
    for pass in hung {
        breaker.abandon(pass, 0, 21 * SECOND);
    }
    assert_eq!(
        (breaker.state(), breaker.hung(30 * SECOND), breaker.late()),
        (BreakerState::Closed, 0, 5)
    );
}

#[test]
fn a_run_of_failures_opens_whatever_the_rate() {
    let config = BreakerConfig {
        consecutive_failures: Some(3),
        min_calls: 1000,
        ..config()
    };
    let breaker = breaker(config);
    run(&breaker, "SSSSFFSFFXF", 0);
    let state = breaker.state();
    assert_eq!(state, BreakerState::Open);
    assert_eq!(breaker.generation(), 1);
}

#[test]
fn a_success_ends_a_run_and_a_dropped_call_does_not() {
    let breaker = breaker(BreakerConfig {
        consecutive_failures: Some(3),
        failure_rate: None,
        verdict: Verdict::AnyFailure,
        ..config()
    });
    run(&breaker, "FFSFFSFF", 0);
    let dropped = admit(&breaker, 0);
    breaker.abandon(dropped, 0, 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
    let last = admit(&breaker, 0);
    assert_eq!(
        record(&breaker, last, 'F', 0).unwrap().cause,
        Cause::ConsecutiveFailures
    );
}

#[test]
fn probes_that_are_slow_do_not_close_the_circuit() {
    for verdict in [Verdict::Rate, Verdict::AnyFailure] {
        let breaker = breaker(BreakerConfig {
            verdict,
            ..watching_slow()
        });
        run(&breaker, "FFFFF", 0);
        let opened = run_for(
            &breaker,
            &[(1, 'S'), (50, 'S'), (50, 'S'), (1, 'S')],
            5 * SECOND,
        )
        .unwrap();
        assert_eq!(
            (opened.to, opened.cause),
            (BreakerState::Open, Cause::ProbesSlow)
        );
    }
}

#[test]
fn a_dropped_probe_is_judged_if_slow_else_given_back() {
    let breaker = breaker(BreakerConfig {
        probes: 1,
        ..watching_slow()
    });
    run(&breaker, "FFFFF", 0);
    let probe = admit(&breaker, 5 * SECOND);
    assert_eq!(breaker.abandon(probe, 0, 6 * SECOND), None);
    let probe = admit(&breaker, 6 * SECOND);
    assert_eq!(
        breaker.abandon(probe, 0, 10 * SECOND).unwrap().cause,
        Cause::ProbesSlow
    );
}

#[test]
fn a_slow_reader_does_not_make_a_slow_peer() {
    let breaker = breaker(BreakerConfig {
        min_calls: 1,
        ..watching_slow()
    });
    // given: three heads that arrived in time, of bodies that are read for a minute.
    let mut passes: Vec<_> = (0..3).map(|_| admit(&breaker, 0)).collect();
    for pass in &mut passes {
        breaker.head(pass, SECOND);
    }
    // then: they do not count as hung, and none is slow at its end.
    assert_eq!(breaker.hung(60 * SECOND), 0);
    for (pass, letter) in passes.into_iter().zip("SXS".chars()) {
        record(&breaker, pass, letter, 60 * SECOND);
    }
    assert_eq!(breaker.counts(60 * SECOND).slow, 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_late_head_is_slow_however_quick_its_body() {
    let breaker = breaker(watching_slow());
    let mut pass = admit(&breaker, 0);
    breaker.head(&mut pass, 4 * SECOND);
    breaker.head(&mut pass, 4 * SECOND);
    record(&breaker, pass, 'F', 4 * SECOND);
    let counts = breaker.counts(4 * SECOND);
    assert_eq!((counts.failures, counts.slow), (1, 1));
    assert_eq!(breaker.hung(60 * SECOND), 0);
}

#[test]
fn calls_are_slow_and_hung_at_any_uptime() {
    for years in [0, 1, 30, 100] {
        let start = years * 365 * 24 * 3600 * SECOND + SECOND / 3;
        let breaker = breaker(BreakerConfig {
            min_calls: 6,
            ..watching_slow()
        });
        let passes: Vec<_> = (0..5).map(|_| admit(&breaker, start)).collect();
        assert_eq!(breaker.hung(start + 6 * SECOND), 5);
        let ends = [4 * SECOND - 64, 4 * SECOND + 64, SECOND, 0, 5 * SECOND];
        for (pass, after) in passes.into_iter().zip(ends) {
            record(&breaker, pass, 'S', start + after);
        }
        let counts = breaker.counts(start + 5 * SECOND);
        assert_eq!((counts.successes, counts.slow), (5, 2));
        assert_eq!(breaker.hung(start + 60 * SECOND), 0);
    }
}

#[test]
fn an_ignored_result_of_no_probe_needs_no_time() {
    let breaker = breaker(config());
    let untimed = breaker.admit_if_closed().unwrap();
    assert!(breaker.ignores(&untimed));
    let before = breaker.counts(0);
    assert!(
        breaker
            .record(untimed, Outcome::Ignore, None, 0, 0)
            .is_none()
    );
    assert_eq!(breaker.counts(0), before);
    let timed = breaker.admit(0, 0).0.unwrap();
    assert!(!breaker.ignores(&timed));
    let late = breaker.admit_if_closed().unwrap();
    run(&breaker, "FFFFF", 0);
    assert!(breaker.ignores(&late), "nothing of it is left");
    let probe = breaker.admit(0, 5 * SECOND).0.unwrap();
    assert!(!breaker.ignores(&probe));
    breaker.record(probe, Outcome::Ignore, None, 0, 5 * SECOND);
    drop((timed, late));
}
