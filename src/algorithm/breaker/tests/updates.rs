//! Updates of what the counts depend on: the window restarts.

use proptest::prelude::*;

use super::*;

fn of_length(length: Duration) -> BreakerConfig {
    BreakerConfig {
        window: Window::Time(length),
        ..config()
    }
}

fn slow_after(millis: u64) -> BreakerConfig {
    BreakerConfig {
        slow_calls: Some(SlowCalls {
            after: Duration::from_millis(millis),
            rate: 0.5,
        }),
        ..config()
    }
}

#[test]
fn another_length_starts_the_window_anew() {
    let breaker = breaker(config());
    let out = admit(&breaker, 0);
    run(&breaker, "FFFF", 0);
    breaker.update(&of_length(seconds(2))).unwrap();
    assert_eq!(breaker.counts(0), Counts::default());
    assert_eq!(breaker.state(), BreakerState::Closed);
    // A call from before the update is late.
    assert_eq!(record(&breaker, out, 'F', 0), None);
    assert_eq!((breaker.counts(0).failures, breaker.late()), (0, 1));
    // The new length is kept, and the settings still judge.
    run(&breaker, "FFFF", 0);
    assert_eq!(breaker.counts(2 * SECOND).failures, 0);
    run(&breaker, "FFFFF", 3 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn the_same_length_keeps_the_window() {
    let breaker = breaker(slow_after(100));
    run(&breaker, "FFFF", 0);
    let mut same = slow_after(100);
    same.failure_rate = Some(0.9);
    breaker.update(&same).unwrap();
    // An update that stops watching slow calls keeps it as well.
    breaker.update(&config()).unwrap();
    breaker.update(&slow_after(100)).unwrap();
    assert_eq!((breaker.counts(0).failures, breaker.generation()), (4, 0));
}

/// Regression: the time of slow calls stayed in force. A call that was dropped after it counted as
/// a success, and so did one that its caller's deadline had ended.
#[test]
fn an_update_to_no_slow_calls_is_a_build_without() {
    for late in [None, Some(false), Some(true)] {
        let [built, updated] = [config(), slow_after(100)].map(breaker);
        updated.update(&config()).unwrap();
        for letter in "SFSFF".chars() {
            let of_both = [&built, &updated].map(|breaker| {
                let (hung, ended) = (admit(breaker, 0), admit(breaker, 0));
                assert_eq!(breaker.hung(SECOND), 0);
                match late {
                    None => breaker.abandon(hung, 0, SECOND),
                    Some(late) => breaker.cut_short(hung, late, 0, SECOND),
                };
                record(breaker, ended, letter, SECOND);
                (breaker.state(), breaker.counts(SECOND))
            });
            assert_eq!(of_both[0], of_both[1], "late: {late:?}");
            if of_both[0].0 == BreakerState::Open {
                break;
            }
        }
    }
}

#[test]
fn an_open_circuit_closes_with_the_new_length() {
    let breaker = breaker(config());
    run(&breaker, "FFFFF", 0);
    let generation = breaker.generation();
    breaker.update(&of_length(seconds(1))).unwrap();
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.until_half_open(0), Some(seconds(5)));
    assert_eq!(breaker.generation(), generation);
    run(&breaker, "SSSS", 5 * SECOND);
    assert_eq!(breaker.state(), BreakerState::Closed);
    run(&breaker, "F", 5 * SECOND);
    assert_eq!(breaker.counts(5 * SECOND + 999 * MILLI).failures, 1);
    assert_eq!(breaker.counts(6 * SECOND).failures, 0);
}

#[test]
fn half_open_goes_on_with_its_probes() {
    let breaker = breaker(config());
    run(&breaker, "FFFFF", 0);
    let probes: Vec<_> = (0..4).map(|_| admit(&breaker, 5 * SECOND)).collect();
    breaker.update(&of_length(seconds(1))).unwrap();
    for probe in probes {
        record(&breaker, probe, 'S', 5 * SECOND);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn an_update_can_start_and_change_slow_calls() {
    let breaker = breaker(config());
    assert!(breaker.admit_if_closed().is_some());
    breaker.update(&slow_after(100)).unwrap();
    // The admission needs the time from now on.
    assert!(breaker.admit_if_closed().is_none());
    let calls: Vec<_> = (0..5).map(|_| admit(&breaker, 0)).collect();
    assert_eq!(breaker.hung(200 * MILLI), 5);
    for call in calls {
        record(&breaker, call, 'S', 100 * MILLI);
    }
    assert_eq!(breaker.state(), BreakerState::Open);

    breaker.close();
    breaker.update(&slow_after(1000)).unwrap();
    let calls: Vec<_> = (0..5).map(|_| admit(&breaker, SECOND)).collect();
    assert_eq!(breaker.hung(1200 * MILLI), 0);
    assert_eq!(breaker.hung(3 * SECOND), 5);
    for call in calls {
        record(&breaker, call, 'S', SECOND + 999 * MILLI);
    }
    assert_eq!(breaker.counts(2 * SECOND).slow, 0);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

proptest! {
    /// After each update it behaves like a breaker built with the new settings.
    #[test]
    fn agrees_with_a_breaker_that_is_built_anew(
        steps in prop::collection::vec((0u64..3000, prop::option::weighted(0.1, (10u64..100_000, 1u64..5000))), 1..200),
    ) {
        let with = |(length, after): (u64, u64)| BreakerConfig {
            window: Window::Time(Duration::from_millis(length)),
            // Counted, but never a cause to open.
            min_calls: 1_000_000,
            ..slow_after(after)
        };
        let mut now = 0;
        let (mut times, breaker) = ((20_000, 100), breaker(with((20_000, 100))));
        let mut fresh = super::breaker(with(times));
        for (step, update) in steps {
            now += step * MILLI;
            if let Some(update) = update.filter(|update| *update != times) {
                times = update;
                breaker.update(&with(times)).unwrap();
                fresh = super::breaker(with(times));
            }
            for breaker in [&breaker, &fresh] {
                let hangs = admit(breaker, now);
                let call = admit(breaker, now);
                let letter = if step % 2 == 0 { 'S' } else { 'F' };
                record(breaker, call, letter, now + step % 700 * MILLI);
                // One in four continues to hang.
                if step % 4 != 0 {
                    record(breaker, hangs, 'S', now);
                }
            }
            prop_assert_eq!(breaker.counts(now), fresh.counts(now));
            prop_assert_eq!(breaker.hung(now), fresh.hung(now));
        }
    }
}
