use proptest::prelude::*;

use super::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

fn log(count: u64) -> SlidingLog {
    SlidingLog::new(Rate::per_second(count)).unwrap()
}

#[test]
fn late_units_of_one_second_leave_none_for_the_next() {
    // given
    let log = log(100);
    assert!((0..100).all(|_| log.acquire(1, 900 * MILLI).is_ok()));
    // then
    let wait = Duration::from_millis(800);
    assert_eq!(log.acquire(1, 1100 * MILLI), Err(OverLimit::Until { wait }));
    assert_eq!(log.available(1900 * MILLI - 1000), 0);
    assert_eq!(log.available(1900 * MILLI), 100);
    assert!(log.acquire(100, 1900 * MILLI).is_ok());
}

#[test]
fn a_cost_above_the_count_is_told_apart_from_a_wait() {
    assert_eq!(log(3).acquire(4, 0), Err(OverLimit::CostAboveBurst));
}

#[test]
fn a_call_fits_when_the_last_unit_in_its_way_has_left() {
    let log = log(3);
    for millis in [0, 100, 200] {
        assert!(log.acquire(1, millis * MILLI).is_ok());
    }
    let wait = |cost, now| match log.acquire(cost, now) {
        Err(OverLimit::Until { wait }) => wait.as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        [
            wait(1, 300 * MILLI),
            wait(2, 300 * MILLI),
            wait(3, 300 * MILLI)
        ],
        [700, 800, 900]
    );
    let queue = |units| log.wait(units, 300 * MILLI).as_millis();
    assert_eq!(
        [queue(1), queue(3), queue(4), queue(7)],
        [700, 900, 1700, 2700]
    );
}

#[test]
fn a_refund_forgets_the_oldest_unit() {
    // given
    let log = log(2);
    assert!(log.acquire(1, 0).is_ok());
    assert!(log.acquire(1, 900 * MILLI).is_ok());
    // when
    log.refund(1, 950 * MILLI);
    // then
    assert!(log.acquire(1, 950 * MILLI).is_ok());
    assert!(log.acquire(1, 1000 * MILLI).is_err());
    assert!(log.acquire(1, 1900 * MILLI).is_ok());
}

// Regression: a refund by a caller with an old time removed a newer unit than its own, which stayed
// and left the window early.
#[test]
fn a_refund_does_not_forget_what_is_newer_than_itself() {
    // given
    let log = log(2);
    assert!(log.acquire(1, SECOND).is_ok());
    assert!(log.acquire(1, 500 * MILLI).is_ok());
    // when
    log.refund(1, 500 * MILLI);
    // then
    assert!(log.acquire(1, 1500 * MILLI).is_err());
    assert!(log.acquire(2, 2 * SECOND).is_ok());
}

// Regression: a charge by a caller with an old time replaced the later time of the unit whose cell
// it took.
#[test]
fn a_charge_at_an_old_time_does_not_age_a_unit() {
    let log = log(1);
    assert!(log.acquire(1, SECOND).is_ok());
    log.charge(1, 500 * MILLI);
    assert!(log.acquire(1, 1500 * MILLI).is_err());
    assert!(log.acquire(1, 2 * SECOND).is_ok());
}

#[test]
fn only_a_lowered_limit_makes_no_units_wait() {
    let log = log(2);
    assert!(log.acquire(2, 0).is_ok());
    assert_eq!(log.wait(0, 0), Duration::ZERO);
    log.update(Rate::per_second(1), 1).unwrap();
    assert_eq!(log.wait(0, 0), Duration::from_secs(1));
}

#[test]
fn a_debt_takes_the_place_of_the_oldest_units() {
    let log = log(3);
    assert!(log.acquire(3, 0).is_ok());
    log.charge(2, 500 * MILLI);
    assert_eq!(log.available(SECOND), 1);
    assert_eq!(log.available(1500 * MILLI), 3);
    log.charge(u32::MAX, 2 * SECOND);
    assert_eq!(log.available(2999 * MILLI), 0);
    assert_eq!(log.available(3 * SECOND), 3);
}

#[test]
fn a_closed_log_opens_at_its_time() {
    let log = log(3);
    log.close_until(5 * SECOND, 0);
    assert_eq!(
        log.acquire(1, SECOND),
        Err(OverLimit::Until {
            wait: Duration::from_secs(4)
        })
    );
    assert_eq!(log.available(SECOND), 0);
    assert!(log.acquire(3, 5 * SECOND).is_ok());
}

#[test]
fn a_limit_is_lowered_at_once_and_raised_to_its_cells() {
    let log = log(4);
    assert!(log.acquire(3, 0).is_ok());
    log.update(Rate::per_second(2), 2).unwrap();
    assert!(log.acquire(1, 0).is_err());
    assert_eq!(log.available(SECOND), 2);
    assert_eq!(log.acquire(3, SECOND), Err(OverLimit::CostAboveBurst));
    log.update(Rate::per_second(4), 4).unwrap();
    assert_eq!(log.available(SECOND), 4);
    assert_eq!(
        log.update(Rate::per_second(5), 5).unwrap_err().field,
        "rate"
    );
    assert_eq!(
        log.update(Rate::per_minute(2), 2).unwrap_err().field,
        "rate"
    );
    assert_eq!(
        log.update(Rate::per_second(2), 1).unwrap_err().field,
        "burst"
    );
}

#[test]
fn refuses_settings_that_cannot_work() {
    for rate in [
        Rate::per_second(0),
        Rate::per_second(1 << 24),
        Rate::new(1, Duration::ZERO),
        Rate::new(1, Duration::MAX),
    ] {
        assert_eq!(SlidingLog::new(rate).unwrap_err().field, "rate");
    }
}

const YEAR: u64 = 365 * 24 * 3600 * SECOND;

/// Regression: after 8.9 years it admitted everything.
#[test]
fn it_is_exact_at_any_uptime() {
    for years in [0, 9, 30, 100, 140] {
        let (log, now) = (log(3), years * YEAR);
        for start in [now, now + SECOND, now + 10 * YEAR / 10] {
            assert!(log.acquire(3, start).is_ok(), "{years}");
            let wait = SECOND - 100 * MILLI;
            assert_eq!(
                log.acquire(1, start + 100 * MILLI),
                Err(OverLimit::until(wait))
            );
        }
    }
    let log = log(3);
    assert!(log.acquire(3, u64::MAX - 1).is_ok());
    assert!(log.acquire(1, u64::MAX).is_err());
}

/// Regression: windows below 16 ms rejected every call after 17 years.
#[test]
fn short_windows_last_for_a_century() {
    for millis in [1, 2, 3, 4, 8, 15, 16, 100] {
        let window = Duration::from_millis(millis);
        for years in [0, 17, 18, 36, 72, 100, 140] {
            let log = SlidingLog::new(Rate::new(3, window)).unwrap();
            let now = years * YEAR;
            assert!(log.acquire(3, now).is_ok());
            assert!(log.acquire(1, now + millis * MILLI - 1).is_err());
            // Late by a thousandth at most.
            let later = now + millis * MILLI + millis * MILLI / 1000;
            assert!(log.acquire(3, later).is_ok(), "{millis} ms, {years} years");
        }
    }
}

#[test]
fn a_clock_that_steps_back_admits_none() {
    let log = log(3);
    assert!(log.acquire(3, 30 * YEAR).is_ok());
    for back in [1, SECOND, 3600 * SECOND, 29 * YEAR] {
        assert!(log.acquire(1, 30 * YEAR - back).is_err());
    }
    assert!(log.acquire(1, 30 * YEAR).is_err());
}

/// Regression: each call read all cells that the lowered limit did not use, 33 ms for 10 million.
#[test]
fn a_lowered_log_looks_at_its_unused_cells_once() {
    let log = log(1_000_000);
    log.update(Rate::per_second(3), 3).unwrap();
    // Ten seconds. Reading all of them each time would take 10^11 loads.
    let mut admitted = 0;
    for call in 0..100_000 {
        admitted += u64::from(log.acquire(1, call * MILLI / 10).is_ok());
        let seen = log.unused_to.load(Ordering::Relaxed);
        assert!(seen >= log.head.load(Ordering::Relaxed) - 1 + log.unused());
    }
    assert_eq!(admitted, 30);
}

proptest! {
    #[test]
    fn admits_as_a_list_of_times_does(
        count in 1u32..20, steps in prop::collection::vec((0u8..6, 0u32..8, 0u64..75_000), 1..300),
    ) {
        let log = log(u64::from(count));
        let (mut times, mut units) = (Vec::new(), 1u64);
        for (step, cost, elapsed) in steps {
            units += elapsed;
            let now = log.nanos(units);
            times.retain(|time| time + log.window > units);
            match step {
                0 => { log.refund(cost, now); times.drain(..(cost as usize).min(times.len())); }
                1 => {
                    log.charge(cost, now);
                    times.extend((0..cost).map(|_| units));
                    times.drain(..times.len().saturating_sub(count as usize));
                }
                _ if cost > count => prop_assert_eq!(log.acquire(cost, now), Err(OverLimit::CostAboveBurst)),
                _ => {
                    let fits = times.len() + cost as usize <= count as usize;
                    prop_assert_eq!(log.acquire(cost, now).is_ok(), fits);
                    if fits {
                        times.extend((0..cost).map(|_| units));
                    }
                }
            }
            prop_assert_eq!(log.available(now), count - u32::try_from(times.len()).unwrap());
        }
    }

    #[test]
    fn no_window_is_over_admitted_and_the_hint_is_exact(
        count in 1u32..20, steps in prop::collection::vec(-(200 * MILLI as i64)..300 * MILLI as i64, 1..300),
    ) {
        let log = log(u64::from(count));
        let (mut now, mut admitted) = (SECOND, Vec::new());
        for step in steps {
            now = now.saturating_add_signed(step);
            match log.acquire(1, now) {
                Ok(()) => admitted.push(now),
                Err(OverLimit::Until { wait }) => {
                    let wait = u64::try_from(wait.as_nanos()).unwrap();
                    prop_assert!(log.acquire(1, now + wait - 1).is_err());
                    now += wait;
                    prop_assert!(log.acquire(1, now).is_ok());
                    admitted.push(now);
                }
                Err(OverLimit::CostAboveBurst) => unreachable!(),
            }
        }
        for start in &admitted {
            let within = admitted.iter().filter(|time| (*start..start + SECOND).contains(time)).count();
            prop_assert!(within <= count as usize, "{within}");
        }
    }
    #[test]
    fn costs_charges_and_old_times_do_not_over_admit(
        count in 1u32..20,
        steps in prop::collection::vec((0u8..6, 1u32..6, -(200 * MILLI as i64)..300 * MILLI as i64), 1..300),
    ) {
        let log = log(u64::from(count));
        let (mut now, mut admitted) = (SECOND, Vec::new());
        for (step, cost, elapsed) in steps {
            now = now.saturating_add_signed(elapsed);
            if step == 0 {
                log.charge(cost, now);
            } else if log.acquire(cost, now).is_ok() {
                admitted.extend((0..cost).map(|_| now));
            }
        }
        for start in &admitted {
            let within = admitted.iter().filter(|time| (*start..start + SECOND).contains(time)).count();
            prop_assert!(within <= count as usize, "{within}");
        }
    }
}
