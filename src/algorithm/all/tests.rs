use proptest::prelude::*;

use super::*;
use crate::algorithm::{LeakyBucket, SlidingCounter, SlidingLog, SlidingRing, TokenBucket};

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_call_rejected_by_one_limit_takes_no_other() {
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

// A rejected call once took a unit of the window and gave back the oldest, so all units stayed
// young.
#[test]
fn denied_calls_do_not_keep_a_window_from_growing_old() {
    // given: two windows, of which the longer is used up first.
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
fn a_costly_call_fits_a_shaper_when_one_unit_does() {
    let both = All::new(LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap())
        .and(TokenBucket::new(Rate::per_second(10), 10).unwrap());
    assert!(both.acquire(5, 0).is_ok());
    assert_eq!(both.acquire(5, 0), Err(OverLimit::until(SECOND / 2)));
    assert!(both.acquire(5, SECOND / 2).is_ok());
}

#[test]
fn windows_are_last_and_the_rate_is_the_first_limits() {
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
    // The bursts of ten and of a thousand are full again before that of the day.
    let day = 24 * 3600 * SECOND;
    assert!(!all.is_fresh(SECOND) && !all.is_fresh(4 * SECOND) && all.is_fresh(day));
    // A clone of a part changes nothing: its holder need not be the factory of the next limit.
    assert!(!shared.is_fresh(4 * SECOND));
    drop(shared);
    assert!(!all.is_fresh(4 * SECOND) && all.is_fresh(day));
}

#[test]
fn charges_penalties_and_lateness_reach_every_part() {
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
    // Two calls that were ready at once, and are a tick late.
    let all = both();
    assert!(
        [(); 2]
            .iter()
            .all(|()| all.acquire_late(1, SECOND, SECOND + 2_000_000).is_ok())
    );
}

#[test]
fn a_refund_of_the_maximum_fills_any_limit() {
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
