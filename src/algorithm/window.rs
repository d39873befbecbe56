//! Sliding counts of calls, by time.
//!
//! The window is cut into ten buckets. The bucket of a *tick* (a tenth of the window) is word
//! `tick % 10` of a ring. Each word carries the tick and the generation that it counts for. So a
//! word that is found a lap later, or after a state change, is recognised as stale, and is replaced
//! and counted in one compare-and-swap. Nothing rotates or clears the ring: a new generation
//! empties the whole window at no cost.
//!
//! Why not a timer, or a rotation by the first thread in a new tick? Both need a lock, or lose a
//! count between the clearing of a bucket and its first use.
//!
//! Each call is counted in one word, of the ring of its [`Class`], so that no reader sees half of
//! it. Quick successes, which are many, are counted on a stripe of the thread's own. All others,
//! which are few, are counted on rings that all threads share. So reading these alone shows when
//! nothing can trip the breaker.
//!
//! Ticks wrap. A word that was not touched for 2^26 ticks (77 days, for a window of a second) would
//! count as current again. So every 2^24 ticks the first caller sweeps: it empties the words behind
//! the window, so that no word grows so old.
//!
//! **Accuracy.** The window reaches back between nine and ten tenths of its length. A bucket holds
//! 16.7 million counts, and then stays full: too few successes errs towards opening, too few
//! failures towards staying closed.

use std::ops::RangeInclusive;

use crate::{
    algorithm::ticks::{SharedTicks, Ticks},
    sync::{AtomicU64, Ordering, Padded, after_seq_cst_write},
};

pub(crate) use class::Class;
pub use counts::Counts;

mod class;
mod counts;

/// The generation and the tick to which a count belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    generation: u16,
    /// The tick. Wraps, so ticks are compared by signed difference.
    tick: u32,
}

/// The result of counting a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The first of its tick on its ring: the window has moved.
    First,
    Again,
    /// A newer generation has its place, so it is not counted.
    Late,
}

#[derive(Debug)]
pub(crate) struct TimeWindow {
    /// The window's length in nanoseconds. Relaxed: published in the same way as the ticks.
    length: AtomicU64,
    ticks: SharedTicks,
    /// The epoch, of 2^24 ticks, in which words were last swept. Release, partner of the Acquire of
    /// other sweepers: a sweeper that sees the new epoch sees what was counted since, and stops.
    ///
    /// Not modelled by loom: sweeps are days or more apart, and at worst lose counts of the same
    /// moment.
    swept: std::sync::atomic::AtomicU64,
    successes: Box<[Padded<Ring>]>,
    others: Padded<Others>,
}

/// The classes that are counted rarely, and read together.
#[derive(Debug, Default)]
struct Others {
    failures: Ring,
    slow_successes: Ring,
    slow_failures: Ring,
    abandoned: Ring,
    slow_abandoned: Ring,
    answered: Ring,
}

impl TimeWindow {
    /// Creates a window of `length` nanoseconds, at least ten.
    pub(crate) fn new(length: u64, stripes: usize) -> Self {
        Self {
            length: AtomicU64::new(length),
            ticks: SharedTicks::new(ticks(length)),
            swept: std::sync::atomic::AtomicU64::new(0),
            successes: (0..stripes.max(1).next_power_of_two())
                .map(|_| Padded::default())
                .collect(),
            others: Padded::default(),
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// Makes the window longer or shorter. All counts become void: a new generation must follow, as
    /// described at [`SharedTicks`].
    pub(crate) fn set_length(&self, length: u64) {
        self.length.store(length, Ordering::Relaxed);
        self.ticks.set(ticks(length));
        // Epochs of other ticks have other numbers.
        self.swept.store(0, Ordering::Release);
    }

    /// Returns the stamp of `now` and a generation. Only the low 14 bits of the generation count:
    /// two are confused only if 16 384 pass within one window.
    #[expect(clippy::cast_possible_truncation, reason = "both wrap on purpose")]
    #[inline]
    pub(crate) fn stamp(&self, generation: u32, now: u64) -> Stamp {
        let tick = self.ticks.of(now);
        let stamp = Stamp {
            generation: generation as u16 & GENERATION_MASK,
            tick: tick as u32 & TICK_MASK,
        };
        // Relaxed: a late caller notices in the sweep.
        let epoch = tick >> EPOCH_BITS;
        if epoch > self.swept.load(Ordering::Relaxed) {
            self.sweep(stamp, epoch);
        }
        stamp
    }

    /// Empties the words behind the window of this stamp. A word in which a call is counted
    /// meanwhile is a new one, and stays.
    #[cold]
    fn sweep(&self, stamp: Stamp, epoch: u64) {
        let swept = self.swept.load(Ordering::Acquire);
        // Nothing was counted for a whole epoch: tags are ambiguous, and all words are old.
        let all = epoch.saturating_sub(swept) > 1;
        let Others {
            failures,
            slow_successes,
            slow_failures,
            abandoned,
            slow_abandoned,
            answered,
        } = &*self.others;
        let others = [
            failures,
            slow_successes,
            slow_failures,
            abandoned,
            slow_abandoned,
            answered,
        ];
        let rings = self.successes.iter().map(|ring| &**ring).chain(others);
        for slot in rings.flat_map(|ring| &ring.words) {
            let word = slot.load(Ordering::SeqCst);
            // Another sweeper is done, and counts may follow that look as old.
            if self.swept.load(Ordering::Acquire) >= epoch {
                return;
            }
            if all || !VISIBLE.contains(&stamp.ticks_since(Stamp::of(word))) {
                // If this fails, a count or another sweeper was faster.
                let _ = slot.compare_exchange(word, 0, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
        self.swept.fetch_max(epoch, Ordering::Release);
    }

    /// Returns which tenth of a window a moment belongs to, counted from the start.
    pub(crate) fn tick(&self, now: u64) -> u64 {
        self.ticks.of(now)
    }

    /// Counts a call, unless its generation is over, as `is_current` reports.
    pub(crate) fn count(
        &self,
        class: Class,
        stamp: Stamp,
        stripe: usize,
        is_current: impl Fn() -> bool,
    ) -> Counted {
        let ring = match class {
            // A power of two, so that the remainder takes no division.
            Class::Success => &self.successes[stripe & (self.successes.len() - 1)],
            Class::Failure => &self.others.failures,
            Class::SlowSuccess => &self.others.slow_successes,
            Class::SlowFailure => &self.others.slow_failures,
            Class::Abandoned => &self.others.abandoned,
            Class::SlowAbandoned => &self.others.slow_abandoned,
            Class::Answered => &self.others.answered,
        };
        ring.count(stamp, is_current)
    }

    /// Counts a success if its bucket has this tick and generation. Otherwise, or if another thread
    /// counts there too, leaves it to [`count`](Self::count).
    #[inline]
    pub(crate) fn count_success_again(&self, stamp: Stamp, stripe: usize) -> bool {
        self.successes[stripe & (self.successes.len() - 1)].count_again(stamp)
    }

    /// Returns all counts but the quick successes, which are more expensive to sum.
    pub(crate) fn harm(&self, stamp: Stamp, slow_calls: bool) -> Counts {
        let mut harm = Counts {
            failures: self.others.failures.sum(stamp),
            ..Counts::default()
        };
        if slow_calls {
            let others = &self.others;
            let failed = others.slow_failures.sum(stamp);
            harm.successes = others.slow_successes.sum(stamp) + others.slow_abandoned.sum(stamp);
            harm.failures += failed;
            harm.slow = harm.successes + failed;
        }
        harm
    }

    /// Returns the number of abandoned calls, slow or not, or 0 if any call was answered.
    ///
    /// An answer that is counted concurrently may be missed: it counts as later.
    pub(crate) fn only_abandoned(&self, stamp: Stamp) -> u64 {
        let counts = self.counts(stamp);
        let slow = self.others.slow_abandoned.sum(stamp);
        if counts.total() > slow || self.others.answered.sum(stamp) > 0 {
            0
        } else {
            counts.abandoned
        }
    }

    pub(crate) fn quick_successes(&self, stamp: Stamp) -> u64 {
        self.successes.iter().map(|ring| ring.sum(stamp)).sum()
    }

    pub(crate) fn counts(&self, stamp: Stamp) -> Counts {
        let harm = self.harm(stamp, true);
        Counts {
            successes: harm.successes + self.quick_successes(stamp),
            abandoned: self.others.abandoned.sum(stamp) + self.others.slow_abandoned.sum(stamp),
            ..harm
        }
    }
}

fn ticks(length: u64) -> Ticks {
    Ticks::new(length.div_ceil(BUCKETS as u64))
}

impl Stamp {
    fn tag(self) -> u64 {
        u64::from(self.generation) << GENERATION_SHIFT | u64::from(self.tick) << COUNT_BITS
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    fn of(word: u64) -> Self {
        Self {
            generation: (word >> GENERATION_SHIFT) as u16,
            tick: (word >> COUNT_BITS) as u32 & TICK_MASK,
        }
    }

    /// Returns how many ticks `earlier` lies before this stamp, negative if after.
    #[expect(clippy::cast_possible_wrap, reason = "ticks wrap")]
    fn ticks_since(self, earlier: Self) -> i32 {
        // Shifted to the top of the word, so that the sign is that of a 26-bit difference.
        (self.tick.wrapping_sub(earlier.tick) << (32 - TICK_BITS)) as i32 >> (32 - TICK_BITS)
    }

    /// Returns this stamp as one nonzero word.
    pub(crate) fn as_flag(self) -> u64 {
        self.tag() | 1
    }

    /// Returns whether `flag` was made from a stamp of this generation and of this tick or, by a
    /// thread with a later `now`, a newer one.
    pub(crate) fn is_flagged_by(self, flag: u64) -> bool {
        let other = Self::of(flag);
        flag != 0
            && other.generation == self.generation
            && JOINABLE.contains(&self.ticks_since(other))
    }
}

/// Ten counters, each for one tick of one generation.
#[derive(Debug, Default)]
struct Ring {
    /// `generation:14 | tick:26 | count:24`. A word publishes nothing beyond itself. The accesses
    /// are `SeqCst` nevertheless, for the reason given where successes and failures meet, at
    /// `Breaker::cause_in_time`.
    words: [AtomicU64; BUCKETS],
}

impl Ring {
    fn count(&self, stamp: Stamp, is_current: impl Fn() -> bool) -> Counted {
        let slot = &self.words[stamp.tick as usize % BUCKETS];
        let mut word = slot.load(Ordering::SeqCst);
        loop {
            let found = Stamp::of(word);
            // A word of this tick, or of up to 2^16 ticks later, belongs to threads with a `now`
            // like ours: join it. A word of an earlier lap is stale. So is one further ahead, which
            // was not touched since the ticks wrapped.
            let fresh = JOINABLE.contains(&stamp.ticks_since(found));
            let same = found.generation == stamp.generation;
            // The tags cannot show which of two generations is newer: any number may pass before a
            // ring is used again. The breaker's control can. It is read after the word, so it is no
            // older than what the word's writer saw. Nor do ticks show it, which may have another
            // length.
            if !same && !is_current() {
                return Counted::Late;
            }
            let (new, counted) = if !fresh || !same {
                (stamp.tag() | 1, Counted::First)
            } else if word & COUNT_MASK == COUNT_MASK {
                return Counted::Again;
            } else {
                (word + 1, Counted::Again)
            };
            match slot.compare_exchange_weak(word, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    after_seq_cst_write();
                    return counted;
                }
                // Another thread counted, or renewed the word. Decide again on its new value.
                Err(current) => word = current,
            }
        }
    }

    #[inline]
    fn count_again(&self, stamp: Stamp) -> bool {
        let slot = &self.words[stamp.tick as usize % BUCKETS];
        let word = slot.load(Ordering::SeqCst);
        if word & !COUNT_MASK != stamp.tag() || word & COUNT_MASK == COUNT_MASK {
            return false;
        }
        let counted = slot
            .compare_exchange(word, word + 1, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if counted {
            after_seq_cst_write();
        }
        counted
    }

    fn sum(&self, stamp: Stamp) -> u64 {
        let words = self.words.iter().map(|word| word.load(Ordering::SeqCst));
        // Most words count nothing, and need no second look.
        words
            .filter(|word| word & COUNT_MASK > 0 && stamp.sees(Stamp::of(*word)))
            .map(|word| word & COUNT_MASK)
            .sum()
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
const TICK_BITS: u32 = 26;
const TICK_MASK: u32 = (1 << TICK_BITS) - 1;
/// A quarter of the ticks: words that one sweep leaves are less than half of them old at the next.
const EPOCH_BITS: u32 = TICK_BITS - 2;
const GENERATION_SHIFT: u32 = COUNT_BITS + TICK_BITS;
const GENERATION_MASK: u16 = (1 << 14) - 1;
/// The age in ticks at which a word may be added to. It may not be older than the call, but newer,
/// by up to 2^16 ticks (a minute or more).
const JOINABLE: RangeInclusive<i32> = -(1 << 16)..=0;
/// The age in ticks at which a word is in the window.
const VISIBLE: RangeInclusive<i32> = -(1 << 16)..=9;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_one_window_old_has_left() {
        let window = TimeWindow::new(100, 1);
        window.count(Class::Failure, window.stamp(0, 0), 0, || true);
        assert_eq!(window.counts(window.stamp(0, 99)).failures, 1);
        assert_eq!(window.counts(window.stamp(0, 100)).failures, 0);
    }

    #[test]
    fn no_count_comes_back_when_ticks_begin_anew() {
        const LAP: u64 = (1 << TICK_BITS) * 10;
        let classes = [
            Class::Success,
            Class::Failure,
            Class::SlowSuccess,
            Class::SlowFailure,
            Class::Abandoned,
            Class::SlowAbandoned,
            Class::Answered,
        ];
        for class in classes {
            // Untouched, or touched elsewhere now and then. Then found again by a count, or a read.
            for touched in [0, 3, 1000] {
                let window = TimeWindow::new(100, 1);
                for now in 0..100 {
                    window.count(class, window.stamp(0, now), 0, || true);
                }
                for touch in 1..touched {
                    let stamp = window.stamp(0, LAP / touched * touch);
                    window.count(Class::Answered, stamp, 0, || true);
                }
                for later in [LAP, LAP + 55, 2 * LAP, 7 * LAP + 99] {
                    let stamp = window.stamp(0, later);
                    assert_eq!(
                        window.counts(stamp),
                        Counts::default(),
                        "{class:?} {touched}"
                    );
                }
                let last = window.stamp(0, 9 * LAP);
                let counted = window.count_success_again(last, 0);
                assert_eq!(window.counts(last).successes, u64::from(counted));
            }
        }
    }

    #[test]
    fn counts_of_now_survive_the_end_of_an_epoch() {
        for epoch in [1, 2, 3, 77] {
            let window = TimeWindow::new(100, 1);
            let begin = (epoch << EPOCH_BITS) * 10;
            for now in begin - 50..begin + 50 {
                window.count(Class::Failure, window.stamp(0, now), 0, || true);
            }
            assert_eq!(window.counts(window.stamp(0, begin + 49)).failures, 100);
        }
    }

    #[test]
    fn a_new_generation_is_empty_and_shuts_out_the_old() {
        let window = TimeWindow::new(100, 1);
        let (old, new) = (window.stamp(0, 5), window.stamp(1, 5));
        window.count(Class::Success, old, 0, || true);
        assert_eq!(window.quick_successes(new), 0);
        assert_eq!(
            window.count(Class::Success, new, 0, || true),
            Counted::First
        );
        assert_eq!(
            window.count(Class::Success, old, 0, || false),
            Counted::Late
        );
        assert_eq!(window.quick_successes(new), 1);
    }

    /// Regression: a word of generation 0 was taken for a newer one than 128, so a circuit that had
    /// reopened 64 times counted nothing.
    #[test]
    fn a_word_unused_for_many_generations_is_stale() {
        for (generations, later) in (1..=255)
            .chain([8191, 8192, 16_383])
            .flat_map(|count| [(count, 5), (count, 1005)])
        {
            let window = TimeWindow::new(100, 1);
            window.count(Class::Failure, window.stamp(0, 5), 0, || true);
            let stamp = window.stamp(generations, later);
            assert_eq!(
                window.count(Class::Failure, stamp, 0, || true),
                Counted::First
            );
            assert_eq!(window.counts(stamp).failures, 1);
        }
    }

    #[test]
    fn a_full_bucket_stays_full() {
        let ring = Ring::default();
        let stamp = Stamp {
            generation: 3,
            tick: 7,
        };
        ring.words[7].store(stamp.tag() | COUNT_MASK, Ordering::Relaxed);
        assert_eq!(ring.count(stamp, || true), Counted::Again);
        assert_eq!(ring.sum(stamp), COUNT_MASK);
    }

    #[test]
    fn a_word_from_before_the_ticks_wrapped_is_stale() {
        let ring = Ring::default();
        let old = Stamp {
            generation: 0,
            tick: 10,
        };
        ring.count(old, || true);
        let half_a_wrap_later = Stamp {
            generation: 0,
            tick: (10 + (1 << 25)) / 10 * 10,
        };
        assert_eq!(ring.count(half_a_wrap_later, || true), Counted::First);
        assert_eq!(ring.sum(half_a_wrap_later), 1);
    }

    proptest! {
        #[test]
        fn counts_what_a_list_of_events_counts(
            events in prop::collection::vec((0u64..40, 0u32..3, any::<bool>(), any::<bool>(), 0usize..3), 1..300),
        ) {
            let window = TimeWindow::new(100, 2);
            let (mut now, mut generation, mut list) = (0, 0, Vec::new());
            for (step, advance, failed, slow, stripe) in events {
                now += step;
                if advance == 2 {
                    generation += 1;
                    list.clear();
                }
                let stamp = window.stamp(generation, now);
                window.count(Class::new(failed, slow), stamp, stripe, || true);
                list.push((now / 10, failed, slow));
                list.retain(|(tick, ..)| now / 10 - tick < 10);
                let failures = list.iter().filter(|(_, failed, _)| *failed).count() as u64;
                let slow = list.iter().filter(|(.., slow)| *slow).count() as u64;
                let counts = Counts { successes: list.len() as u64 - failures, failures, slow, abandoned: 0 };
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
            ring.count(
                Stamp {
                    generation: 0,
                    tick: 0,
                },
                || true,
            );
            let later = Stamp {
                generation: 0,
                tick: 10,
            };
            let other = ring.clone();
            let thread = thread::spawn(move || other.count(later, || true));
            let here = ring.count(later, || true);
            let there = thread.join().unwrap();
            assert_eq!(ring.sum(later), 2);
            assert_ne!(here, there);
        });
    }

    #[test]
    fn an_old_generation_never_counts_in_a_newer_one() {
        loom::model(|| {
            let ring = Arc::new(Ring::default());
            let (old, new) = (
                Stamp {
                    generation: 0,
                    tick: 0,
                },
                Stamp {
                    generation: 1,
                    tick: 0,
                },
            );
            let other = ring.clone();
            let thread = thread::spawn(move || other.count(old, || false));
            ring.count(new, || true);
            thread.join().unwrap();
            assert_eq!(ring.sum(new), 1);
        });
    }
}
