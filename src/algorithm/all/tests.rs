use proptest::prelude::*;

use super::*;
use crate::algorithm::{LeakyBucket, SlidingCounter, SlidingLog, SlidingRing, TokenBucket};

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_call_denied_by_one_limit_costs_the_others_nothing() {
    // given
    let hour = Arc::new(TokenBucket::new(Rate::per_hour(1000), 1000).unwrap());
    let both = All::new(hour.clone()).and(TokenBucket::new(Rate::per_second(10), 10).unwrap());
    // when
    let admitted = (0..5000).filter(|_| both.acquire(1, 0).is_ok()).count();
    // then
    assert_eq!(admitted, 10);
    assert_eq!(hour.available(0), 990);
}

#[test]
fn the_wait_is_the_longest_of_all() {
    let both = All::new(TokenBucket::new(Rate::per_second(10), 1).unwrap())
        .and(SlidingLog::new(Rate::per_minute(1)).unwrap());
    assert!(both.acquire(1, 0).is_ok());
    assert_eq!(both.acquire(1, 0), Err(OverLimit::until(60 * SECOND)));
    assert!(both.acquire(1, 60 * SECOND).is_ok());
}

// A denied call once took of the window and gave its oldest unit back, and so kept all of them
// young.
#[test]
fn denied_calls_do_not_keep_a_window_from_growing_old() {
    // given: two windows, the longer of which is used up first.
    let both = All::new(SlidingLog::new(Rate::per_minute(10)).unwrap())
        .and(SlidingLog::new(Rate::new(6, Duration::from_secs(10))).unwrap());
    assert!((0..5).all(|_| both.acquire(1, 0).is_ok()));
    assert!((0..5).all(|_| both.acquire(1, 50 * SECOND).is_ok()));
    // when
    assert!((500..600).all(|tenth| both.acquire(1, tenth * SECOND / 10).is_err()));
    // then
    assert_eq!(both.available(60 * SECOND), 5);
}

#[test]
fn what_is_costly_fits_a_shaper_as_soon_as_one_unit_does() {
    let both = All::new(LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap())
        .and(TokenBucket::new(Rate::per_second(10), 10).unwrap());
    assert!(both.acquire(5, 0).is_ok());
    assert_eq!(both.acquire(5, 0), Err(OverLimit::until(SECOND / 2)));
    assert!(both.acquire(5, SECOND / 2).is_ok());
}

#[test]
fn windows_are_asked_last_and_the_first_limit_stays_the_one_that_is_told_and_changed() {
    let windows =
        [Rate::per_hour(10), Rate::per_minute(10)].map(|rate| SlidingLog::new(rate).unwrap());
    let [hour, minute] = windows;
    let all = All::new(hour)
        .and(minute)
        .and(TokenBucket::new(Rate::per_second(10), 10).unwrap());
    assert_eq!(all.order, [2, 1, 0]);
    assert_eq!(
        (all.rate(), all.refund_lag()),
        (
            Rate::new(10, Duration::from_secs(3600)),
            Duration::from_secs(3600)
        )
    );
}

#[test]
fn a_cost_above_any_burst_is_told_apart_from_a_wait() {
    let both = All::new(TokenBucket::new(Rate::per_second(10), 10).unwrap())
        .and(SlidingLog::new(Rate::per_second(3)).unwrap());
    assert_eq!(
        (both.burst(), both.acquire(4, 0)),
        (3, Err(OverLimit::CostAboveBurst))
    );
    assert_eq!(both.available(0), 3);
}

#[test]
fn it_is_fresh_when_every_part_is_also_a_shared_one() {
    let hour = TokenBucket::new(Rate::per_hour(1000), 1000).unwrap();
    let shared = Arc::new(TokenBucket::new(Rate::per_day(1), 1).unwrap());
    let all = All::new(TokenBucket::new(Rate::per_second(10), 10).unwrap())
        .and(hour)
        .and(shared.clone());
    assert!(all.acquire(1, 0).is_ok());
    // The bursts of ten and of a thousand have filled up before that of the day.
    let day = 24 * 3600 * SECOND;
    assert!(!all.is_fresh(SECOND) && !all.is_fresh(4 * SECOND) && all.is_fresh(day));
    // Another hold on a part changes nothing: its holder may not be who makes the next one.
    assert!(!shared.is_fresh(4 * SECOND));
    drop(shared);
    assert!(!all.is_fresh(4 * SECOND) && all.is_fresh(day));
}

#[test]
fn a_charge_and_a_penalty_reach_every_part_and_so_does_a_late_turn() {
    let bucket = |rate| TokenBucket::new(Rate::per_second(rate), 1).unwrap();
    let both = || All::new(bucket(1000)).and(bucket(2000));
    let parts = |both: &All| [0, 1].map(|part| both.part(part).unwrap().wait(1, 0));
    let all = both();
    all.charge(1, 0);
    assert_eq!(
        parts(&all),
        [Duration::from_millis(1), Duration::from_micros(500)]
    );
    let all = both();
    all.close_until(SECOND, 0);
    assert_eq!(parts(&all), [Duration::from_secs(1); 2]);
    // Two that were due at once, and are a tick late.
    let all = both();
    assert!(
        [(); 2]
            .iter()
            .all(|()| all.acquire_late(1, SECOND, SECOND + 2_000_000).is_ok())
    );
}

#[test]
fn a_refund_of_all_that_there_is_makes_any_limit_whole() {
    let limits: [Box<dyn Limit>; 5] = [
        Box::new(TokenBucket::new(Rate::per_second(10), 10).unwrap()),
        Box::new(SlidingLog::new(Rate::per_second(10)).unwrap()),
        Box::new(SlidingRing::new(Rate::per_second(10), 10).unwrap()),
        Box::new(SlidingCounter::new(Rate::per_second(10)).unwrap()),
        Box::new(LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap()),
    ];
    for limit in limits {
        let (now, debt) = (SECOND * 3 / 2, limit.burst() * 3);
        limit.charge(debt, now);
        assert_eq!(limit.available(now), 0, "{limit:?}");
        limit.refund(u32::MAX, now);
        assert_eq!(
            (limit.available(now), limit.acquire(1, now)),
            (limit.burst(), Ok(())),
            "{limit:?}"
        );
    }
}

#[test]
fn its_parts_are_told_apart() {
    let both = All::new(TokenBucket::new(Rate::per_second(10), 10).unwrap())
        .and(SlidingLog::new(Rate::per_hour(3)).unwrap());
    let rates: Vec<_> = (0..)
        .map_while(|index| both.part(index))
        .map(Limit::rate)
        .collect();
    assert_eq!(rates, [Rate::per_second(10), Rate::per_hour(3)]);
    assert!(both.part(0).unwrap().part(0).is_none());
}

proptest! {
    #[test]
    fn admits_what_every_limit_alone_would(
        steps in prop::collection::vec((0u8..6, 1u32..4, 0u64..SECOND / 5), 1..200), first in 0usize..3,
    ) {
        let limits = || -> [Arc<dyn Limit>; 3] {
            [
                Arc::new(TokenBucket::new(Rate::per_second(10), 4).unwrap()),
                Arc::new(SlidingLog::new(Rate::per_second(8)).unwrap()),
                Arc::new(SlidingCounter::new(Rate::new(20, Duration::from_secs(3))).unwrap()),
            ]
        };
        let (alone, together) = (limits(), limits());
        let [one, two, three] = [0, 1, 2].map(|place| together[(first + place) % 3].clone());
        let all = All::new(one).and(two).and(three);
        let mut now = 0;
        for (step, cost, elapsed) in steps {
            now += elapsed;
            let fits = alone.iter().all(|limit| limit.available(now) >= cost);
            match step {
                0 => { all.refund(cost, now); alone.iter().for_each(|limit| limit.refund(cost, now)); }
                1 => { all.charge(cost, now); alone.iter().for_each(|limit| limit.charge(cost, now)); }
                _ => {
                    prop_assert_eq!(all.acquire(cost, now).is_ok(), fits);
                    alone.iter().filter(|_| fits).for_each(|limit| limit.acquire(cost, now).unwrap());
                }
            }
        }
    }
}

#[test]
fn a_debt_counts_however_many_hold_the_limit() {
    let limit = Arc::new(TokenBucket::new(Rate::per_second(1), 2).unwrap());
    let clone: Arc<dyn Limit> = limit.clone();
    assert!(limit.is_fresh(0) && clone.is_fresh(0));
    limit.acquire(1, 0).unwrap();
    assert!(!limit.is_fresh(0) && !clone.is_fresh(0));
    drop(limit);
    assert!(!clone.is_fresh(0) && clone.is_fresh(1_000_000_000));
}
