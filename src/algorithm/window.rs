//! Sliding counts of successes and failures, by time.
//!
//! The window is cut into ten buckets; the bucket of a *tick* (a tenth of the window) is word `tick % 10` of a ring.
//! Each word carries the tick and the generation that it counts for, so a word that is met again a lap later, or after
//! a state change, is recognised as stale and replaced and counted in one compare-and-swap. Nothing rotates the ring
//! and nothing clears it: a new generation empties the whole window at no cost.
//!
//! Why not a timer, or a rotation by whoever comes first in a new tick? Both need a lock, or let a count fall between
//! the clearing of a bucket and its first use.
//!
//! Successes, which are many, are counted on a stripe of the thread's own; failures, which are few, on one ring that
//! all share, so that a look at the failures alone tells that nothing can trip.
//!
//! **Accuracy.** The window reaches back between nine and ten tenths of its length. A bucket holds 16.7 million counts;
//! above, it stays full: too few successes errs towards opening, too few failures towards staying closed.

use std::ops::RangeInclusive;

use crate::{
    algorithm::padded::Padded,
    sync::{AtomicU64, Ordering},
};

/// What a window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed, or met an overloaded peer.
    pub failures: u64,
}

impl Counts {
    /// Successes and failures together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.successes + self.failures
    }

    /// Failures among all, from 0 to 1; 0 for an empty window.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    pub fn failure_rate(&self) -> f64 {
        if self.failures == 0 { 0.0 } else { self.failures as f64 / self.total() as f64 }
    }
}

/// Where in time a count belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    generation: u8,
    /// Wraps; ticks are compared by signed difference.
    tick: u32,
}

/// What became of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The first of its tick on its ring: the window has slid.
    First,
    Again,
    /// A newer generation has its place: not counted.
    Late,
}

#[derive(Debug)]
pub(crate) struct TimeWindow {
    width: u64,
    successes: Box<[Padded<Ring>]>,
    failures: Padded<Ring>,
}

impl TimeWindow {
    /// A window of `length` nanoseconds, at least ten.
    pub(crate) fn new(length: u64, stripes: usize) -> Self {
        let successes = (0..stripes.max(1)).map(|_| Padded::default()).collect();
        Self { width: length.div_ceil(BUCKETS as u64), successes, failures: Padded::default() }
    }

    /// The place of `now` for a generation, of which only the low eight bits tell: two generations are mixed up only
    /// if 128 pass within one tick, or 256 within one window.
    #[expect(clippy::cast_possible_truncation, reason = "both wrap on purpose")]
    pub(crate) fn stamp(&self, generation: u32, now: u64) -> Stamp {
        Stamp { generation: generation as u8, tick: (now / self.width) as u32 }
    }

    pub(crate) fn succeed(&self, stamp: Stamp, stripe: usize) -> Counted {
        self.successes[stripe % self.successes.len()].count(stamp)
    }

    pub(crate) fn fail(&self, stamp: Stamp) -> Counted {
        self.failures.count(stamp)
    }

    pub(crate) fn failures(&self, stamp: Stamp) -> u64 {
        self.failures.sum(stamp)
    }

    pub(crate) fn successes(&self, stamp: Stamp) -> u64 {
        self.successes.iter().map(|ring| ring.sum(stamp)).sum()
    }

    pub(crate) fn counts(&self, stamp: Stamp) -> Counts {
        Counts { successes: self.successes(stamp), failures: self.failures(stamp) }
    }
}

impl Stamp {
    fn tag(self) -> u64 {
        u64::from(self.generation) << 56 | u64::from(self.tick) << COUNT_BITS
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    fn of(word: u64) -> Self {
        Self { generation: (word >> 56) as u8, tick: (word >> COUNT_BITS) as u32 }
    }

    /// How many ticks `earlier` lies before this; negative if after.
    #[expect(clippy::cast_possible_wrap, reason = "ticks wrap")]
    fn ticks_since(self, earlier: Self) -> i32 {
        self.tick.wrapping_sub(earlier.tick) as i32
    }

    /// This stamp as one nonzero word.
    pub(crate) fn as_flag(self) -> u64 {
        self.tag() | 1
    }
}

/// Ten counters, each for one tick of one generation.
#[derive(Debug, Default)]
struct Ring {
    /// `generation:8 | tick:32 | count:24`. A word publishes nothing beyond itself; why the accesses are `SeqCst`
    /// nevertheless is told where successes and failures meet, at `Breaker::evaluate`.
    words: [AtomicU64; BUCKETS],
}

impl Ring {
    fn count(&self, stamp: Stamp) -> Counted {
        let slot = &self.words[stamp.tick as usize % BUCKETS];
        let mut word = slot.load(Ordering::SeqCst);
        loop {
            let found = Stamp::of(word);
            #[expect(clippy::cast_possible_wrap, reason = "generations wrap")]
            let generations_behind = stamp.generation.wrapping_sub(found.generation) as i8;
            // A word of this tick or a few laps ahead belongs to threads with a `now` like ours: join it, or make way
            // for its newer generation. One far ahead has not been met since the ticks wrapped. That and one of an
            // earlier lap are stale whatever their generation, which may seem newer: it too has wrapped if the ring
            // was not met for 128 generations, as happens in a long outage.
            let current = JOINABLE.contains(&stamp.ticks_since(found));
            if current && generations_behind < 0 {
                return Counted::Late;
            }
            let (new, counted) = if !current || generations_behind != 0 {
                (stamp.tag() | 1, Counted::First)
            } else if word & COUNT_MASK == COUNT_MASK {
                return Counted::Again;
            } else {
                (word + 1, Counted::Again)
            };
            match slot.compare_exchange_weak(word, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return counted,
                // Somebody counted, or renewed the word: decide again on what is there now.
                Err(current) => word = current,
            }
        }
    }

    fn sum(&self, stamp: Stamp) -> u64 {
        let words = self.words.iter().map(|word| word.load(Ordering::SeqCst));
        words.filter(|word| stamp.sees(Stamp::of(*word))).map(|word| word & COUNT_MASK).sum()
    }
}

impl Stamp {
    fn sees(self, counted: Self) -> bool {
        self.generation == counted.generation && VISIBLE.contains(&self.ticks_since(counted))
    }
}

const BUCKETS: usize = 10;
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// How many ticks old a word may be to be added to: none, but it may be newer, by up to 2^20 ticks (a day or more).
const JOINABLE: RangeInclusive<i32> = -(1 << 20)..=0;
/// How many ticks old a word may be to be in the window.
const VISIBLE: RangeInclusive<i32> = -(1 << 20)..=9;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_one_window_old_has_left() {
        let window = TimeWindow::new(100, 1);
        window.fail(window.stamp(0, 0));
        assert_eq!(window.failures(window.stamp(0, 99)), 1);
        assert_eq!(window.failures(window.stamp(0, 100)), 0);
    }

    #[test]
    fn a_new_generation_finds_the_window_empty_and_shuts_out_the_old() {
        let window = TimeWindow::new(100, 1);
        let (old, new) = (window.stamp(0, 5), window.stamp(1, 5));
        window.succeed(old, 0);
        assert_eq!(window.successes(new), 0);
        assert_eq!(window.succeed(new, 0), Counted::First);
        assert_eq!(window.succeed(old, 0), Counted::Late);
        assert_eq!(window.successes(new), 1);
    }

    #[test]
    fn a_full_bucket_stays_full() {
        let ring = Ring::default();
        let stamp = Stamp { generation: 3, tick: 7 };
        ring.words[7].store(stamp.tag() | COUNT_MASK, Ordering::Relaxed);
        assert_eq!(ring.count(stamp), Counted::Again);
        assert_eq!(ring.sum(stamp), COUNT_MASK);
    }

    #[test]
    fn a_word_from_before_the_ticks_wrapped_is_stale() {
        let ring = Ring::default();
        let old = Stamp { generation: 0, tick: 10 };
        ring.count(old);
        let half_a_wrap_later = Stamp { generation: 0, tick: 10u32.wrapping_add(1 << 31) / 10 * 10 };
        assert_eq!(ring.count(half_a_wrap_later), Counted::First);
        assert_eq!(ring.sum(half_a_wrap_later), 1);
    }

    proptest! {
        #[test]
        fn counts_what_a_list_of_events_counts(
            events in prop::collection::vec((0u64..40, 0u32..3, any::<bool>(), 0usize..3), 1..300),
        ) {
            let window = TimeWindow::new(100, 2);
            let (mut now, mut generation, mut list) = (0, 0, Vec::new());
            for (step, advance, success, stripe) in events {
                now += step;
                if advance == 2 {
                    generation += 1;
                    list.clear();
                }
                let stamp = window.stamp(generation, now);
                if success { window.succeed(stamp, stripe); } else { window.fail(stamp); }
                list.push((now / 10, success));
                let live = list.iter().filter(|(tick, _)| now / 10 - tick < 10);
                let successes = live.clone().filter(|(_, success)| *success).count() as u64;
                let counts = Counts { successes, failures: live.count() as u64 - successes };
                prop_assert_eq!(window.counts(stamp), counts);
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_word_is_renewed_and_counted_in_one_step() {
        loom::model(|| {
            let ring = Arc::new(Ring::default());
            ring.count(Stamp { generation: 0, tick: 0 });
            let later = Stamp { generation: 0, tick: 10 };
            let other = ring.clone();
            let thread = thread::spawn(move || other.count(later));
            let here = ring.count(later);
            let there = thread.join().unwrap();
            assert_eq!(ring.sum(later), 2);
            assert_ne!(here, there);
        });
    }

    #[test]
    fn an_old_generation_never_counts_in_a_newer_one() {
        loom::model(|| {
            let ring = Arc::new(Ring::default());
            let (old, new) = (Stamp { generation: 0, tick: 0 }, Stamp { generation: 1, tick: 0 });
            let other = ring.clone();
            let thread = thread::spawn(move || other.count(old));
            ring.count(new);
            thread.join().unwrap();
            assert_eq!(ring.sum(new), 1);
        });
    }
}
