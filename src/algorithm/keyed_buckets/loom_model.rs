//! Models of every interleaving of two threads at one slot.

use loom::{sync::Arc, thread};

use super::{
    slots::{RESIDENT, TENTATIVE},
    *,
};

const SECOND: u64 = 1_000_000_000;
const ME: u64 = 64;
const OTHER: u64 = 128;

#[test]
fn an_eviction_and_an_admission_do_not_lose_a_debt() {
    loom::model(|| {
        let table =
            Arc::new(KeyedBuckets::new(Rate::per_second(1), 1, 1, Overflow::Reject).unwrap());
        let (key, slot) = (64 | RESIDENT, table.slots.iter().next().unwrap());
        slot.print.store(key, Ordering::Relaxed);
        let other = table.clone();
        let thread = thread::spawn(move || {
            other.slots.iter().next().unwrap().clear(
                128 | TENTATIVE,
                &other.slots.evicted,
                other.quota.scale(),
                0,
            )
        });
        slot.tat.acquire(table.quota.pace(), 1, 0).unwrap();
        let kept = slot.print.load(Ordering::Acquire) == key;
        let evicted = thread.join().unwrap();
        assert!(!(kept && evicted), "admitted, and forgotten");
    });
}

#[test]
fn an_admitted_key_keeps_the_slot_that_another_wants() {
    bounded(|| {
        // One slot is idle. Its key acts just as another key takes it over.
        let table =
            Arc::new(KeyedBuckets::new(Rate::per_second(1), 1, 1, Overflow::Reject).unwrap());
        for (number, slot) in (1..).zip(table.slots.of(64)) {
            slot.print.store(number << 20 | RESIDENT, Ordering::Relaxed);
            slot.tat
                .charge(table.quota.pace(), u64::from(number > 1), 0);
        }
        table
            .slots
            .of(64)
            .next()
            .unwrap()
            .print
            .store(64 | RESIDENT, Ordering::Relaxed);
        let other = table.clone();
        let thread = thread::spawn(move || other.acquire(128, 1, 0).is_ok());
        let here = table.acquire(64, 1, 0).is_ok();
        let there = thread.join().unwrap();
        assert!(!(here && there), "two in one slot");
        assert!(
            !here || matches!(table.slots.find(64 | RESIDENT), Found::Resident(_)),
            "admitted, and forgotten"
        );
    });
}

#[test]
fn two_threads_with_the_same_new_key_share_one_limit() {
    bounded(|| {
        let table =
            Arc::new(KeyedBuckets::new(Rate::per_second(1), 1, 1, Overflow::Reject).unwrap());
        let other = table.clone();
        let thread = thread::spawn(move || other.acquire(64, 1, 0).is_ok());
        let here = table.acquire(64, 1, 0).is_ok();
        let there = thread.join().unwrap();
        assert!(!(here && there));
        assert!(!table.acquire(64, 1, 0).is_ok() || !(here || there));
    });
}

#[test]
fn a_refund_does_not_reduce_the_debt_of_the_next_key() {
    bounded(|| {
        // given: a debt that is paid at the new key's time, but not yet at that of the refund.
        let table = crowded(2, 1);
        settle(&table, 1);
        let other = table.clone();
        // when
        let thread = thread::spawn(move || other.refund(ME, 1, 0));
        table.acquire(OTHER, 2, 2 * SECOND).unwrap();
        thread.join().unwrap();
        // then
        assert_eq!(table.available(OTHER, 2 * SECOND), 0);
    });
}

#[test]
fn a_key_under_eviction_does_not_earn_twice() {
    bounded(|| {
        // given: a debt until 5 s, and another key at 10 s. There is a slot for each.
        let table = crowded(1, 2);
        settle(&table, 5);
        let other = table.clone();
        // when
        let thread = thread::spawn(move || other.acquire(ME, 1, SECOND).is_ok());
        table.acquire(OTHER, 1, 10 * SECOND).unwrap();
        let admitted = thread.join().unwrap();
        // then: if it was admitted, it counts as of its eviction.
        assert!(!(admitted && table.acquire(ME, 1, 11 * SECOND - 1).is_ok()));
    });
}

#[test]
fn two_callers_of_a_moved_key_do_not_earn_twice() {
    bounded(|| {
        // given: a key that was evicted at 10 s.
        let table = crowded(1, 1);
        table
            .slots
            .evicted
            .latest
            .store(10 * SECOND, Ordering::Relaxed);
        let other = table.clone();
        // when: one thread moves it in, and another finds it there.
        let thread = thread::spawn(move || other.acquire(ME, 1, SECOND).is_ok());
        let new = table.acquire(ME, 1, 10 * SECOND).is_ok();
        // then
        assert!(!(thread.join().unwrap() && new));
    });
}

#[test]
fn a_debt_is_not_lost_to_an_eviction() {
    for debt in [
        Tat::charge as fn(&Tat, Pace, u64, u64) -> TatChange,
        |tat, pace, _, now| tat.close_until(pace, now + 3 * SECOND, now),
    ] {
        bounded(move || {
            // given: a key whose debt is just paid, and a slot for it and for the new key.
            let table = crowded(1, 2);
            settle(&table, 5);
            let pace = table.quota.pace();
            let other = table.clone();
            // when
            let thread = thread::spawn(move || other.acquire(OTHER, 1, 10 * SECOND));
            let owed = table.step(ME, 10 * SECOND, |tat, now| {
                Ok::<_, Infallible>(debt(tat, pace, 3, now))
            });
            let _ = thread.join().unwrap();
            // then: it owes, unless it was being moved at each lookup.
            assert!(owed.is_err() || table.ahead(ME, pace, 10 * SECOND) == 3 * pace.interval);
        });
    }
}

/// Creates a table of one unit a second in which all slots but the first `free` are in debt for a
/// minute. All keys here have the same slots in the same order.
fn crowded(burst: u32, free: usize) -> Arc<KeyedBuckets> {
    let table = KeyedBuckets::new(Rate::per_second(1), burst, 1, Overflow::Reject).unwrap();
    for (number, slot) in (1..).zip(table.slots.of(ME)).skip(free) {
        slot.print.store(number << 20 | RESIDENT, Ordering::Relaxed);
        slot.tat.charge(table.quota.pace(), 60, 0);
    }
    Arc::new(table)
}

/// Puts `ME` in the first slot, with `used` units of its burst used at 0.
fn settle(table: &KeyedBuckets, used: u64) {
    let slot = table.slots.of(ME).next().unwrap();
    slot.print.store(ME | RESIDENT, Ordering::Relaxed);
    slot.tat.charge(table.quota.pace(), used, 0);
}

fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}
