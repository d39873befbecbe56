use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

fn terms(per_second: u64, burst: u32) -> Terms {
    Terms::new(Rate::per_second(per_second), burst).unwrap()
}

fn want(units: u32, least: u32) -> Want {
    Want {
        units,
        least,
        ..Want::default()
    }
}

fn owes(process: u64, number: u64, units: u32) -> Want {
    let debt = Debt {
        process,
        number,
        units,
    };
    Want {
        debt: Some(debt),
        ..Want::default()
    }
}

#[test]
fn a_burst_without_room_for_a_lease_names_the_least() {
    for (rate, burst, least) in [(100, 1, 40), (100, 39, 40), (6000, 2000, 2400)] {
        let error = Terms::new(Rate::per_second(rate), burst).unwrap_err();
        assert_eq!(error.field, "burst");
        assert!(
            error.value.contains(&format!("{least} is the least")),
            "{error}"
        );
        assert!(Terms::new(Rate::per_second(rate), least).is_ok());
        assert!(Terms::new(Rate::per_second(rate), least - 1).is_err());
    }
}

#[test]
fn numbers_that_a_script_cannot_hold_are_refused() {
    let odd = Rate::new(999_999_937, Duration::from_nanos(86_399_999_999_999));
    assert_eq!(
        Terms::new(odd, 1_000_000_000 / 8).unwrap_err().field,
        "burst"
    );
    assert!(Terms::new(Rate::per_day(100_000), 50_000).is_ok());
    assert_eq!(
        Terms::new(Rate::per_second(0), 5).unwrap_err().field,
        "rate"
    );
}

#[test]
fn a_lease_lives_for_half_the_burst_or_a_second() {
    assert_eq!(terms(100, 40).life(), 200_000);
    assert_eq!(terms(100, 100).life(), 500_000);
    assert_eq!(terms(100, 1000).life(), SECOND);
    let slow = Terms::new(Rate::per_minute(1), 1).unwrap();
    assert_eq!(slow.life(), 200_000);
}

#[test]
fn half_of_the_room_is_granted_at_scarcity() {
    // given: at most 50 units, of a burst of 100.
    let (terms, mut store) = (terms(100, 100), Prepaid::new());
    // when
    let grants = [60, 60, 60, 60].map(|units| store.exchange(&terms, want(units, 1), 0).units);
    // then
    assert_eq!(grants, [25, 13, 6, 3]);
    let last = store.exchange(&terms, want(1, 1), 0);
    assert_eq!((last.units, last.room), (1, 2));
}

#[test]
fn an_empty_store_says_when_a_unit_is_back() {
    let (terms, mut store) = (terms(100, 100), Prepaid::new());
    while store.exchange(&terms, want(60, 1), 0).units > 0 {}
    let refused = store.exchange(&terms, want(1, 1), 0);
    assert_eq!((refused.units, refused.wait), (0, 10_000));
    assert_eq!(store.exchange(&terms, want(1, 1), 10_000).units, 1);
}

#[test]
fn a_dear_call_gets_units_though_cheap_ones_take_all() {
    // given: a cheap process that asks every 5 ms.
    let (terms, mut store, mut now) = (terms(100, 100), Prepaid::new(), 0);
    for _ in 0..200 {
        store.exchange(&terms, want(100, 1), now);
        now += 5000;
    }
    // when
    let dear = store.exchange(&terms, want(40, 40), now);
    // then
    assert_eq!(dear.units, 40);
    assert!(dear.wait <= 400_000, "{dear:?}");
    assert_eq!(dear.good_for, dear.wait + terms.life());
}

#[test]
fn each_cost_up_to_the_named_burst_can_pass() {
    for cost in 1..=100 {
        let (terms, mut store) = (terms(100, 100), Prepaid::new());
        let granted = store.exchange(&terms, want(cost, cost), 7);
        assert!(granted.units >= cost.min(25), "{cost}: {granted:?}");
        assert!(granted.wait <= terms.life());
    }
    let (slow, mut store) = (Terms::new(Rate::per_minute(1), 1).unwrap(), Prepaid::new());
    let granted = store.exchange(&slow, want(1, 1), 0);
    assert_eq!((granted.units, granted.wait), (1, 200_000));
}

#[test]
fn a_debt_that_is_sent_again_counts_once() {
    let (terms, mut store) = (terms(100, 100), Prepaid::new());
    let room = |store: &mut Prepaid| store.exchange(&terms, want(0, 0), 0).room;
    for (process, number, left) in [
        (1, 1, 40),
        (1, 1, 40),
        (2, 1, 30),
        (1, 1, 30),
        (1, 2, 20),
        (2, 1, 20),
        (1, 1, 20),
    ] {
        store.exchange(&terms, owes(process, number, 10), 0);
        assert_eq!(room(&mut store), left, "debt {number} of process {process}");
    }
}

#[test]
fn the_debts_of_processes_long_gone_are_forgotten() {
    let (terms, mut store) = (terms(100, 100), Prepaid::new());
    for process in 0..1000 {
        store.exchange(&terms, owes(process, 1, 1), process * SECOND);
        assert!(store.debts.len() <= PROCESSES);
    }
}

#[test]
fn a_reset_forgets_what_was_used() {
    let (terms, mut store) = (terms(100, 100), Prepaid::new());
    store.exchange(&terms, owes(1, 1, 100), 0);
    let reset = Want {
        reset: true,
        ..want(10, 1)
    };
    assert_eq!(store.exchange(&terms, reset, 0).units, 10);
}

#[test]
fn a_clock_that_goes_back_grants_less() {
    let (terms, mut store) = (terms(100, 100), Prepaid::new());
    store.exchange(&terms, want(20, 1), 10 * SECOND);
    assert_eq!(store.exchange(&terms, want(20, 1), 9 * SECOND).units, 0);
}

#[test]
fn two_rates_at_once_hold_each_other_back() {
    // given: a deploy that changes 100/s to 50/s.
    let (old, new, mut store) = (terms(100, 100), terms(50, 50), Prepaid::new());
    let mut granted = 0;
    for step in 0..1000 {
        let terms = if step % 2 == 0 { &old } else { &new };
        granted += store.exchange(terms, want(100, 1), step * 10_000).units;
    }
    // then: no more in ten seconds than the larger rate and burst.
    assert!(granted <= 1100, "{granted}");
}

proptest! {
    /// Units are spent at the worst moments: see `search`.
    #[test]
    fn random_histories_stay_within_the_bound(
        rate in 1_u64..200, slack in 0_u32..300,
        asks in prop::collection::vec((0_u64..400_000, 0_u64..400_000, 1_u32..120, 1_u32..120, any::<bool>()), 1..60),
    ) {
        let least = u32::try_from((rate * 2).div_ceil(5)).unwrap();
        let terms = terms(rate, least + slack);
        let (mut store, mut now, mut spent) = (Prepaid::new(), SECOND, Vec::new());
        for (gap, delay, units, cost, is_dear) in asks {
            now += gap;
            let want = want(units.max(cost), if is_dear { cost } else { 1 });
            let granted = store.exchange(&terms, want, now);
            let (from, until) = (now + granted.wait, now.saturating_sub(delay) + granted.good_for);
            if granted.units > 0 && from < until {
                spent.push((u64::from(granted.units), from, until));
            }
        }
        // The shortest window from each end to each start, and all that can be spent in it.
        for (.., first) in &spent {
            for (_, last, _) in &spent {
                let units: u64 = spent.iter()
                    .filter(|(_, from, until)| from <= last.max(first) && until >= first)
                    .map(|(units, ..)| units).sum();
                let window = last.saturating_sub(*first);
                let (count, period) = terms.ratio();
                prop_assert!(units * period <= u64::from(terms.burst()) * period + window * count,
                    "{units} in {window} us from {first}");
            }
        }
    }
}
