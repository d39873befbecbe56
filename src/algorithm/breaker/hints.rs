//! Hints of when the upstream wants to be called again, kept for as long as their results count.
//!
//! A hint (`Retry-After`) lengthens the open time only if its result is one of those that trip: in
//! the window, or among the probes. So hints are kept by the part of the window that their result
//! is in, and leave with it.
//!
//! One word with the latest moment of all would not do. A hint of an hour, seen once in a passing
//! overload, would lengthen the next trip, which has another cause.

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(super) struct Hints {
    /// `generation:8 | part:14 | not before:42`, the last in milliseconds since the caller's start
    /// (139 years), or 0 for none. A word from exactly so many generations or parts ago passes for
    /// a new one. That matters only if the upstream asked for longer than that, and then it did
    /// ask.
    ///
    /// Relaxed: a trip on a result sees the hint that the same thread has stored for it. Of other
    /// threads' hints it sees those that happen to be visible.
    slots: [AtomicU64; SLOTS],
}

/// The place of a result in a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) generation: u32,
    /// The part of the window, counted without end.
    pub(super) part: u64,
    /// The number of parts of the window, at most [`PARTS`].
    pub(super) parts: u64,
}

impl Hints {
    /// Adds the hint, in nanoseconds, of a result that belongs to `place`.
    pub(super) fn add(&self, place: Place, not_before: u64) {
        let new = place.tag() | (not_before / MILLI).min(TIME_MASK);
        let slot = &self.slots[(place.part % PARTS) as usize];
        let mut word = slot.load(Ordering::Relaxed);
        loop {
            if word & !TIME_MASK == new & !TIME_MASK && word >= new {
                return;
            }
            match slot.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                // Another hint. If the two belong together, the later one is kept, else the last to
                // arrive. A lost hint errs towards the circuit's own open time.
                Err(current) => word = current,
            }
        }
    }

    /// Returns the latest moment that the results of the window which ends at `place` have asked
    /// for, in nanoseconds, or 0 if none has.
    pub(super) fn latest(&self, place: Place) -> u64 {
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        let seen = words.filter(|word| place.sees(*word));
        let latest = seen.map(|word| word & TIME_MASK).max().unwrap_or(0);
        latest.saturating_mul(MILLI)
    }

    pub(super) fn clear(&self) {
        for slot in &self.slots {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

impl Place {
    fn tag(self) -> u64 {
        (u64::from(self.generation) & 255) << GENERATION_SHIFT
            | (self.part & PART_MASK) << TIME_BITS
    }

    fn sees(self, word: u64) -> bool {
        let age = self.part.wrapping_sub(word >> TIME_BITS) & PART_MASK;
        let (own, other) = (self.tag() >> GENERATION_SHIFT, word >> GENERATION_SHIFT);
        // The last values of the range are threads with a later `now`.
        own == other && (age < self.parts || age > PART_MASK - LATER)
    }
}

/// The number of parts of a window.
pub(super) const PARTS: u64 = SLOTS as u64;
const SLOTS: usize = 10;
const TIME_BITS: u32 = 42;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const PART_MASK: u64 = (1 << 14) - 1;
const LATER: u64 = 1 << 8;
const GENERATION_SHIFT: u32 = 56;
const MILLI: u64 = 1_000_000;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use super::*;

    fn at(generation: u32, part: u64) -> Place {
        Place {
            generation,
            part,
            parts: PARTS,
        }
    }

    #[test]
    fn the_latest_hint_of_the_window_is_told() {
        let hints = Hints::default();
        for (part, millis) in [(0, 50), (0, 90), (0, 70), (1, 60)] {
            hints.add(at(0, part), millis * MILLI);
        }
        for (part, expected) in [(1, 90), (9, 90), (10, 60), (11, 0), (16_000, 0)] {
            assert_eq!(hints.latest(at(0, part)), expected * MILLI, "{part}");
        }
        assert_eq!(hints.latest(at(1, 1)), 0);
        hints.clear();
        assert_eq!(hints.latest(at(0, 1)), 0);
    }

    #[test]
    fn a_hint_is_right_after_a_hundred_years() {
        let hints = Hints::default();
        let now = 100 * 366 * 24 * 3_600_000 * MILLI;
        hints.add(at(3, 1 << 50), now);
        assert_eq!(hints.latest(at(3, (1 << 50) + 9)), now);
    }
}
