//! Sliding window as a ring of counters: at most N in any window, in memory that does not grow with
//! N.
//!
//! The window is cut into `k` parts, and each part's units are counted in a slot. The ring has
//! `k + 1` slots, and all of them count. With `k` slots, a part that opens would take the slot of a
//! part that is still half inside the window. At ten parts up to 1.34 N would pass.
//!
//! **Sealing.** Calls may be counted in the newest part only. Two threads that disagree on which
//! part is the newest would each add to a slot that the other has already summed. So the thread
//! that opens a part first seals the last one, which makes every exchange prepared on it fail. Then
//! it moves `newest` ahead. At any time one slot decides, by one compare-and-swap, and all others
//! stay as they are.
//!
//! **Guarantee.** No window `W` holds more than N admitted units, by the newest time that any
//! caller had given when they were admitted. Capacity returns up to `W / k` late: callers that
//! always want more get N in each `k + 1` parts, a part more than a window.
//!
//! **Cost.** k + 4 loads and one compare-and-swap. A rejection loads more and writes nothing. 8
//! bytes for each of `k + 1` slots.

use std::time::Duration;

use crate::{
    algorithm::{
        Limit, OverLimit, Rate,
        epoch::Epoch,
        sliding::{changed_count, count_of, window_of},
    },
    config::ConfigError,
    sync::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A limit on any window, never exceeded, in fixed memory. Starts empty.
#[derive(Debug)]
pub struct SlidingRing {
    /// `part:31 | sealed:1 | count:32`. Changed with Release and read with Acquire: a thread that
    /// sees a slot of a newer part also sees that the part before is sealed. So it cannot count
    /// there on a sum that lacks what was overwritten.
    slots: Box<[AtomicU64]>,
    /// The only part in which calls may be counted. Changed with Release after the last part was
    /// sealed. The Acquire load sees that part's final count.
    newest: AtomicU64,
    /// The limit. Relaxed: an admission that races a change uses one of the two limits.
    limit: AtomicU32,
    /// The time before which nothing is admitted, in nanoseconds. Relaxed: it publishes nothing
    /// else.
    closed: AtomicU64,
    /// The length of one part, in nanoseconds.
    width: u64,
    window: u64,
    epoch: Epoch,
}

/// The fields of a slot's word.
#[derive(Debug, Clone, Copy)]
struct SlotFields {
    part: u64,
    sealed: bool,
    count: u32,
}

impl SlidingRing {
    /// Creates a limit of at most `rate.count()` units in any window of `rate.per()`, cut into
    /// `parts`. More parts give capacity back sooner and cost a load each. 10 is a fair choice.
    ///
    /// # Errors
    /// A count of 0 or above 2^32 - 1. A window below a millisecond or above a year. Fewer than 1
    /// or more than 1000 parts.
    pub fn new(rate: Rate, parts: u32) -> Result<Self, ConfigError> {
        if !(1..=1000).contains(&parts) {
            return Err(ConfigError::new(
                "parts",
                parts,
                "cut the window into 1 to 1000 parts; 10 is a fair choice",
            ));
        }
        let (limit, window) = (count_of(rate, u32::MAX)?, window_of(rate)?);
        Ok(Self {
            slots: (0..=parts).map(|_| AtomicU64::new(0)).collect(),
            newest: AtomicU64::new(0),
            limit: AtomicU32::new(limit),
            closed: AtomicU64::new(0),
            width: window.div_ceil(u64::from(parts)),
            window,
            epoch: Epoch::unset(),
        })
    }

    /// Returns the newest part, which is that of `now` if it is newer than all before.
    fn open(&self, now: u64) -> u64 {
        let part = now / self.width;
        let mut newest = self.newest.load(Ordering::Acquire);
        while newest < part {
            self.seal(newest);
            // Release publishes the seal. The loser continues from the part that the winner has
            // opened.
            newest = match self.newest.compare_exchange(
                newest,
                part,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => part,
                Err(current) => current,
            };
        }
        newest
    }

    fn seal(&self, part: u64) {
        // This loses to a count, and retries and keeps it. Or it loses to another sealer or to a
        // newer part, and then there is nothing to do.
        let _ = self
            .slot(part)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let slot = SlotFields::of(word);
                match slot.age(part) {
                    0 if !slot.sealed => Some(
                        SlotFields {
                            sealed: true,
                            ..slot
                        }
                        .word(),
                    ),
                    0 => None,
                    _ if self.is_ahead(slot, part) => None,
                    _ => Some(
                        SlotFields {
                            part,
                            sealed: true,
                            count: 0,
                        }
                        .word(),
                    ),
                }
            });
    }

    /// Counts in the newest part, if `fits` accepts the sum of the whole window.
    fn count<E>(&self, cost: u32, now: u64, fits: impl Fn(u64) -> Result<(), E>) -> Result<(), E> {
        loop {
            let part = self.open(now);
            let word = self.slot(part).load(Ordering::Acquire);
            let slot = SlotFields::of(word);
            let age = slot.age(part);
            if self.is_ahead(slot, part) {
                continue;
            }
            if age == 0 && slot.sealed {
                // The thread that sealed it may have been stopped before moving on, so this thread
                // does that for it. It moves to the next part only, which has begun for sure. A
                // loser finds a newer part.
                let _ = self.newest.compare_exchange(
                    part,
                    part + 1,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                continue;
            }
            let own = if age == 0 { slot.count } else { 0 };
            fits(self.sum_before(part) + u64::from(own))?;
            // Saturates: a debt of 2^32 - 1 rejects as well as a larger one.
            let changed = SlotFields {
                part,
                sealed: false,
                count: own.saturating_add(cost),
            }
            .word();
            // The loser sums again: it has lost to a count, or to a seal.
            if self
                .slot(part)
                .compare_exchange(word, changed, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                return Ok(());
            }
        }
    }

    fn sum_before(&self, newest: u64) -> u64 {
        self.parts(newest)
            .filter(|part| *part != newest)
            .map(|part| u64::from(self.counted(part)))
            .sum()
    }

    fn counted(&self, part: u64) -> u32 {
        let slot = SlotFields::of(self.slot(part).load(Ordering::Acquire));
        if slot.age(part) == 0 { slot.count } else { 0 }
    }

    /// Returns the parts that count while `newest` is the newest, the oldest first.
    fn parts(&self, newest: u64) -> impl Iterator<Item = u64> + use<> {
        newest.saturating_sub(self.slots.len() as u64 - 1)..=newest
    }

    /// Returns how many nanoseconds until `units` fit, one after the other.
    fn until(&self, units: u64, now: u64) -> u64 {
        let (newest, limit) = (
            self.newest.load(Ordering::Acquire).max(now / self.width),
            u64::from(self.burst()),
        );
        let lap = self.width * self.slots.len() as u64;
        let (laps, rest) = (
            units.saturating_sub(1) / limit,
            (units.max(1) - 1) % limit + 1,
        );
        let mut used: u64 = self
            .parts(newest)
            .map(|part| u64::from(self.counted(part)))
            .sum();
        let mut turn = now.max(self.closed.load(Ordering::Relaxed));
        for part in self.parts(newest) {
            if used + rest.min(units) <= limit {
                break;
            }
            used -= u64::from(self.counted(part)).min(used);
            turn = turn.max((part * self.width).saturating_add(lap));
        }
        turn.saturating_add(laps.saturating_mul(lap)) - now
    }

    /// Returns whether a slot belongs to a newer part than `part`, which was the newest. The age
    /// alone does not tell: the age of a slot that was long unused wraps. But a newer part is
    /// published before its slot is, so this load sees it.
    fn is_ahead(&self, slot: SlotFields, part: u64) -> bool {
        slot.age(part) > PARTS / 2 && self.newest.load(Ordering::Acquire) != part
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "below the length, which is a usize"
    )]
    fn slot(&self, part: u64) -> &AtomicU64 {
        &self.slots[(part % self.slots.len() as u64) as usize]
    }
}

impl Limit for SlidingRing {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        if cost == 0 {
            return Ok(());
        }
        let limit = self.burst();
        if cost > limit {
            return Err(OverLimit::CostAboveBurst);
        }
        let closed = self.closed.load(Ordering::Relaxed) > now;
        self.count(cost, now, |used| {
            match used + u64::from(cost) <= u64::from(limit) && !closed {
                true => Ok(()),
                // At least 1: the units in the way have just left, or been given back.
                false => Err(OverLimit::until(self.until(u64::from(cost), now).max(1))),
            }
        })
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        Duration::from_nanos(self.until(units, now))
    }

    fn refund(&self, cost: u32, now: u64) {
        let mut left = cost;
        // The oldest first: the remaining units are never older than those really used.
        for part in self.parts(self.open(now)) {
            let mut taken = 0;
            let _ = self
                .slot(part)
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                    let slot = SlotFields::of(word);
                    taken = if slot.age(part) == 0 {
                        slot.count.min(left)
                    } else {
                        0
                    };
                    (taken > 0).then(|| {
                        SlotFields {
                            count: slot.count - taken,
                            ..slot
                        }
                        .word()
                    })
                });
            left -= taken;
        }
    }

    fn charge(&self, cost: u32, now: u64) {
        let _ = self.count(cost, now, |_| Ok::<_, ()>(()));
    }

    fn close_until(&self, until: u64, _: u64) {
        self.closed.fetch_max(until, Ordering::Relaxed);
    }

    fn reset(&self, _: u64) {
        for slot in &self.slots {
            // Part and seal stay. Release, like any other change, for the Acquire of a thread that
            // sums.
            slot.fetch_and(!u64::from(u32::MAX), Ordering::AcqRel);
        }
        self.closed.store(0, Ordering::Relaxed);
    }

    fn available(&self, now: u64) -> u32 {
        if self.closed.load(Ordering::Relaxed) > now {
            return 0;
        }
        let newest = self.newest.load(Ordering::Acquire).max(now / self.width);
        let used = self.sum_before(newest) + u64::from(self.counted(newest));
        u32::try_from(u64::from(self.burst()).saturating_sub(used)).unwrap_or(u32::MAX)
    }

    fn burst(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    fn refund_lag(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    fn begin(&self, at: u64) -> u64 {
        self.epoch.begin(at)
    }

    fn rate(&self) -> Rate {
        Rate::new(u64::from(self.burst()), Duration::from_nanos(self.window))
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.limit.store(
            changed_count(rate, burst, self.window, u32::MAX)?,
            Ordering::Relaxed,
        );
        Ok(())
    }
}

impl SlotFields {
    fn of(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
        let count = word as u32;
        Self {
            part: word >> 33,
            sealed: word >> 32 & 1 == 1,
            count,
        }
    }

    fn word(self) -> u64 {
        (self.part & PARTS) << 33 | u64::from(self.sealed) << 32 | u64::from(self.count)
    }

    /// Returns how many parts this slot's part is before `part`, modulo 2^31. A slot that was
    /// unused for exactly that long counts once more, which errs towards admitting less.
    fn age(self, part: u64) -> u64 {
        part.wrapping_sub(self.part) & PARTS
    }
}

const PARTS: u64 = (1 << 31) - 1;

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_part_that_opens_during_a_sum_is_not_missed() {
        loom::model(|| {
            let ring = Arc::new(SlidingRing::new(Rate::per_second(1), 1).unwrap());
            let other = ring.clone();
            let thread = thread::spawn(move || other.acquire(1, 1_000_000_000).is_ok());
            let here = ring.acquire(1, 999_999_999).is_ok();
            assert!(here ^ thread.join().unwrap());
        });
    }

    #[test]
    fn two_threads_share_a_part_exactly() {
        loom::model(|| {
            let ring = Arc::new(SlidingRing::new(Rate::per_second(2), 1).unwrap());
            let other = ring.clone();
            let thread =
                thread::spawn(move || (0..2).filter(|_| other.acquire(1, 0).is_ok()).count());
            let here = usize::from(ring.acquire(1, 0).is_ok());
            let there = thread.join().unwrap();
            assert_eq!(here + there, 2);
        });
    }
}
