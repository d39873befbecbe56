//! Properties of every limit.

use crate::algorithm::{
    All, KeyedBuckets, LeakyBucket, Limit, OverLimit, Overflow, Rate, SlidingCounter, SlidingLog,
    SlidingRing, TokenBucket,
};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const YEAR: u64 = 365 * 24 * 3600 * SECOND;

/// Limits of three a second, all at once if the kind allows it.
fn limits() -> Vec<(&'static str, Box<dyn Limit>)> {
    let rate = Rate::per_second(3);
    vec![
        ("bucket", Box::new(TokenBucket::new(rate, 3).unwrap())),
        (
            "leaky",
            Box::new(LeakyBucket::new(rate, Duration::ZERO).unwrap()),
        ),
        ("log", Box::new(SlidingLog::new(rate).unwrap())),
        ("ring", Box::new(SlidingRing::new(rate, 10).unwrap())),
        ("counter", Box::new(SlidingCounter::new(rate).unwrap())),
        (
            "all",
            Box::new(
                All::new(TokenBucket::new(rate, 3).unwrap()).and(SlidingLog::new(rate).unwrap()),
            ),
        ),
    ]
}

fn use_up(limit: &dyn Limit, now: u64) -> u32 {
    let fits = |_: &u32| limit.acquire(1, now).is_ok();
    u32::try_from((0..10).filter(fits).count()).unwrap()
}

#[test]
fn a_call_of_cost_0_is_free() {
    for (name, limit) in limits() {
        use_up(&*limit, SECOND);
        limit.charge(2, SECOND);
        limit.close_until(5 * SECOND, SECOND);
        for now in [SECOND, 2 * SECOND] {
            assert_eq!(limit.acquire(0, now), Ok(()), "{name}");
            assert_eq!(limit.acquire_late(0, now, now), Ok(()), "{name}");
            assert_eq!(limit.wait_for(0, 100, now), Duration::ZERO, "{name}");
            assert!(limit.acquire(1, now).is_err(), "{name}");
        }
    }
    let keyed = KeyedBuckets::new(Rate::per_second(3), 3, 8, Overflow::Reject).unwrap();
    keyed.close_until(1 << 40, SECOND, 0);
    assert!(keyed.acquire(1 << 40, 0, 0).is_ok() && keyed.acquire(1 << 40, 1, 0).is_err());
}

#[test]
fn a_cost_above_the_most_never_fits() {
    for (name, limit) in limits() {
        if limit.largest_cost() < u32::MAX {
            let above = limit.acquire(limit.largest_cost() + 1, 0);
            assert_eq!(above, Err(OverLimit::CostAboveBurst), "{name}");
        }
    }
}

#[test]
fn a_reset_forgets_use_debt_and_closure() {
    for (name, limit) in limits() {
        let most = use_up(&*limit, SECOND);
        limit.charge(3, SECOND);
        limit.close_until(SECOND + YEAR / 2, SECOND);
        assert!(limit.acquire(1, 60 * SECOND).is_err(), "{name}");
        limit.reset(60 * SECOND);
        assert!(limit.is_fresh(60 * SECOND), "{name}");
        assert_eq!(use_up(&*limit, 60 * SECOND), most, "{name}");
        // Later calls are decided as by a fresh limit, too.
        limit.reset(60 * SECOND);
        limit.reset(60 * SECOND);
        assert_eq!(use_up(&*limit, 60 * SECOND), most, "{name}");
    }
}

#[test]
fn a_reset_of_a_key_forgets_its_debt_alone() {
    let keyed = KeyedBuckets::new(Rate::per_second(3), 3, 8, Overflow::Shared).unwrap();
    let [one, other] = [1 << 40, 2 << 41];
    for key in [one, other] {
        keyed.acquire(key, 3, 0).unwrap();
        keyed.close_until(key, YEAR / 2, 0);
    }
    keyed.reset(one, SECOND);
    assert!(keyed.acquire(one, 3, SECOND).is_ok() && keyed.acquire(one, 1, SECOND).is_err());
    assert!(keyed.acquire(other, 1, SECOND).is_err());
}

#[test]
fn every_limit_is_right_at_any_uptime() {
    for years in [0, 3, 9, 30, 100, 140] {
        for (name, limit) in limits() {
            let now = years * YEAR;
            let most = use_up(&*limit, now);
            assert!((1..=3).contains(&most), "{name} at {years}");
            for later in [SECOND, 2 * SECOND] {
                assert!(use_up(&*limit, now + later) <= 3, "{name} at {years}");
            }
            // Unused for as long again.
            let now = now + (years * YEAR).min(4 * YEAR) + 10 * SECOND;
            assert_eq!(use_up(&*limit, now), most, "{name} at {years}");
        }
    }
}

#[test]
fn no_step_back_of_the_clock_admits_more() {
    for (name, limit) in limits() {
        let now = 30 * YEAR;
        assert!(use_up(&*limit, now) > 0, "{name}");
        for back in [1, SECOND, 17 * SECOND, 70_000 * SECOND, YEAR, 29 * YEAR] {
            assert_eq!(use_up(&*limit, now - back), 0, "{name}, {back} back");
        }
        assert_eq!(use_up(&*limit, now), 0, "{name}");
    }
}

/// Regression: three pages gave three sizes of one type.
#[test]
fn the_docs_tell_the_sizes_of_types() {
    for (name, size, page) in [
        (
            "TokenBucket",
            size_of::<TokenBucket>(),
            include_str!("../token_bucket.rs"),
        ),
        (
            "LeakyBucket",
            size_of::<LeakyBucket>(),
            include_str!("../leaky_bucket.rs"),
        ),
        (
            "SlidingCounter",
            size_of::<SlidingCounter>(),
            include_str!("../sliding_counter.rs"),
        ),
    ] {
        let table = include_str!("../limit.rs");
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("/// | [`{name}`]")));
        assert!(
            row.unwrap().contains(&format!("| {size} bytes")),
            "{name}: {size}"
        );
        let words: Vec<_> = page
            .split_whitespace()
            .filter(|word| *word != "///")
            .collect();
        let told = words
            .windows(2)
            .any(|pair| pair[0] == size.to_string() && pair[1].starts_with("bytes"));
        assert!(told, "{name}: {size}");
    }
    let counter = size_of::<SlidingCounter>();
    let modules = include_str!("../mod.rs");
    assert!(modules.contains(&format!("for each part; {counter} bytes")));
}
