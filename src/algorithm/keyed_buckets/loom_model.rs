//! Every interleaving of two threads at one slot.

use loom::{sync::Arc, thread};

use super::*;

#[test]
fn an_eviction_and_an_admission_do_not_lose_a_debt() {
    loom::model(|| {
        let table = Arc::new(KeyedBuckets::new(Rate::per_second(1), 1, 1, Overflow::Deny).unwrap());
        let (key, slot) = (64 | RESIDENT, &table.buckets[0].0[0]);
        slot.print.store(key, Ordering::Relaxed);
        let other = table.clone();
        let thread = thread::spawn(move || other.buckets[0].0[0].clear(128 | TENTATIVE, &other.evicted, 0));
        slot.tat.acquire(table.quota.pace(), 1, 0).unwrap();
        let kept = slot.print.load(Ordering::Acquire) == key;
        let evicted = thread.join().unwrap();
        assert!(!(kept && evicted), "admitted, and forgotten");
    });
}

#[test]
fn who_is_admitted_has_a_slot_to_remember_it_though_another_key_wants_it() {
    loom::model(|| {
        // One slot is idle, of a key that acts just as another key takes it.
        let table = Arc::new(KeyedBuckets::new(Rate::per_second(1), 1, 1, Overflow::Deny).unwrap());
        for (number, slot) in (1..).zip(table.slots(64)) {
            slot.print.store(number << 20 | RESIDENT, Ordering::Relaxed);
            slot.tat.charge(table.quota.pace(), u32::from(number > 1), 0);
        }
        table.slots(64).next().unwrap().print.store(64 | RESIDENT, Ordering::Relaxed);
        let other = table.clone();
        let thread = thread::spawn(move || other.acquire(128, 1, 0).is_ok());
        let here = table.acquire(64, 1, 0).is_ok();
        let there = thread.join().unwrap();
        assert!(!(here && there), "two in one slot");
        assert!(!here || matches!(table.find(64 | RESIDENT), Found::Resident(_)), "admitted, and forgotten");
    });
}

#[test]
fn two_threads_with_the_same_new_key_share_one_limit() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let table = Arc::new(KeyedBuckets::new(Rate::per_second(1), 1, 1, Overflow::Deny).unwrap());
        let other = table.clone();
        let thread = thread::spawn(move || other.acquire(64, 1, 0).is_ok());
        let here = table.acquire(64, 1, 0).is_ok();
        let there = thread.join().unwrap();
        assert!(!(here && there));
        assert!(!table.acquire(64, 1, 0).is_ok() || !(here || there));
    });
}
