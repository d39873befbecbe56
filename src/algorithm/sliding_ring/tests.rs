use proptest::prelude::*;

use super::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

fn ring(count: u64) -> SlidingRing {
    SlidingRing::new(Rate::per_second(count), 10).unwrap()
}

fn admitted(ring: &SlidingRing, times: usize, now: u64) -> usize {
    (0..times).filter(|_| ring.acquire(1, now).is_ok()).count()
}

#[test]
fn a_part_counts_until_all_of_it_has_left_the_window() {
    let ring = ring(100);
    assert_eq!(admitted(&ring, 200, 950 * MILLI), 100);
    assert_eq!(ring.acquire(1, SECOND), Err(OverLimit::until(SECOND)));
    assert_eq!(admitted(&ring, 200, 2 * SECOND - 1), 0);
    assert_eq!(admitted(&ring, 200, 2 * SECOND), 100);
}

#[test]
fn bursts_a_window_apart_do_not_share_a_window() {
    let ring = ring(100);
    assert_eq!(admitted(&ring, 200, 99 * MILLI), 100);
    // With only ten slots the part of 1.0 s would have taken the slot of the first.
    assert_eq!(admitted(&ring, 200, 1000 * MILLI), 0);
    assert_eq!(admitted(&ring, 200, 1100 * MILLI), 100);
}

#[test]
fn a_queue_waits_until_a_part_makes_room_for_its_last() {
    let ring = ring(10);
    assert_eq!(admitted(&ring, 6, 0), 6);
    assert_eq!(admitted(&ring, 4, 300 * MILLI), 4);
    let wait = |units| ring.wait(units, 300 * MILLI).as_millis();
    assert_eq!(
        [wait(0), wait(1), wait(6), wait(7), wait(10), wait(11)],
        [0, 800, 800, 1100, 1100, 1900]
    );
}

#[test]
fn a_cost_above_the_count_is_told_apart_from_a_wait() {
    assert_eq!(ring(3).acquire(4, 0), Err(OverLimit::CostAboveBurst));
}

#[test]
fn a_refund_forgets_the_oldest_a_charge_counts_now() {
    let ring = ring(10);
    assert_eq!(admitted(&ring, 5, 0), 5);
    assert_eq!(admitted(&ring, 5, 500 * MILLI), 5);
    ring.refund(7, 600 * MILLI);
    assert_eq!(ring.available(600 * MILLI), 7);
    assert_eq!(ring.available(1500 * MILLI), 7);
    ring.charge(20, 600 * MILLI);
    assert_eq!(ring.available(1600 * MILLI), 0);
    assert_eq!(ring.available(1700 * MILLI), 10);
}

#[test]
fn a_closed_ring_opens_at_its_time() {
    let ring = ring(10);
    ring.close_until(3 * SECOND, 0);
    assert_eq!(ring.acquire(1, SECOND), Err(OverLimit::until(2 * SECOND)));
    assert_eq!(admitted(&ring, 20, 3 * SECOND), 10);
}

#[test]
fn a_ring_left_alone_for_years_still_works() {
    let ring = SlidingRing::new(Rate::new(5, Duration::from_millis(1)), 10).unwrap();
    for year in 0..5 {
        assert_eq!(admitted(&ring, 10, year * 31_000_000 * SECOND + year), 5);
    }
    // After these times the slots' ages wrap, and read as those of newer parts.
    let mut now = 5 * 31_000_000 * SECOND;
    for idle in [1 << 30, (1 << 31) - 1, (1 << 31) - 5, (1 << 31) - 11] {
        now += idle * ring.width;
        assert_eq!(admitted(&ring, 10, now), 5);
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    assert_eq!(
        SlidingRing::new(Rate::per_second(0), 10).unwrap_err().field,
        "rate"
    );
    assert_eq!(
        SlidingRing::new(Rate::new(1, Duration::MAX), 10)
            .unwrap_err()
            .field,
        "rate"
    );
    assert_eq!(
        SlidingRing::new(Rate::per_second(1), 0).unwrap_err().field,
        "parts"
    );
    assert_eq!(
        ring(1).update(Rate::per_minute(1), 1).unwrap_err().field,
        "rate"
    );
}

proptest! {
    #[test]
    fn counts_as_a_list_of_parts_does(
        count in 1u32..20, parts in 1u32..12, steps in prop::collection::vec((0u8..6, 0u32..8, 0u64..300 * MILLI), 1..200),
    ) {
        let ring = SlidingRing::new(Rate::per_second(u64::from(count)), parts).unwrap();
        let (mut units, mut now) = (Vec::<u64>::new(), 0);
        for (step, cost, elapsed) in steps {
            now += elapsed;
            let part = now / ring.width;
            units.retain(|unit| unit + u64::from(parts) >= part);
            match step {
                0 => { ring.refund(cost, now); units.drain(..(cost as usize).min(units.len())); }
                1 => { ring.charge(cost, now); units.extend((0..cost).map(|_| part)); }
                _ if cost == 0 => prop_assert!(ring.acquire(0, now).is_ok()),
                _ if cost > count => prop_assert_eq!(ring.acquire(cost, now), Err(OverLimit::CostAboveBurst)),
                _ => {
                    let fits = units.len() + cost as usize <= count as usize;
                    prop_assert_eq!(ring.acquire(cost, now).is_ok(), fits);
                    units.extend((0..cost).filter(|_| fits).map(|_| part));
                }
            }
        }
    }

    #[test]
    fn no_window_is_over_admitted_and_the_hint_is_enough(
        count in 1u32..20, steps in prop::collection::vec(-(200 * MILLI as i64)..300 * MILLI as i64, 1..300),
    ) {
        let ring = ring(u64::from(count));
        let (mut now, mut newest, mut admitted) = (SECOND, 0, Vec::new());
        for step in steps {
            now = now.saturating_add_signed(step);
            newest = now.max(newest);
            match ring.acquire(1, now) {
                Ok(()) => admitted.push(newest),
                Err(OverLimit::Until { wait }) => {
                    now += u64::try_from(wait.as_nanos()).unwrap();
                    newest = now.max(newest);
                    prop_assert!(ring.acquire(1, now).is_ok());
                    admitted.push(newest);
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
        let ring = ring(u64::from(count));
        let (mut now, mut newest, mut admitted) = (SECOND, 0, Vec::new());
        for (step, cost, elapsed) in steps {
            // A cost that never fits is rejected before its time is read.
            let cost = cost.min(count);
            now = now.saturating_add_signed(elapsed);
            newest = now.max(newest);
            if step == 0 {
                ring.charge(cost, now);
            } else if ring.acquire(cost, now).is_ok() {
                admitted.extend((0..cost).map(|_| newest));
            }
        }
        for start in &admitted {
            let within = admitted.iter().filter(|time| (*start..start + SECOND).contains(time)).count();
            prop_assert!(within <= count as usize, "{within}");
        }
    }
}
