use std::iter;

use proptest::prelude::*;

use super::{
    quota::{AtomicQuota, Pace},
    *,
};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

fn bucket(rate: Rate, burst: u32) -> TokenBucket {
    TokenBucket::new(rate, burst).unwrap()
}

fn admitted(bucket: &TokenBucket, cost: u32, now: u64) -> bool {
    bucket.acquire(cost, now).is_ok()
}

#[test]
fn ten_a_second_with_a_burst_of_three() {
    let bucket = bucket(Rate::per_second(10), 3);
    let at = |step: u64, cost| admitted(&bucket, cost, step * 100 * MILLI);
    assert!(at(0, 2));
    assert!(!at(0, 2));
    assert!(at(0, 1));
    assert!(!at(0, 1));
    assert!(!at(1, 4));
    assert!(at(2, 1));
    assert!(at(3, 1));
    assert!(at(4, 1));
    assert!(at(4, 1));
    assert!(!at(4, 1));
    assert!(at(9, 3));
}

#[test]
fn an_idle_bucket_saves_up_no_more_than_its_burst() {
    let bucket = bucket(Rate::per_second(5), 5);
    for start in [0, 2 * SECOND] {
        assert!(
            iter::repeat_with(|| admitted(&bucket, 1, start))
                .take(5)
                .all(|admitted| admitted)
        );
        assert!(!admitted(&bucket, 1, start));
    }
}

#[test]
fn what_is_left_can_be_read() {
    let bucket = bucket(Rate::per_second(10), 10);
    assert!(admitted(&bucket, 1, 0));
    assert_eq!(bucket.available(0), 9);
    assert!(admitted(&bucket, 2, 0));
    assert_eq!(bucket.available(0), 7);
    assert_eq!(bucket.available(100 * MILLI), 8);
}

#[test]
fn one_a_day_refills_though_it_is_polled_often() {
    let bucket = bucket(Rate::per_day(1), 1);
    let polls = 10 * 24 * 3600 * SECOND / (150 * MILLI);
    assert_eq!(
        (0..=polls)
            .filter(|poll| admitted(&bucket, 1, poll * 150 * MILLI))
            .count(),
        11
    );
}

#[test]
fn a_cost_above_the_burst_is_told_apart_from_a_wait() {
    let bucket = bucket(Rate::per_second(10), 3);
    assert_eq!(bucket.acquire(4, 0), Err(OverLimit::CostAboveBurst));
    assert_eq!(bucket.available(0), 3);
}

const YEAR: u64 = 365 * 24 * 3600 * SECOND;
const UPTIMES: [u64; 6] = [0, 3, 5, 30, 100, 140];

#[test]
fn a_fresh_bucket_is_full_at_any_uptime() {
    for rate in [
        Rate::per_day(1),
        Rate::per_second(10),
        Rate::per_second(50_000_000),
    ] {
        for years in UPTIMES {
            let (bucket, now) = (bucket(rate, 3), years * YEAR);
            assert_eq!((bucket.available(now), bucket.is_fresh(now)), (3, true));
            assert!(
                admitted(&bucket, 3, now) && !admitted(&bucket, 1, now),
                "{years}"
            );
        }
    }
}

#[test]
fn a_bucket_that_idled_for_years_is_full() {
    for rate in [Rate::per_second(10), Rate::per_second(50_000_000)] {
        for years in UPTIMES {
            let bucket = bucket(rate, 3);
            assert!(admitted(&bucket, 3, SECOND));
            let now = (years + 1) * YEAR;
            assert!(
                admitted(&bucket, 3, now) && !admitted(&bucket, 1, now),
                "{years}"
            );
        }
    }
}

#[test]
fn a_clock_that_steps_back_gives_nothing_back() {
    for rate in [Rate::per_second(10), Rate::per_second(50_000_000)] {
        for years in UPTIMES {
            let (bucket, now) = (bucket(rate, 3), (years + 1) * YEAR);
            assert!(admitted(&bucket, 3, now));
            for back in [1, SECOND, 3600 * SECOND, 6 * 24 * 3600 * SECOND] {
                assert!(!admitted(&bucket, 1, now - back));
                bucket.charge(1, now - back);
                assert!(!admitted(&bucket, 1, now));
            }
        }
    }
    let bucket = bucket(Rate::per_second(10), 3);
    assert!(admitted(&bucket, 3, 100 * YEAR));
    assert!(!admitted(&bucket, 1, 0) && !admitted(&bucket, 1, 100 * YEAR));
}

#[test]
fn after_144_years_time_stands_still() {
    let bucket = bucket(Rate::per_second(10), 3);
    assert!(admitted(&bucket, 3, u64::MAX - 1000 * SECOND));
    assert!(!admitted(&bucket, 1, u64::MAX));
    bucket.charge(u32::MAX, u64::MAX);
    bucket.close_until(u64::MAX, 0);
    assert!(!admitted(&bucket, 1, u64::MAX));
}

#[test]
fn a_refund_is_admitted_again_and_no_more_than_that() {
    // given
    let bucket = bucket(Rate::per_second(10), 10);
    assert!(admitted(&bucket, 8, 0));
    // when
    bucket.refund(5, 0);
    // then
    assert_eq!(bucket.available(0), 7);
    bucket.refund(100, 0);
    assert_eq!(bucket.available(0), 10);
}

#[test]
fn a_refund_to_a_full_bucket_is_not_saved_up() {
    let bucket = bucket(Rate::per_second(10), 10);
    assert!(admitted(&bucket, 10, 0));
    bucket.refund(10, 5 * SECOND);
    assert_eq!(bucket.available(5 * SECOND), 10);
    assert!(admitted(&bucket, 10, 5 * SECOND));
    assert!(!admitted(&bucket, 1, 5 * SECOND));
}

#[test]
fn a_debt_is_paid_off_before_anything_is_admitted() {
    let bucket = bucket(Rate::per_second(10), 10);
    bucket.charge(25, 0);
    assert_eq!(bucket.available(0), 0);
    let wait = Duration::from_millis(1600);
    assert_eq!(bucket.acquire(1, 0), Err(OverLimit::Until { wait }));
    assert!(!admitted(&bucket, 1, 1600 * MILLI - 1));
    assert!(admitted(&bucket, 1, 1600 * MILLI));
}

#[test]
fn a_debt_above_a_year_does_not_wrap_to_a_full_bucket() {
    let bucket = bucket(Rate::per_hour(1), 1);
    for _ in 0..10 {
        bucket.charge(u32::MAX, 0);
    }
    assert!(!admitted(&bucket, 1, 365 * 24 * 3600 * SECOND));
    assert!(admitted(&bucket, 1, 417 * 24 * 3600 * SECOND));
}

#[test]
fn a_closed_bucket_opens_for_one_call_at_its_time() {
    let bucket = bucket(Rate::per_second(10), 3);
    bucket.close_until(5 * SECOND, SECOND);
    bucket.close_until(2 * SECOND, SECOND);
    assert_eq!(
        bucket.acquire(1, SECOND),
        Err(OverLimit::Until {
            wait: Duration::from_secs(4)
        })
    );
    assert!(admitted(&bucket, 1, 5 * SECOND));
    assert!(!admitted(&bucket, 1, 5 * SECOND));
    assert!(admitted(&bucket, 3, 6 * SECOND));
}

#[test]
fn an_endless_penalty_closes_the_bucket_for_a_year() {
    let bucket = bucket(Rate::per_second(10), 3);
    bucket.close_until(u64::MAX, 0);
    assert!(!admitted(&bucket, 1, 365 * 24 * 3600 * SECOND));
    assert!(admitted(&bucket, 1, 417 * 24 * 3600 * SECOND));
}

#[test]
fn a_debt_is_kept_as_time_when_the_rate_changes() {
    let bucket = bucket(Rate::per_second(10), 10);
    assert!(admitted(&bucket, 10, 0));
    bucket.update(Rate::per_second(100), 100).unwrap();
    // The ten took a second of the bucket's time, and still do. In that second the whole new burst
    // is earned.
    assert_eq!(bucket.available(0), 0);
    assert_eq!(bucket.available(500 * MILLI), 50);
    bucket.update(Rate::per_second(1), 2).unwrap();
    assert_eq!((bucket.burst(), bucket.available(SECOND)), (2, 2));
}

// Regression: a decision as of its turn rejected it, and each wait after a late one became a tick
// longer. 10 000/s admitted 850/s.
#[test]
fn a_late_waiter_is_admitted_if_it_fits_only_now() {
    let bucket = bucket(Rate::per_second(10_000), 1);
    bucket.charge(15, 0);
    assert_eq!(
        bucket.acquire_late(1, MILLI, 1_500_000 - 1),
        Err(OverLimit::until(1))
    );
    assert!(bucket.acquire_late(1, MILLI, 2 * MILLI).is_ok());
}

#[test]
fn a_late_waiter_is_counted_at_most_a_tick_early() {
    let bucket = bucket(Rate::per_second(2000), 1);
    let half = MILLI / 2;
    assert!(admitted(&bucket, 1, 0));
    assert!(bucket.acquire_late(1, half, MILLI).is_ok());
    // The next is due a millisecond after the start, not half a millisecond after the late
    // departure.
    assert!(admitted(&bucket, 1, MILLI));
    // A call that was due long ago counts as due a tick ago: as many as fit into a tick, and no
    // more.
    let admitted = (0..1000)
        .filter(|_| bucket.acquire_late(1, 2 * half, 100 * MILLI).is_ok())
        .count();
    assert_eq!(admitted, 5);
    assert!(bucket.acquire_late(1, 101 * MILLI, 100 * MILLI).is_err());
}

#[test]
fn the_wait_of_a_queue_is_that_of_its_last() {
    let bucket = bucket(Rate::per_second(10), 3);
    assert_eq!(bucket.wait(3, 0), Duration::ZERO);
    assert_eq!(bucket.wait(13, 0), Duration::from_secs(1));
    let scale = AtomicQuota::new(Rate::per_second(10), 3).unwrap().scale();
    assert_eq!(
        bucket.wait(u64::MAX, 0),
        Duration::from_nanos(scale.nanos(u64::MAX - scale.units(300 * MILLI)))
    );
}

/// The textbook bucket: a level that drains with time.
struct Meter {
    level: u128,
    last: u64,
}

impl Meter {
    fn drain(&mut self, pace: Pace, now: u64) {
        let drained = pace.scale.units(now - self.last);
        self.level = self.level.saturating_sub(drained.into());
        self.last = now;
    }

    fn admit(&mut self, pace: Pace, cost: u32, now: u64) -> bool {
        self.drain(pace, now);
        let level = self.level + u128::from(cost) * u128::from(pace.interval);
        let fits = level <= u128::from(pace.capacity);
        if fits {
            self.level = level;
        }
        fits
    }
}

#[test]
fn the_wait_hint_is_the_first_nanosecond_that_fits() {
    for per_second in [3, 7, 30_000_001] {
        let bucket = TokenBucket::new(Rate::per_second(per_second), 1).unwrap();
        bucket.acquire(1, 0).unwrap();
        let Err(OverLimit::Until { wait }) = bucket.acquire(1, 0) else {
            panic!("the burst was 1")
        };
        let wait = u64::try_from(wait.as_nanos()).unwrap();
        assert!(bucket.acquire(1, wait - 1).is_err(), "{per_second}");
        assert!(bucket.acquire(1, wait).is_ok(), "{per_second}");
    }
}

proptest! {
    #[test]
    fn decides_as_a_draining_meter_does(
        count in 1u64..10_000, burst in 1u32..50,
        calls in prop::collection::vec((0u32..60, 0u64..SECOND / 100), 1..200),
    ) {
        let bucket = bucket(Rate::per_second(count), burst);
        let mut meter = Meter { level: 0, last: 0 };
        let mut now = 0;
        for (cost, step) in calls {
            now += step;
            match bucket.acquire(cost, now) {
                Err(OverLimit::CostAboveBurst) => prop_assert!(cost > burst),
                decision => prop_assert_eq!(decision.is_ok(), meter.admit(bucket.quota.pace(), cost, now)),
            }
        }
    }

    #[test]
    fn refunds_charges_and_updates_match_a_draining_meter(
        steps in prop::collection::vec((0u8..5, 0u32..30, 0u64..SECOND / 10), 1..200),
    ) {
        let bucket = bucket(Rate::per_second(100), 10);
        let mut meter = Meter { level: 0, last: 0 };
        let mut now = 0;
        for (step, cost, elapsed) in steps {
            now += elapsed;
            let pace = bucket.quota.pace();
            let units = u128::from(cost) * u128::from(pace.interval);
            match step {
                0 => { bucket.refund(cost, now); meter.drain(pace, now); meter.level = meter.level.saturating_sub(units); }
                1 => { bucket.charge(cost, now); meter.drain(pace, now); meter.level += units; }
                2 => bucket.update(Rate::per_second(u64::from(cost) + 1), cost + 1).unwrap(),
                _ if cost == 0 => prop_assert!(admitted(&bucket, 0, now)),
                _ if u64::from(cost) > pace.burst => prop_assert_eq!(bucket.acquire(cost, now), Err(OverLimit::CostAboveBurst)),
                _ => prop_assert_eq!(admitted(&bucket, cost, now), meter.admit(pace, cost, now)),
            }
        }
    }

    #[test]
    fn waiting_the_hint_is_enough_and_less_is_not(
        count in 1u64..200_000_000, burst in 1u32..1000, steps in prop::collection::vec(0u64..1000, 1..300),
    ) {
        let bucket = bucket(Rate::per_second(count), burst);
        let mut now = 0;
        for step in steps {
            now += step;
            if let Err(OverLimit::Until { wait }) = bucket.acquire(1, now) {
                let wait = u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(wait > 0);
                prop_assert!(!admitted(&bucket, 1, now + wait - 1));
                now += wait;
                prop_assert!(admitted(&bucket, 1, now));
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_over_admit(
        burst in 1u32..20, steps in prop::collection::vec(-(20 * MILLI as i64)..30 * MILLI as i64, 1..300),
    ) {
        let bucket = bucket(Rate::per_second(100), burst);
        let (mut real, mut admissions) = (0u64, Vec::new());
        for step in steps {
            // The clock that the bucket sees jitters. Real time only advances.
            real += step.unsigned_abs();
            if admitted(&bucket, 1, real.saturating_add_signed(step.min(0))) {
                admissions.push(real);
            }
        }
        for (first, start) in admissions.iter().enumerate() {
            for (last, end) in admissions.iter().enumerate().skip(first) {
                // A clock that lags by up to 20 ms can postpone up to 20 ms worth of units, but
                // creates none.
                let bound = u64::from(burst) + (end - start + 20 * MILLI) / (10 * MILLI);
                prop_assert!((last - first) as u64 <= bound);
            }
        }
    }

    #[test]
    fn late_waiters_add_at_most_a_tick_to_any_span(
        burst in 1u32..5, steps in prop::collection::vec((0..3 * MILLI, 0..3 * MILLI, 1u32..4), 1..300),
    ) {
        // Twenty a tick.
        let bucket = bucket(Rate::per_second(10_000), burst);
        let (mut now, mut admissions) = (SECOND, Vec::new());
        for (elapsed, late, times) in steps {
            now += elapsed;
            for _ in 0..times {
                if bucket.acquire_late(1, now - late, now).is_ok() {
                    admissions.push(now);
                }
            }
        }
        for (first, start) in admissions.iter().enumerate() {
            for (last, end) in admissions.iter().enumerate().skip(first) {
                let bound = u64::from(burst) + (end - start + crate::algorithm::TIMER_TICK) / (MILLI / 10);
                prop_assert!((last + 1 - first) as u64 <= bound);
            }
        }
    }

    #[test]
    fn costs_charges_and_old_times_do_not_over_admit(
        burst in 1u32..20,
        steps in prop::collection::vec((0u8..6, 1u32..6, -(50 * MILLI as i64)..80 * MILLI as i64), 1..200),
    ) {
        let bucket = bucket(Rate::per_second(100), burst);
        let (mut now, mut admissions) = (SECOND, Vec::new());
        for (step, cost, elapsed) in steps {
            now = now.saturating_add_signed(elapsed);
            if step == 0 {
                bucket.charge(cost, now);
            } else if admitted(&bucket, cost, now) {
                admissions.push((now, u64::from(cost)));
            }
        }
        for (start, _) in &admissions {
            for (end, _) in admissions.iter().filter(|(end, _)| end >= start) {
                let within = admissions.iter().filter(|(time, _)| (start..=end).contains(&time));
                let bound = u64::from(burst) + (end - start) / (10 * MILLI);
                prop_assert!(within.map(|(_, cost)| cost).sum::<u64>() <= bound);
            }
        }
    }
}
