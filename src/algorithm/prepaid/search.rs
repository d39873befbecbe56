//! An exhaustive search of small cases: two processes, one key, three asks, one loss, one death.
//!
//! An ask is sent at a moment. It reaches the store once, not at all, or twice (its reply was lost,
//! so it was sent again). The units of its reply may be spent from the moment at which the reply
//! arrives until they end. The reply may arrive as soon as the store has answered. A window that
//! holds a spend of each of several grants is shortest if the first grant is spent as late as
//! possible, and the last as early as possible. So the bound holds for all ways to spend if it
//! holds for each subset of the grants, over that shortest window. A process that dies, and a reply
//! that is lost, leave a subset.

use super::*;

/// Gaps and delays, in halves of a lease's life.
#[derive(Clone, Copy)]
struct Case {
    gap: u64,
    delay: u64,
    want: Want,
}

/// Units, the first moment at which they can be spent, and the last.
type Spent = (u64, u64, u64);

fn within_the_bound(terms: &Terms, spent: &[Spent]) -> bool {
    (1_u32..1 << spent.len()).all(|subset| {
        let chosen = || {
            (0..)
                .zip(spent)
                .filter(move |(bit, _)| subset >> bit & 1 == 1)
        };
        let units: u64 = chosen().map(|(_, (units, ..))| units).sum();
        let last = chosen().map(|(_, (_, from, _))| *from).max().unwrap_or(0);
        let first = chosen().map(|(_, (.., until))| *until).min().unwrap_or(0);
        let (count, period) = terms.ratio();
        let window = last.saturating_sub(first);
        units * period <= u64::from(terms.burst()) * period + window * count
    })
}

/// Runs three asks. The ask with the number `resent` reaches the store again at the end of the next
/// step, and its second reply is the one that is used.
fn run(terms: &Terms, cases: [Case; 3], resent: usize, tick: u64) -> Vec<Spent> {
    let (mut store, mut now, mut spent) = (Prepaid::new(), 1_000_000_000, Vec::new());
    let mut again: Option<(u64, Want)> = None;
    for (number, case) in cases.into_iter().enumerate() {
        let sent = now + case.gap * tick;
        now = sent + case.delay * tick;
        let mut reply = |store: &mut Prepaid, sent, want, now| {
            let granted = store.exchange(terms, want, now);
            let units = u64::from(granted.units);
            spent.push((units, now + granted.wait, sent + granted.good_for));
        };
        if number == resent {
            store.exchange(terms, case.want, now);
            again = Some((sent, case.want));
        } else {
            reply(&mut store, sent, case.want, now);
            if let Some((sent, want)) = again.take() {
                reply(&mut store, sent, want, now);
            }
        }
    }
    spent.retain(|(units, from, until)| *units > 0 && from < until);
    spent
}

fn wants(burst: u32) -> [Want; 4] {
    [(1, 1), (burst, 1), (2.min(burst), 2), (burst, burst)].map(|(units, least)| Want {
        units,
        least,
        ..Want::default()
    })
}

fn cases(burst: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    for gap in 0..=6 {
        for delay in 0..=2 {
            cases.extend(wants(burst).map(|want| Case { gap, delay, want }));
        }
    }
    cases
}

#[test]
fn all_small_cases_stay_within_the_bound() {
    for (rate, burst) in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 4)] {
        let terms = Terms::new(Rate::per_second(rate), burst).unwrap();
        let (all, tick) = (cases(burst), terms.life() / 2);
        // A gap before the first ask changes nothing: the limit is fresh.
        let first: Vec<_> = all.iter().filter(|case| case.gap == 0).collect();
        let mut granted = 0;
        for first in first {
            for second in &all {
                for third in &all {
                    for resent in 0..=2 {
                        let spent = run(&terms, [*first, *second, *third], resent, tick);
                        assert!(
                            within_the_bound(&terms, &spent),
                            "{rate}/s, {burst}: {spent:?}"
                        );
                        granted += spent.len();
                    }
                    let spent = run(&terms, [*first, *second, *third], 9, tick);
                    assert!(
                        within_the_bound(&terms, &spent),
                        "{rate}/s, {burst}: {spent:?}"
                    );
                }
            }
        }
        assert!(
            granted > 100_000,
            "the search grants what it checks: {granted}"
        );
    }
}

/// Checks that the search can fail: without lowering the burst for a lease's life, the bound is
/// exceeded.
#[test]
fn the_search_finds_a_burst_that_was_not_lowered() {
    let terms = Terms::new(Rate::per_second(1), 4).unwrap();
    let unlowered = Terms::new(Rate::per_second(1), 5).unwrap();
    let (all, tick) = (cases(4), terms.life() / 2);
    let found = all.iter().any(|second| {
        all.iter().any(|third| {
            let spent = run(&unlowered, [all[3], *second, *third], 9, tick);
            !within_the_bound(&terms, &spent)
        })
    });
    assert!(found);
}
