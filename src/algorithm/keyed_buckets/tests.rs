use std::{collections::HashMap, thread};

use proptest::prelude::*;

use super::{
    slots::{LEAVING, STATES, TENTATIVE},
    *,
};

const SECOND: u64 = 1_000_000_000;

fn table(rate: u64, burst: u32, keys: usize, overflow: Overflow) -> KeyedBuckets {
    KeyedBuckets::new(Rate::per_second(rate), burst, keys, overflow).unwrap()
}

/// Spreads small numbers as a hash does (the finaliser of `SplitMix64`).
fn hash(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[test]
fn each_key_has_its_own_limit() {
    let table = table(1, 3, 100, Overflow::Reject);
    for key in 1..=50 {
        assert_eq!(
            (0..10)
                .filter(|_| table.acquire(hash(key), 1, 0).is_ok())
                .count(),
            3
        );
    }
    assert_eq!(table.indebted(0), 50);
    assert_eq!(table.indebted(3 * SECOND), 0);
}

#[test]
fn reading_what_is_left_of_a_key_takes_nothing() {
    let table = table(1, 3, 100, Overflow::Reject);
    assert!(table.acquire(hash(1), 2, 0).is_ok());
    for _ in 0..2 {
        assert_eq!(
            (table.available(hash(1), 0), table.available(hash(2), 0)),
            (1, 3)
        );
        assert_eq!(table.wait(hash(1), 3, 0), Duration::from_secs(2));
        assert_eq!(
            (table.wait(hash(1), 1, 0), table.indebted(0)),
            (Duration::ZERO, 1)
        );
    }
}

#[test]
fn a_key_without_a_slot_has_the_units_of_the_overflow() {
    for (overflow, left) in [
        (Overflow::Shared, 0),
        (Overflow::Reject, 0),
        (Overflow::Allow, 1),
    ] {
        let table = table(1, 1, 1, overflow);
        for key in 1..10_000 {
            let _ = table.acquire(hash(key), 1, 0);
        }
        assert_eq!(table.available(hash(10_000), 0), left, "{overflow:?}");
    }
}

#[test]
fn a_flood_of_keys_resets_no_debt_and_takes_no_memory() {
    // given
    let table = table(1, 1, 1000, Overflow::Shared);
    let bytes = table.bytes();
    assert!(table.acquire(hash(1), 1, 0).is_ok());
    // when
    let flooded = (2..1_000_000)
        .filter(|key| table.acquire(hash(*key), 1, 0).is_ok())
        .count();
    // then
    assert!(table.acquire(hash(1), 1, 0).is_err());
    assert_eq!(table.bytes(), bytes);
    let slots = table.slots.iter().count();
    assert!(flooded < slots + SHARED, "{flooded} keys in {slots} slots");
    assert!(flooded > slots / 2, "{flooded} keys in {slots} slots");
}

#[test]
fn ten_million_keys_pass_a_table_of_ten_thousand() {
    // given: each key's debt lasts a millisecond, in which a thousand keys arrive.
    let table = table(1000, 1, 10_000, Overflow::Reject);
    let mut denied = 0;
    // when
    for key in 0..10_000_000 {
        denied += u32::from(table.acquire(hash(key + 1), 1, key * 1000).is_err());
    }
    // then
    assert_eq!(denied, 0);
    assert!(table.bytes() <= 64 * 10_000);
}

#[test]
fn the_overflow_is_as_configured() {
    let admitted = |overflow| {
        let table = table(1, 1, 1, overflow);
        (1..10_001)
            .filter(|key| table.acquire(hash(*key), 1, 0).is_ok())
            .count()
    };
    let slots = 8;
    assert_eq!(admitted(Overflow::Allow), 10_000);
    assert!(admitted(Overflow::Reject) <= slots);
    assert!((SHARED / 2..=SHARED + slots).contains(&admitted(Overflow::Shared)));
}

// Regression: it was admitted without a limit for as long as the other thread was stopped.
#[test]
fn a_key_that_a_stopped_thread_moves_has_a_limit() {
    for (overflow, most) in [
        (Overflow::Allow, 3),
        (Overflow::Shared, 3),
        (Overflow::Reject, 0),
    ] {
        for state in [LEAVING, TENTATIVE] {
            // given
            let table = table(1, 3, 100, overflow);
            table
                .slots
                .of(hash(1))
                .next()
                .unwrap()
                .print
                .store(hash(1) & !STATES | state, Ordering::Relaxed);
            // then
            assert_eq!(
                (0..100)
                    .filter(|_| table.acquire(hash(1), 1, 0).is_ok())
                    .count(),
                most,
                "{overflow:?}"
            );
            table.charge(hash(1), 5, SECOND);
            assert!(
                table.acquire(hash(1), 1, 2 * SECOND).is_err(),
                "{overflow:?}"
            );
        }
    }
}

#[test]
fn threads_that_share_keys_and_slots_never_over_admit() {
    // given: so few slots that keys evict each other all the time.
    let (keys, burst) = (32, 5);
    let table = &table(1, burst, 8, Overflow::Reject);
    // when
    let admitted: Vec<HashMap<u64, u32>> = thread::scope(|scope| {
        let run = |seed: u64| {
            let mut admitted = HashMap::new();
            for step in 0..20_000 {
                let key = hash(step * 7 + seed) % keys;
                // Time stands still in this scope, so no debt is paid.
                if table.acquire(hash(key + 1), 1, SECOND).is_ok() {
                    *admitted.entry(key).or_default() += 1;
                }
            }
            admitted
        };
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || run(seed))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    // then
    for key in 0..keys {
        let total: u32 = admitted
            .iter()
            .filter_map(|admitted| admitted.get(&key))
            .sum();
        assert!(total <= burst, "{total} for {key}");
    }
}

// Regression: the undo gave its units back as a refund does, to a bucket that time had filled
// again. That was one unit too many.
#[test]
fn undoing_a_paid_admission_gives_nothing() {
    // given: an admission to a slot that another key takes over before the second read of `print`.
    let (table, tat) = (table(1, 3, 1, Overflow::Reject), Tat::full());
    let pace = table.quota.pace();
    let taken = tat.take(pace, 1, 0).unwrap();
    // when
    assert!(tat.acquire(pace, 3, 10 * SECOND).is_ok());
    tat.undo(taken);
    // then
    assert!(tat.acquire(pace, 1, 10 * SECOND).is_err());
}

#[test]
fn undoing_the_last_admission_gives_all_of_it_back() {
    let (table, tat) = (table(1, 3, 1, Overflow::Reject), Tat::full());
    let pace = table.quota.pace();
    assert!(tat.acquire(pace, 1, 0).is_ok());
    tat.undo(tat.take(pace, 2, 0).unwrap());
    assert_eq!(tat.available(pace, 0), 2);
}

// Regression: a refund went to the key that had the slot by the time of the write.
#[test]
fn a_refund_does_not_reach_the_slots_next_key() {
    let (table, tat) = (table(1, 3, 1, Overflow::Reject), Tat::full());
    let pace = table.quota.pace();
    assert!(tat.acquire(pace, 3, 0).is_ok());
    tat.refund_if(pace, 3, 0, || false);
    assert_eq!(tat.available(pace, 0), 0);
}

// Regression: a caller that had read the clock before the eviction got the key's burst as of then,
// and also what was earned since.
#[test]
fn an_evicted_key_does_not_earn_twice_at_an_old_time() {
    // given: a key whose slot another key took over as soon as its debt was paid.
    let table = table(1, 5, 1, Overflow::Reject);
    // Both have the same first bucket.
    let (key, other) = (4, 12);
    assert!(table.acquire(key, 5, 0).is_ok());
    assert!(table.acquire(other, 1, 5 * SECOND).is_ok());
    assert_eq!(table.indebted(5 * SECOND), 1);
    // when: a caller with an old time finds another slot, which is idle.
    assert!(table.acquire(key, 5, SECOND).is_ok());
    // then: that was the burst of the fifth second, not of the first.
    assert_eq!(
        (0..5)
            .filter(|_| table.acquire(key, 1, 6 * SECOND).is_ok())
            .count(),
        1
    );
}

// Regression: a caller that found the key moved in by another thread, with nothing taken yet,
// earned twice as well.
#[test]
fn an_old_time_does_not_earn_again_after_a_move_in() {
    // given: a key that was evicted at 10 s, and a thread that has moved it in at 10 s and is
    // stopped there.
    let table = table(1, 5, 1, Overflow::Reject);
    let key = 4;
    table
        .slots
        .evicted
        .latest
        .store(10 * SECOND, Ordering::Relaxed);
    assert!(
        table
            .slots
            .move_in(resident(key), table.quota.scale(), 10 * SECOND)
    );
    // when
    let old = (0..5)
        .filter(|_| table.acquire(key, 1, SECOND).is_ok())
        .count();
    // then
    assert_eq!(
        old + (0..5)
            .filter(|_| table.acquire(key, 1, 10 * SECOND).is_ok())
            .count(),
        5
    );
}

#[test]
fn a_charge_and_a_penalty_affect_their_key_alone() {
    let table = table(1, 2, 100, Overflow::Reject);
    table.charge(hash(1), 3, 0);
    table.close_until(hash(2), 5 * SECOND, 0);
    let admitted = |key, second| table.acquire(hash(key), 1, second * SECOND).is_ok();
    assert!(!admitted(1, 1) && admitted(1, 2));
    assert!(!admitted(2, 4) && admitted(2, 5));
    assert!(admitted(3, 0));
}

#[test]
fn a_debt_in_the_overflow_is_on_the_shared_limit() {
    // given: a full table, and two new keys that share different limits.
    let table = table(1, 2, 1, Overflow::Shared);
    let keys = (1..)
        .map(hash)
        .take_while(|key| table.indebted(0) < 8 && table.acquire(*key, 1, 0).is_ok())
        .count();
    assert_eq!(keys, 8);
    let (debtor, stranger) = (1 << 41, 1 << 42);
    // when
    table.charge(debtor, 2, 0);
    table.refund(debtor, 2, 0);
    // then
    assert!(table.acquire(debtor, 1, 0).is_err());
    assert!(table.acquire(stranger, 1, 0).is_ok());
}

proptest! {
    #[test]
    fn decides_as_a_map_of_buckets_does(
        steps in prop::collection::vec((0u64..20, 0u32..4, 0u64..SECOND / 20, any::<bool>()), 1..300),
    ) {
        let table = table(10, 3, 1000, Overflow::Reject);
        let mut map = HashMap::<u64, Tat>::new();
        let (pace, mut now) = (table.quota.pace(), 0);
        for (key, cost, elapsed, refund) in steps {
            now += elapsed;
            let bucket = map.entry(key).or_insert_with(Tat::full);
            if refund {
                table.refund(hash(key), cost, now);
                bucket.refund(pace, cost.into(), now);
            } else {
                prop_assert_eq!(table.acquire(hash(key), cost, now), bucket.acquire(pace, cost.into(), now));
            }
        }
    }
    #[test]
    fn evicts_only_full_buckets_however_few_the_slots(
        steps in prop::collection::vec((0u8..8, 1u64..20, 0u32..5, 0u64..SECOND / 10), 1..300),
    ) {
        // given: eight slots, which all keys may use, and for each key the time at which it is
        // full.
        let (table, interval) = (table(10, 3, 1, Overflow::Reject), SECOND / 10);
        let (mut map, mut now) = (HashMap::<u64, u64>::new(), SECOND);
        for (step, key, cost, elapsed) in steps {
            now += elapsed;
            let in_debt = map.values().filter(|full| **full > now).count();
            let full = map.entry(key).or_default();
            let (length, slot) = (u64::from(cost) * interval, *full > now || in_debt < 8);
            match step {
                0 => { table.refund(hash(key), cost, now); *full = (*full).min(now.max(full.saturating_sub(length))); }
                1 => { table.charge(hash(key), cost, now); *full = if slot { now.max(*full) + length } else { *full }; }
                2 => {
                    table.close_until(hash(key), now + 2 * length, now);
                    *full = if slot { (*full).max(now + 2 * length + 2 * interval) } else { *full };
                }
                _ if cost == 0 => prop_assert!(table.acquire(hash(key), 0, now).is_ok()),
                _ => {
                    let after = now.max(*full) + length;
                    let fits = slot && after <= now + 3 * interval;
                    prop_assert_eq!(table.acquire(hash(key), cost, now).is_ok(), fits);
                    *full = if fits { after } else { *full };
                }
            }
            prop_assert_eq!(table.indebted(now), map.values().filter(|full| **full > now).count());
        }
    }

    #[test]
    fn old_times_do_not_over_admit_while_keys_are_evicted(
        steps in prop::collection::vec((0u8..6, 1u64..12, 1u32..4, 0..SECOND / 200, any::<bool>()), 1..300),
    ) {
        let (table, interval, lag) = (table(10, 3, 1, Overflow::Reject), SECOND / 10, SECOND / 2);
        let (mut newest, mut admitted) = (SECOND, HashMap::<u64, Vec<(u64, u32)>>::new());
        for (step, key, cost, elapsed, old) in steps {
            newest += elapsed;
            let now = if old { newest - lag } else { newest };
            if step == 0 {
                table.charge(hash(key), cost, now);
            } else if table.acquire(hash(key), cost, now).is_ok() {
                admitted.entry(key).or_default().push((newest, cost));
            }
        }
        for times in admitted.values() {
            for (first, (start, _)) in times.iter().enumerate() {
                let mut sum = 0;
                for (end, cost) in &times[first..] {
                    sum += u64::from(*cost);
                    // An old time counts as anything from itself to the newest.
                    prop_assert!(sum <= 3 + (end - start + lag) / interval);
                }
            }
        }
    }
}

const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// Regression: after 2.28 years of uptime, new keys and the overflow were in debt for as long
/// again.
#[test]
fn new_keys_and_the_overflow_are_full_at_any_uptime() {
    for rate in [Rate::per_second(1), Rate::per_second(50_000_000)] {
        for years in [3, 4, 30, 100, 140] {
            let (table, now) = (
                KeyedBuckets::new(rate, 2, 8, Overflow::Shared).unwrap(),
                years * YEAR,
            );
            for key in 0..1000_u64 {
                let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ key << 40;
                let _ = table.acquire(hash, 1, now - YEAR / 1000);
            }
            assert_eq!(table.indebted(now), 0);
            for key in 0..8_u64 {
                let hash = (key + 5000).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ key << 40;
                assert_eq!(table.available(hash, now), 2);
                table.acquire(hash, 2, now).unwrap();
                table.acquire(hash, 1, now).unwrap_err();
            }
        }
    }
}

/// The same holds in slots that were idle for that long.
#[test]
fn slots_that_idled_for_years_are_free() {
    for years in [3, 4, 30, 100, 140] {
        let table = KeyedBuckets::new(Rate::per_second(1), 2, 8, Overflow::Reject).unwrap();
        for round in 0..2 {
            let now = 1 + round * years * YEAR;
            for key in 0..8_u64 {
                let hash = (key + 100 * round).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ key << 40;
                assert!(table.acquire(hash, 2, now).is_ok(), "{years} {round} {key}");
            }
        }
    }
}
