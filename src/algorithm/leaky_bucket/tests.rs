use proptest::prelude::*;

use super::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

fn ten_a_second() -> LeakyBucket {
    LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap()
}

fn millis(departure: Result<Departure, OverLimit>) -> u128 {
    departure.unwrap().wait.as_millis()
}

#[test]
fn calls_leave_evenly_spaced_in_order_of_arrival() {
    let shaper = ten_a_second();
    let longest = Duration::from_secs(1);
    assert_eq!(
        [(); 3].map(|()| millis(shaper.reserve(1, longest, 0))),
        [0, 100, 200]
    );
    assert_eq!(millis(shaper.reserve(1, longest, 50 * MILLI)), 250);
}

#[test]
fn an_idle_time_saves_nothing_up() {
    let shaper = ten_a_second();
    assert_eq!(
        [(); 2].map(|()| millis(shaper.reserve(1, Duration::MAX, 60 * SECOND))),
        [0, 100]
    );
}

#[test]
fn a_departure_beyond_the_wait_reserves_nothing() {
    let shaper = LeakyBucket::new(Rate::per_minute(1), Duration::ZERO).unwrap();
    let longest = Duration::from_millis(100);
    assert_eq!(millis(shaper.reserve(1, longest, 0)), 0);
    let wait = Duration::from_millis(59_900);
    assert_eq!(
        shaper.reserve(1, longest, 0),
        Err(OverLimit::Until { wait })
    );
    assert_eq!(millis(shaper.reserve(1, longest, 59_900 * MILLI)), 100);
}

#[test]
fn the_next_call_waits_for_the_whole_cost() {
    let shaper = ten_a_second();
    assert_eq!(millis(shaper.reserve(5, Duration::MAX, 0)), 0);
    assert_eq!(millis(shaper.reserve(1, Duration::MAX, 0)), 500);
}

#[test]
fn only_the_last_reservation_is_given_back() {
    // given
    let shaper = ten_a_second();
    let [_, middle, last] = [(); 3].map(|()| shaper.reserve(1, Duration::MAX, 0).unwrap());
    // when
    assert!(!shaper.cancel(middle));
    // then
    assert_eq!(millis(shaper.reserve(1, Duration::MAX, 0)), 300);
    assert!(!shaper.cancel(last));
    let newest = shaper.reserve(1, Duration::MAX, 0).unwrap();
    assert!(shaper.cancel(newest));
    assert_eq!(shaper.reserve(1, Duration::MAX, 0), Ok(newest));
}

#[test]
fn slack_makes_up_for_a_late_timer_and_for_no_more() {
    let shaper = LeakyBucket::new(Rate::per_second(1000), Duration::from_millis(1)).unwrap();
    assert!(shaper.acquire(1, 10 * MILLI).is_ok());
    // After an idle time one more may leave at once, and then one each millisecond.
    assert!(shaper.acquire(1, 10 * MILLI).is_ok());
    assert!(shaper.acquire(1, 10 * MILLI).is_err());
    for late in 1..100 {
        assert!(shaper.acquire(1, (10 + late) * MILLI + MILLI / 2).is_ok());
    }
}

#[test]
fn a_closed_shaper_opens_at_its_time() {
    let shaper = ten_a_second();
    shaper.close_until(2 * SECOND, SECOND);
    assert_eq!(
        shaper.acquire(1, SECOND),
        Err(OverLimit::Until {
            wait: Duration::from_secs(1)
        })
    );
    assert!(shaper.acquire(1, 2 * SECOND).is_ok());
}

#[test]
fn refuses_settings_that_cannot_work() {
    assert_eq!(
        LeakyBucket::new(Rate::per_second(0), Duration::ZERO)
            .unwrap_err()
            .field,
        "rate"
    );
    assert_eq!(
        LeakyBucket::new(Rate::per_second(1), Duration::MAX)
            .unwrap_err()
            .field,
        "slack"
    );
    assert_eq!(
        ten_a_second()
            .update(Rate::per_second(1), 2)
            .unwrap_err()
            .field,
        "burst"
    );
    let slow = LeakyBucket::new(
        Rate::new(1, Duration::from_secs(400 * 86_400)),
        Duration::ZERO,
    )
    .unwrap();
    assert_eq!(
        slow.reserve(2, Duration::MAX, 0),
        Err(OverLimit::CostAboveBurst)
    );
}

#[test]
fn a_late_waiter_makes_up_for_at_most_a_tick() {
    let shaper = LeakyBucket::new(Rate::per_second(10_000), Duration::ZERO).unwrap();
    let late = |due, now| {
        (0..100)
            .filter(|_| shaper.acquire_late(1, due, now).is_ok())
            .count()
    };
    assert!(shaper.acquire(1, 0).is_ok());
    // All that could have left within the last tick. A call that arrives now has saved up nothing.
    assert_eq!(late(0, 5 * MILLI), 21);
    assert_eq!(
        (late(5 * MILLI, 5 * MILLI), late(9 * MILLI, 8 * MILLI)),
        (0, 1)
    );
}

#[test]
fn it_is_as_new_only_when_its_slack_has_passed_too() {
    let shaper = LeakyBucket::new(Rate::per_second(10), Duration::from_millis(50)).unwrap();
    assert!(shaper.reserve(1, Duration::ZERO, SECOND).is_ok());
    let departed = |millis| shaper.is_fresh(SECOND + millis * MILLI);
    // It left as if 50 ms ago, so the next may leave after 50 ms. After 50 ms more its slack is
    // whole again.
    assert!(!departed(0) && !departed(99) && departed(100));
}

proptest! {
    #[test]
    fn departs_as_a_plain_queue_does(
        steps in prop::collection::vec((0u64..SECOND / 2, 1u32..5, 0u64..3000, any::<bool>()), 1..200),
    ) {
        let shaper = ten_a_second();
        let (mut now, mut free) = (0, 0);
        for (elapsed, cost, longest, cancelled) in steps {
            now += elapsed;
            let (start, before) = (free.max(now), free);
            let reserved = shaper.reserve(cost, Duration::from_millis(longest), now);
            prop_assert_eq!(reserved.is_ok(), start - now <= longest * MILLI);
            let Ok(departure) = reserved else { continue };
            prop_assert_eq!(departure.wait, Duration::from_nanos(start - now));
            free = start + u64::from(cost) * 100 * MILLI;
            if cancelled {
                prop_assert!(shaper.cancel(departure));
                free = if start == now { now } else { before };
            }
        }
    }

    #[test]
    fn refunds_charges_and_old_times_match_a_plain_queue(
        steps in prop::collection::vec((0u8..6, 0u32..5, -(300 * MILLI as i64)..500 * MILLI as i64, 0u64..1000), 1..200),
    ) {
        let shaper = ten_a_second();
        let (mut now, mut free) = (SECOND, 0u64);
        for (step, cost, elapsed, longest) in steps {
            now = now.saturating_add_signed(elapsed);
            let length = u64::from(cost) * 100 * MILLI;
            match step {
                0 => {
                    shaper.refund(cost, now);
                    free = if free > now { now.max(free.saturating_sub(length)) } else { free };
                }
                1 => {
                    shaper.charge(cost, now);
                    free = if length > 0 { free.max(now) + length } else { free };
                }
                2 => {
                    let until = now + longest * MILLI;
                    shaper.close_until(until, now);
                    free = if until > now { free.max(until) } else { free };
                }
                _ if cost == 0 => prop_assert!(shaper.acquire(0, now).is_ok()),
                _ => {
                    let wait = free.max(now) - now;
                    let reserved = shaper.reserve(cost, Duration::from_millis(longest), now).map(|departure| departure.wait);
                    if wait <= longest * MILLI {
                        prop_assert_eq!(reserved, Ok(Duration::from_nanos(wait)));
                        free = now + wait + length;
                    } else {
                        prop_assert_eq!(reserved, Err(OverLimit::until(wait - longest * MILLI)));
                    }
                }
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_keeps_departures_apart(
        steps in prop::collection::vec(-(300 * MILLI as i64)..300 * MILLI as i64, 1..100),
    ) {
        let shaper = ten_a_second();
        let (mut now, mut last) = (SECOND, None);
        for step in steps {
            now = now.saturating_add_signed(step);
            let departure = now + u64::try_from(shaper.reserve(1, Duration::MAX, now).unwrap().wait.as_nanos()).unwrap();
            prop_assert!(last.is_none_or(|last| departure >= last + 100 * MILLI));
            last = Some(departure);
        }
    }
}

const YEAR: u64 = 365 * 24 * 3600 * SECOND;

#[test]
fn a_fresh_or_idle_bucket_spaces_calls_at_any_uptime() {
    for rate in [10, 50_000_000] {
        for years in [3, 4, 5, 30, 100, 140] {
            let shaper = LeakyBucket::new(Rate::per_second(rate), Duration::ZERO).unwrap();
            // Unused, and then idle for as long again.
            for now in [years * YEAR / 2, years * YEAR] {
                let waits = [(); 2].map(|()| shaper.reserve(1, Duration::MAX, now).unwrap().wait);
                let interval = Duration::from_nanos(SECOND / rate);
                assert_eq!(waits, [Duration::ZERO, interval], "{rate} {years}");
            }
        }
    }
}

#[test]
fn a_clock_that_steps_back_lets_none_leave_early() {
    let shaper = LeakyBucket::new(Rate::per_second(1), Duration::ZERO).unwrap();
    assert!(shaper.acquire(1, 30 * YEAR).is_ok());
    for back in [1, 3600 * SECOND, YEAR, 29 * YEAR] {
        assert!(shaper.acquire(1, 30 * YEAR - back).is_err());
        shaper.charge(1, 30 * YEAR - back);
    }
    assert!(shaper.acquire(1, 30 * YEAR).is_err());
}
