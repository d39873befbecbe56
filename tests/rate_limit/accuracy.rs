//! From one a day, polled often, to a hundred million a second: each limit admits its rate within a
//! thousandth, or falls short of it by exactly what its documentation says.

use std::time::Duration;

use tower_keep::algorithm::{
    All, KeyedBuckets, LeakyBucket, Limit, Overflow, Rate, SlidingCounter, SlidingLog, SlidingRing,
    TokenBucket,
};

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;

/// How many units are admitted if one call of `cost` comes each `step`, from the given time on.
fn polled(
    acquire: impl Fn(u32, u64) -> bool,
    cost: u32,
    (start, span, step): (u64, u64, usize),
) -> u64 {
    (start..=start + span)
        .step_by(step)
        .filter(|now| acquire(cost, *now))
        .count() as u64
        * u64::from(cost)
}

fn of(limit: &dyn Limit) -> impl Fn(u32, u64) -> bool {
    |cost, now| limit.acquire(cost, now).is_ok()
}

fn key_of(rate: Rate, burst: u32) -> impl Fn(u32, u64) -> bool {
    let table = KeyedBuckets::new(rate, burst, 100, Overflow::Reject).unwrap();
    move |cost, now| table.acquire(0x9e37_79b9_7f4a_7c15, cost, now).is_ok()
}

#[test]
fn one_a_day_passes_though_it_is_polled_each_second() {
    let day = Rate::per_day(1);
    let ten_days = (0, 10 * 86_400 * SECOND, 1_000_000_000);
    let admitted = |limit: &dyn Limit| polled(of(limit), 1, ten_days);
    let bucket = || TokenBucket::new(day, 1).unwrap();
    let log = || SlidingLog::new(day).unwrap();
    assert_eq!(admitted(&bucket()), 11);
    assert_eq!(
        admitted(&LeakyBucket::new(day, Duration::ZERO).unwrap()),
        11
    );
    assert_eq!(admitted(&log()), 11);
    assert_eq!(admitted(&All::new(bucket()).and(log())), 11);
    assert_eq!(polled(key_of(day, 1), 1, ten_days), 11);
    // Each is a part of 2.4 hours late.
    assert_eq!(admitted(&SlidingRing::new(day, 10).unwrap()), 10);
    // One in two windows.
    assert_eq!(admitted(&SlidingCounter::new(day).unwrap()), 6);
}

#[test]
fn high_rates_are_met_within_a_thousandth() {
    // given: a window's worth in half a window, from a time that is no multiple of anything.
    let rate = Rate::new(100_000, Duration::from_millis(1));
    let span = (12_345_678_901, 110 * MILLI, 100);
    let admitted = |limit: &dyn Limit| polled(of(limit), 20, span);
    let bucket = || TokenBucket::new(rate, 1000).unwrap();
    let log = || SlidingLog::new(rate).unwrap();
    let ideal = 110 * 100_000;
    // And no more than that and what is saved up at first.
    let check = |admitted: u64, ideal: u64, burst: u64| {
        assert!(
            admitted * 1000 >= ideal * 999 && admitted <= ideal + burst,
            "{admitted} of {ideal}"
        );
    };
    // then
    check(admitted(&bucket()), ideal, 1000);
    check(
        admitted(&LeakyBucket::new(rate, Duration::from_micros(1)).unwrap()),
        ideal,
        120,
    );
    check(admitted(&log()), ideal, 0);
    check(admitted(&All::new(bucket()).and(log())), ideal, 0);
    check(polled(key_of(rate, 1000), 20, span), ideal, 1000);
    check(
        admitted(&SlidingCounter::new(rate).unwrap()),
        ideal,
        100_000,
    );
    // Of eleven parts, or 101, all but one are the window.
    check(
        admitted(&SlidingRing::new(rate, 10).unwrap()),
        ideal * 10 / 11,
        100_000,
    );
    let finer = polled(
        of(&SlidingRing::new(rate, 100).unwrap()),
        200,
        (12_345_678_901, 110 * MILLI, 1000),
    );
    check(finer, ideal * 100 / 101, 100_000);
}
