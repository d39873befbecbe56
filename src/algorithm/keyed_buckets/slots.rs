//! The slots of the table: lookup, moving in, and eviction.

use crate::{
    algorithm::token_bucket::{quota::Scale, tat::Tat},
    sync::{AtomicU64, Ordering, fence},
};

/// All slots, in buckets.
#[derive(Debug)]
pub(super) struct Slots {
    /// The buckets. Their number is a power of two.
    buckets: Box<[Bucket]>,
    pub(super) evicted: Evictions,
}

#[derive(Debug)]
pub(super) struct Evictions {
    /// The latest `now` at which an eviction was decided. At that time a key without a slot has a
    /// full bucket. Otherwise a thread whose `now` is older would let the key earn the time in
    /// between twice.
    pub(super) latest: AtomicU64,
    /// The number of evictions. Relaxed: a statistic.
    count: AtomicU64,
}

/// One cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket([Slot; SLOTS]);

#[derive(Debug)]
pub(super) struct Slot {
    /// `hash:62 | state:2`, or 0 if the slot has never been used. Acquire and Release pair the
    /// steps of an eviction with the admission's second read of it, by way of the TAT.
    pub(super) print: AtomicU64,
    pub(super) tat: Tat,
}

impl Slots {
    /// Creates room for `keys` keys and a quarter more, because slots do not fill evenly. Returns
    /// `None` if the memory is not available.
    pub(super) fn new(keys: usize) -> Option<Self> {
        let buckets = (keys + keys / 4).div_ceil(SLOTS).next_power_of_two().max(2);
        let mut table = Vec::new();
        table.try_reserve_exact(buckets).ok()?;
        let slot = |_| Slot {
            print: AtomicU64::new(0),
            tat: Tat::full(),
        };
        table.resize_with(buckets, || Bucket(std::array::from_fn(slot)));
        Some(Self {
            buckets: table.into(),
            evicted: Evictions {
                latest: AtomicU64::new(0),
                count: AtomicU64::new(0),
            },
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.buckets.iter().flat_map(|bucket| &bucket.0)
    }

    /// Returns the size in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Returns the latest time at which an eviction was decided. A key without a slot had a full
    /// bucket then.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.latest.load(Ordering::Relaxed)
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evicted.count.load(Ordering::Relaxed)
    }

    pub(super) fn find(&self, key: u64) -> Found<'_> {
        let mut found = Found::Nowhere;
        for slot in self.of(key) {
            let print = slot.print.load(Ordering::Acquire);
            if print == key {
                return Found::Resident(slot);
            }
            if print & !STATES == key & !STATES && print & STATES != 0 {
                found = Found::Moving;
            }
        }
        found
    }

    /// Gives the key a slot if one of its eight is idle, unless another thread does so too. Returns
    /// whether to look the key up again.
    pub(super) fn move_in(&self, key: u64, scale: Scale, now: u64) -> bool {
        let tentative = key & !STATES | TENTATIVE;
        let Some(slot) = self
            .of(key)
            .find(|slot| slot.clear(tentative, &self.evicted, scale, now))
        else {
            return false;
        };
        // Orders this thread's write of its slot before its reads of the others, and the same in
        // the other thread. Without it both could read before either write is visible, and the key
        // would have two limits.
        fence(Ordering::SeqCst);
        let elsewhere = self.of(key).any(|other| {
            !std::ptr::eq(other, slot) && {
                let print = other.print.load(Ordering::Acquire);
                print & !STATES == key & !STATES && print & STATES != 0
            }
        });
        // A thread that finds the key here before this thread takes anything may have an older
        // time, and would count from that.
        let evicted = self.evicted();
        slot.tat.full_since(scale, evicted);
        // No other thread changes a tentative slot.
        slot.print
            .store(if elsewhere { 0 } else { key }, Ordering::Release);
        true
    }

    /// Returns the slots that a key may have, in its own order: two buckets, by independent bits of
    /// the hash.
    pub(super) fn of(&self, key: u64) -> impl Iterator<Item = &Slot> {
        let first = index(key >> 2, self.buckets.len());
        // Never the same bucket: the distance is odd, and there are at least two.
        let second = index((first as u64) ^ (key >> 33 | 1), self.buckets.len());
        self.buckets[first].0.iter().chain(&self.buckets[second].0)
    }
}

/// Returns the `print` of a slot that holds a key with this hash.
pub(super) fn resident(hash: u64) -> u64 {
    hash & !STATES | RESIDENT
}

/// The result of looking a key up.
pub(super) enum Found<'a> {
    Resident(&'a Slot),
    /// The key is being moved in or out.
    Moving,
    Nowhere,
}

impl Slot {
    /// Returns whether the slot is the key's, after its TAT was read with a Relaxed load.
    pub(super) fn holds(&self, key: u64) -> bool {
        // Pairs with the admission that wrote the TAT just read. If another key made it, the load
        // below finds that key's print, and its debt is not reduced.
        fence(Ordering::Acquire);
        self.print.load(Ordering::Acquire) == key
    }

    /// Puts a tentative key in a slot that is unused, or whose key is not in debt.
    pub(super) fn clear(
        &self,
        tentative: u64,
        evicted: &Evictions,
        scale: Scale,
        now: u64,
    ) -> bool {
        let old = self.print.load(Ordering::Acquire);
        let (leaving, unused) = (old & !STATES | LEAVING, old == 0);
        if !(unused || old & STATES == RESIDENT) || self.tat.ahead(scale, now) > 0 {
            return false;
        }
        // The loser leaves the slot to the winner and tries the next.
        if self
            .print
            .compare_exchange(old, leaving, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        let idle = self.tat.confirm_idle(scale, now);
        if idle && !unused {
            // Relaxed: the store of `print` below publishes it to a thread that finds the old key
            // gone.
            evicted.latest.fetch_max(now, Ordering::Relaxed);
            evicted.count.fetch_add(1, Ordering::Relaxed);
        }
        // No other thread changes a leaving slot.
        self.print
            .store(if idle { tentative } else { old }, Ordering::Release);
        idle
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "below the length, which is a power of two"
)]
pub(super) fn index(hash: u64, length: usize) -> usize {
    hash as usize & (length - 1)
}

/// The slots of a bucket.
pub(super) const SLOTS: usize = 4;
pub(super) const STATES: u64 = 3;
pub(super) const RESIDENT: u64 = 1;
pub(super) const TENTATIVE: u64 = 2;
pub(super) const LEAVING: u64 = 3;
