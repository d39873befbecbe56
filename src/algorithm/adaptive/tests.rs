use std::time::Duration;

use proptest::prelude::*;

use super::{limit::whole, *};

fn all() -> Vec<Box<dyn AdaptiveLimit>> {
    vec![
        Box::new(Aimd::default()),
        Box::new(Vegas::default()),
        Box::new(Gradient2::default()),
    ]
}

fn window(limit: usize, in_flight: usize, rtt: u64) -> Window {
    Window {
        limit,
        max: 1000,
        in_flight,
        was_full: in_flight >= limit,
        successes: 100,
        rtt: Some(Duration::from_micros(rtt)),
        ..Window::default()
    }
}

/// Returns the round trip at a server with so many places, if all of the limit is used.
fn rtt_of(limit: usize, places: usize, service: u64) -> u64 {
    service * limit.max(places) as u64 / places as u64
}

fn run(limit: &mut dyn AdaptiveLimit, from: usize, places: usize, service: u64) -> usize {
    let mut current = from;
    let mut sum = 0;
    for round in 0..200 {
        let seen = window(current, current, rtt_of(current, places, service));
        current = limit.update(&seen);
        if round >= 100 {
            sum += current;
        }
    }
    sum / 100
}

#[test]
fn all_start_at_20() {
    for limit in all() {
        assert_eq!(limit.initial(), 20, "{limit:?}");
        assert_eq!(limit.fresh().initial(), 20);
    }
}

#[test]
fn sequential_calls_never_raise_the_limit() {
    for mut limit in all() {
        // It stays so whatever limit it has fallen to before.
        for start in [20, 2, 1] {
            let mut current = start;
            for _ in 0..1000 {
                let seen = Window {
                    was_full: false,
                    ..window(current, 1, 100)
                };
                let next = limit.update(&seen);
                if start == 20 {
                    assert_eq!(next, 20, "{limit:?}");
                }
                current = current.min(next);
            }
        }
    }
    let seen = Window {
        was_full: false,
        ..window(1, 1, 100)
    };
    assert!(!seen.is_loaded());
}

#[test]
fn a_limit_hardly_used_stays() {
    for mut limit in all() {
        for rtt in [100, 100, 5000, 100, 20] {
            assert_eq!(limit.update(&window(20, 9, rtt)), 20, "{limit:?}");
        }
    }
}

#[test]
fn no_limit_falls_below_1() {
    for mut limit in all() {
        let mut current = 20;
        for round in 0..200 {
            let seen = Window {
                overloads: 100,
                ..window(current, current, 100 << (round / 8).min(20))
            };
            current = limit.update(&seen);
            assert!(current >= 1, "{limit:?}");
        }
        assert_eq!(current, 1, "{limit:?}");
        // The limit recovers.
        for _ in 0..50 {
            current = limit.update(&window(current, current, 100));
        }
        assert!(current > 10, "{limit:?}");
    }
}

#[test]
fn no_limit_passes_the_maximum() {
    for mut limit in all() {
        let mut current = 20;
        for _ in 0..200 {
            let seen = Window {
                max: 30,
                ..window(current, current, 100)
            };
            current = limit.update(&seen);
            assert!(current <= 30, "{limit:?}");
        }
    }
}

#[test]
fn vegas_finds_the_capacity_from_either_side() {
    for (from, places) in [(20, 5), (20, 50), (20, 500), (400, 50), (3, 50)] {
        let config = VegasConfig {
            initial: u32::try_from(from).unwrap(),
            ..VegasConfig::default()
        };
        let mut vegas = Vegas::new(config).unwrap();
        let found = run(&mut vegas, from, places, 10_000);
        assert!(
            found * 10 >= places * 9 && found <= places * 2,
            "{from}, {places}: {found}"
        );
    }
}

#[test]
fn gradient2_finds_the_tolerated_latency() {
    for (from, places) in [(20, 50), (20, 200), (400, 50)] {
        let config = Gradient2Config {
            initial: u32::try_from(from).unwrap(),
            ..Gradient2Config::default()
        };
        let mut gradient = Gradient2::new(config).unwrap();
        let found = run(&mut gradient, from, places, 10_000);
        assert!(
            found * 10 >= places * 11 && found * 10 <= places * 18,
            "{from}, {places}: {found}"
        );
    }
}

#[test]
fn a_slower_upstream_is_not_an_overloaded_one() {
    for mut limit in all() {
        let before = run(&mut *limit, 20, 50, 10_000);
        let after = run(&mut *limit, before, 50, 40_000);
        assert!(after * 10 >= before * 8, "{limit:?}: {before}, {after}");
    }
}

#[test]
fn aimd_backs_off_by_a_tenth_and_then_creeps() {
    let mut aimd = Aimd::default();
    assert_eq!(aimd.update(&window(20, 20, 1)), 40);
    assert_eq!(aimd.update(&window(40, 40, 1)), 80);
    let overload = Window {
        overloads: 2,
        ..window(80, 80, 1)
    };
    assert_eq!(aimd.update(&overload), 72);
    assert_eq!(aimd.update(&window(72, 72, 1)), 73);
    // One call of a hundred is no overload.
    let one = Window {
        overloads: 1,
        ..window(73, 73, 1)
    };
    assert_eq!(aimd.update(&one), 74);
}

#[test]
fn aimd_takes_slow_windows_for_overloads() {
    let config = AimdConfig {
        slow_after: Some(Duration::from_millis(1)),
        ..AimdConfig::default()
    };
    let mut aimd = Aimd::new(config).unwrap();
    assert_eq!(aimd.update(&window(20, 20, 1000)), 18);
}

#[test]
fn settings_out_of_range_are_named() {
    let config = AimdConfig {
        backoff: 1.0,
        ..AimdConfig::default()
    };
    assert_eq!(Aimd::new(config).unwrap_err().field, "backoff");
    let config = AimdConfig {
        increase: f64::NAN,
        ..AimdConfig::default()
    };
    assert_eq!(Aimd::new(config).unwrap_err().field, "increase");
    let config = VegasConfig {
        min: 0,
        ..VegasConfig::default()
    };
    assert_eq!(Vegas::new(config).unwrap_err().field, "min");
    let config = VegasConfig {
        min: 30,
        ..VegasConfig::default()
    };
    assert_eq!(Vegas::new(config).unwrap_err().field, "initial");
    let config = Gradient2Config {
        tolerance: 0.9,
        ..Gradient2Config::default()
    };
    assert_eq!(Gradient2::new(config).unwrap_err().field, "tolerance");
}

const MS: u64 = 1_000_000;

#[test]
fn a_window_needs_calls_and_time() {
    let samples = Samples::new();
    for n in 0..200 {
        assert_eq!(samples.record(Sample::Success, MS, 3, n), None);
    }
    let window = samples.record(Sample::Success, MS, 5, 60 * MS).unwrap();
    assert_eq!((window.successes, window.in_flight), (201, 5));
    assert_eq!(window.rtt, Some(Duration::from_millis(1)));
    // The window is closed until it is opened, and then until old calls have ended.
    assert_eq!(samples.record(Sample::Success, MS, 5, 200 * MS), None);
    samples.open(true, 60 * MS);
    assert_eq!(
        samples.record(Sample::Success, 9 * MS, 9, 61 * MS - 1),
        None
    );
    assert_eq!(samples.record(Sample::Success, MS, 2, 61 * MS), None);
    for _ in 0..9 {
        assert_eq!(samples.record(Sample::Success, MS, 2, 900 * MS), None);
    }
    let window = samples.record(Sample::Success, MS, 2, 1061 * MS).unwrap();
    assert_eq!((window.successes, window.in_flight), (11, 2));
}

#[test]
fn one_slow_call_counts_four_times_at_most() {
    let samples = Samples::new();
    for _ in 0..100 {
        let _ = samples.record(Sample::Success, MS, 1, 0);
    }
    assert!(samples.record(Sample::Success, MS, 1, 60 * MS).is_some());
    samples.open(false, 60 * MS);
    for _ in 0..99 {
        let _ = samples.record(Sample::Success, MS, 1, 60 * MS);
    }
    let window = samples.record(Sample::Success, 900 * MS, 1, 120 * MS);
    assert_eq!(window.unwrap().rtt, Some(Duration::from_micros(1030)));
}

#[test]
fn failures_and_overloads_are_told_apart() {
    let samples = Samples::new();
    assert_eq!(samples.record(Sample::Failure, 500 * MS, 1, 0), None);
    assert_eq!(samples.record(Sample::Failure, 1, 1, 0), None);
    for _ in 0..99 {
        let _ = samples.record(Sample::Success, MS, 1, 0);
    }
    let window = samples.record(Sample::Overload, 1, 1, 60 * MS).unwrap();
    let counted = (window.successes, window.overloads, window.failures);
    assert_eq!(counted, (99, 1, 2));
    assert_eq!(window.elapsed, Duration::from_millis(60));
    assert_eq!(window.rtt, Some(Duration::from_millis(1)));
}

#[test]
fn a_window_is_full_if_a_caller_found_no_room_in_it() {
    let samples = Samples::new();
    let mut seen = Vec::new();
    for (round, full) in [true, false, true].into_iter().enumerate() {
        let now = 60 * MS * round as u64;
        if full {
            samples.full();
        }
        for _ in 0..100 {
            let _ = samples.record(Sample::Success, MS, 1, now);
        }
        let window = samples.record(Sample::Success, MS, 1, now + 50 * MS);
        seen.push(window.unwrap().was_full);
        samples.open(false, now + 50 * MS);
    }
    assert_eq!(seen, [true, false, true]);
}

#[test]
fn one_call_in_a_hundred_is_no_overload() {
    let overloaded = |overloads, successes| {
        let seen = Window {
            overloads,
            successes,
            ..window(20, 20, 100)
        };
        seen.is_overloaded()
    };
    assert!(!overloaded(1, 99) && !overloaded(0, 0) && !overloaded(5, 495));
    assert!(overloaded(1, 98) && overloaded(5, 494) && overloaded(1, 0));
}

proptest! {
    #[test]
    fn collects_what_a_list_holds(calls in prop::collection::vec((0u64..40_000_000_000, 0usize..9, 0u64..3_000_000, 0u8..8), 1..800)) {
        let samples = Samples::new();
        let (mut now, mut opens, mut average) = (0u64, 0u64, 0u64);
        let mut list: Vec<(Sample, u64, usize)> = Vec::new();
        for (rtt, in_flight, step, kind) in calls {
            now += step;
            let sample = match kind { 0 => Sample::Overload, 1 => Sample::Failure, _ => Sample::Success };
            let window = samples.record(sample, rtt, in_flight, now);
            if now < opens {
                prop_assert_eq!(window, None);
                continue;
            }
            let most = if average == 0 { u64::MAX } else { 4 * average };
            list.push((sample, rtt.min(most).min((1 << 35) - 1), in_flight));
            let count = |kind| list.iter().filter(|call| call.0 == kind).count();
            let successes = list.iter().filter(|call| call.0 == Sample::Success);
            let times: Vec<u64> = successes.map(|call| call.1).collect();
            let mean = times.iter().sum::<u64>().checked_div(times.len() as u64);
            let elapsed = now - opens;
            let is_complete = elapsed >= 50_000_000
                && elapsed >= 2 * mean.unwrap_or(0)
                && (list.len() >= 100 || list.len() >= 10 && elapsed >= 1_000_000_000);
            prop_assert_eq!(window.is_some(), is_complete);
            let Some(window) = window else { continue };
            prop_assert_eq!(window.successes as usize, times.len());
            prop_assert_eq!(window.overloads as usize, count(Sample::Overload));
            prop_assert_eq!(window.failures as usize, count(Sample::Failure));
            prop_assert_eq!(window.elapsed, Duration::from_nanos(elapsed));
            prop_assert_eq!(Some(window.in_flight), list.iter().map(|call| call.2).max());
            prop_assert_eq!(window.rtt, mean.map(Duration::from_nanos));
            average = mean.map_or(average, |mean| mean.max(1));
            samples.open(true, now);
            opens = now + average;
            list.clear();
        }
    }

    #[test]
    fn stays_within_bounds_whatever_it_sees(windows in prop::collection::vec((0usize..2000, 0u32..300, 0u32..300, 0u64..10_000_000, any::<bool>(), 1usize..2000, 0u32..300), 1..100)) {
        for mut limit in all() {
            let mut current = limit.initial();
            let mut highest = 20;
            for &(in_flight, successes, overloads, rtt, was_full, max, failures) in &windows {
                let seen = Window {
                    limit: current.min(max),
                    max,
                    in_flight,
                    was_full,
                    successes,
                    overloads: if failures % 2 == 0 { overloads } else { 0 },
                    failures,
                    elapsed: Duration::from_micros(rtt),
                    rtt: (successes > 0).then(|| Duration::from_micros(rtt)),
                };
                let next = limit.update(&seen);
                prop_assert!(next >= 1 && next <= max, "{limit:?}: {next}");
                if !seen.is_loaded() && max >= 2000 {
                    // The limit may return to its value before failures lowered it.
                    prop_assert!(next <= highest);
                }
                current = next;
                highest = highest.max(next);
            }
        }
    }

    /// Compares it with the plain model: double until the first overload, then one more, or a tenth
    /// less.
    #[test]
    fn aimd_is_what_its_name_says(windows in prop::collection::vec((any::<bool>(), any::<bool>()), 1..200)) {
        let mut aimd = Aimd::default();
        let (mut model, mut starting) = (20.0f64, true);
        for (overloaded, loaded) in windows {
            let limit = whole(model);
            let mut seen = window(limit, limit, 100);
            seen.overloads = if overloaded { 50 } else { 0 };
            if !loaded {
                (seen.in_flight, seen.was_full) = (0, false);
            }
            let next = aimd.update(&seen);
            model = match (overloaded, loaded, starting) {
                (true, ..) => model * 0.9,
                (_, false, _) => model,
                (_, _, true) => model * 2.0,
                _ => model + 1.0,
            };
            model = model.clamp(1.0, 1000.0);
            starting &= !overloaded;
            prop_assert_eq!(next, whole(model));
        }
    }
}
