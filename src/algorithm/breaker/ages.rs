//! Counts the calls in flight by age, which shows a hanging upstream before any call has ended.
//!
//! A histogram of starts by tick, where a tick is a quarter of the time after which a call is slow.
//! An admission adds one, an end subtracts one. A call that started five ticks ago or earlier is
//! slow for certain. So a hung call counts after one to one and a quarter times the slow time. The
//! next admission that is the first of its tick on its stripe notices it.
//!
//! A list of calls with their deadlines would need a lock and an allocation per call. This costs
//! two compare-and-swaps on a stripe, and only if slow calls are watched.

use crate::{
    algorithm::{
        breaker::pass::MAX_ROWS,
        ticks::{SharedTicks, Ticks},
    },
    sync::{AtomicU64, Ordering, Padded},
};

#[derive(Debug)]
pub(super) struct Ages {
    ticks: SharedTicks,
    stripes: Box<[Padded<Row>]>,
}

/// The result of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// The first of its tick on its stripe: the caller checks the ages of the others.
    First,
    Again,
    /// An entry that is not counted, because a newer generation or tick has its bucket, or the
    /// bucket is full. Errs towards not noticing a hung call.
    Uncounted,
}

#[derive(Debug, Default)]
struct Row {
    /// `generation:12 | tick:32 | count:20`, where the bucket of a tick is word `tick % 8`. The
    /// breaker's control word shows which generation is newer. It is read after a bucket (Acquire,
    /// partner of the Release in every write).
    buckets: [AtomicU64; BUCKETS],
    /// `generation:12 | count:52`, signed: calls in flight whose bucket has been taken by a tick
    /// one or more laps later. Negative for the moment between taking a bucket and carrying its
    /// count over. Relaxed: only its number matters, and only a thread that has just seen its
    /// generation in a bucket carries calls over.
    carried: AtomicU64,
}

impl Ages {
    pub(super) fn new(slow_after: u64, stripes: usize) -> Self {
        // A pass distinguishes 16 rows. With more stripes two threads share one, if slow calls are
        // watched.
        let stripes = (0..stripes.max(1).next_power_of_two().min(MAX_ROWS))
            .map(|_| Padded::default())
            .collect();
        Self {
            ticks: SharedTicks::new(ticks(slow_after)),
            stripes,
        }
    }

    /// Sets another time after which a call is slow. All entries become void, so a new generation
    /// must follow, as [`SharedTicks`] explains.
    pub(super) fn set_slow_after(&self, slow_after: u64) {
        self.ticks.set(ticks(slow_after));
    }

    /// Returns the row in which a thread's calls are counted.
    pub(super) fn row_of(&self, stripe: usize) -> usize {
        // A power of two, so that the remainder takes no division.
        stripe & (self.stripes.len() - 1)
    }

    /// Enters a call, unless `is_current` shows that its generation has passed.
    pub(super) fn enter(
        &self,
        generation: u32,
        row: usize,
        is_current: impl Fn() -> bool,
        now: u64,
    ) -> Entered {
        self.row(row)
            .enter(low_bits(generation), self.tick(now), is_current)
    }

    /// Removes a call that was entered, and counted, at `started`. Only for calls of the current
    /// generation.
    pub(super) fn leave(&self, generation: u32, row: usize, started: u64) {
        self.row(row)
            .leave(low_bits(generation), self.tick(started));
    }

    /// Returns the number of calls in flight that are slow already.
    pub(super) fn slow(&self, generation: u32, now: u64) -> u64 {
        let (generation, tick) = (low_bits(generation), self.tick(now));
        let sum: i64 = self
            .stripes
            .iter()
            .map(|row| row.slow(generation, tick))
            .sum();
        sum.max(0).unsigned_abs()
    }

    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap")]
    fn tick(&self, now: u64) -> u32 {
        self.ticks.of(now) as u32
    }

    fn row(&self, row: usize) -> &Row {
        &self.stripes[self.row_of(row)]
    }
}

impl Row {
    fn enter(&self, generation: u64, tick: u32, is_current: impl Fn() -> bool) -> Entered {
        let bucket = &self.buckets[tick as usize % BUCKETS];
        let own = generation << GENERATION_SHIFT | u64::from(tick) << COUNT_BITS;
        let mut word = bucket.load(Ordering::Acquire);
        loop {
            let (new, entered) = if word & !COUNT_MASK == own {
                (word + 1, Entered::Again)
            } else if word >> GENERATION_SHIFT == generation {
                if ticks_since(tick, word) < 0 {
                    return Entered::Uncounted;
                }
                (own | 1, Entered::First)
            } else if !is_current() {
                return Entered::Uncounted;
            } else {
                (own | 1, Entered::First)
            };
            if entered == Entered::Again && word & COUNT_MASK == COUNT_MASK {
                return Entered::Uncounted;
            }
            match bucket.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if entered == Entered::First && word >> GENERATION_SHIFT == generation => {
                    self.carry(generation, word & COUNT_MASK);
                    return entered;
                }
                Ok(_) => return entered,
                // Another call entered or left: decide again.
                Err(current) => word = current,
            }
        }
    }

    fn leave(&self, generation: u64, tick: u32) {
        let bucket = &self.buckets[tick as usize % BUCKETS];
        let own = generation << GENERATION_SHIFT | u64::from(tick) << COUNT_BITS;
        let mut word = bucket.load(Ordering::Acquire);
        while word & !COUNT_MASK == own && word & COUNT_MASK > 0 {
            match bucket.compare_exchange_weak(word, word - 1, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                // Another call entered or left, or a later tick has taken the bucket and carries
                // this call over.
                Err(current) => word = current,
            }
        }
        if word >> GENERATION_SHIFT == generation {
            self.carry(generation, CARRIED_MASK);
        }
    }

    /// Adds to the calls carried over, modulo 2^52. The mask itself is minus one.
    fn carry(&self, generation: u64, count: u64) {
        let mut word = self.carried.load(Ordering::Relaxed);
        loop {
            let before = if word >> GENERATION_SHIFT == generation {
                word & CARRIED_MASK
            } else {
                0
            };
            let new = generation << GENERATION_SHIFT | ((before + count) & CARRIED_MASK);
            match self.carried.compare_exchange_weak(
                word,
                new,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                // Other calls were carried over or left: add to that.
                Err(current) => word = current,
            }
        }
    }

    fn slow(&self, generation: u64, tick: u32) -> i64 {
        let words = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let old = |word: &u64| {
            *word >> GENERATION_SHIFT == generation
                && ticks_since(tick, *word) > i64::from(TICKS_UNTIL_SLOW)
        };
        let waiting: u64 = words.filter(old).map(|word| word & COUNT_MASK).sum();
        let carried = self.carried.load(Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_wrap,
            reason = "the shifts extend the sign of 52 bits"
        )]
        let carried = if carried >> GENERATION_SHIFT == generation {
            (carried << 12) as i64 >> 12
        } else {
            0
        };
        carried + i64::try_from(waiting).unwrap_or(i64::MAX)
    }
}

fn ticks(slow_after: u64) -> Ticks {
    Ticks::new(slow_after.div_ceil(TICKS_UNTIL_SLOW.into()))
}

fn low_bits(generation: u32) -> u64 {
    u64::from(generation) & GENERATION_MASK
}

/// Returns by how many ticks the bucket's tick precedes `tick`. Negative if a thread with a later
/// `now` has set it. Ticks wrap: a tick that would be more than 2^16 later is one from long before.
fn ticks_since(tick: u32, word: u64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    let ticks = tick.wrapping_sub((word >> COUNT_BITS) as u32);
    if ticks > u32::MAX - (1 << 16) {
        i64::from(ticks) - (1 << 32)
    } else {
        ticks.into()
    }
}

const BUCKETS: usize = 8;
const TICKS_UNTIL_SLOW: u32 = 4;
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const GENERATION_SHIFT: u32 = 52;
const GENERATION_MASK: u64 = (1 << 12) - 1;
const CARRIED_MASK: u64 = (1 << GENERATION_SHIFT) - 1;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_may_be_a_little_ahead() {
        let since = |tick, of_bucket: u64| ticks_since(tick, of_bucket << COUNT_BITS);
        assert_eq!([since(9, 5), since(5, 5), since(5, 9)], [4, 0, -4]);
        // Ticks wrap.
        assert_eq!([since(1, u32::MAX.into()), since(u32::MAX, 1)], [2, -2]);
    }

    #[test]
    fn a_call_in_flight_for_long_is_slow_until_it_ends() {
        let ages = Ages::new(400, 2);
        ages.enter(0, 0, || true, 50);
        assert_eq!(ages.slow(0, 499), 0);
        assert_eq!(ages.slow(0, 500), 1);
        assert_eq!(ages.slow(0, 1_000_000), 1);
        assert_eq!(ages.slow(1, 500), 0);
        ages.leave(0, 0, 50);
        assert_eq!(ages.slow(0, 500), 0);
    }

    #[test]
    fn an_idle_stripe_counts_again_after_its_ticks_wrap() {
        let ages = Ages::new(4, 1);
        ages.enter(0, 0, || true, 0);
        for later in [1 << 31, (1 << 31) + 8, (1 << 32) - (1 << 17)] {
            assert_eq!(ages.slow(0, later), 1);
            assert_eq!(ages.enter(0, 0, || true, later), Entered::First);
            ages.leave(0, 0, later);
            assert_eq!(ages.slow(0, later), 1);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_starts(
            steps in prop::collection::vec((0u64..90, any::<bool>(), any::<usize>(), 0u32..50), 1..300),
        ) {
            let ages = Ages::new(400, 2);
            let (mut now, mut generation, mut in_flight) = (0, 0, Vec::new());
            for (step, enters, which, advance) in steps {
                now += step;
                if advance == 0 {
                    generation += 1;
                    in_flight.clear();
                }
                if enters {
                    prop_assert_ne!(ages.enter(generation, which % 2, || true, now), Entered::Uncounted);
                    in_flight.push((now, which % 2));
                } else if !in_flight.is_empty() {
                    let (started, stripe) = in_flight.swap_remove(which % in_flight.len());
                    ages.leave(generation, stripe, started);
                }
                // A call is noticed once the whole tick of its start is old enough, or it is
                // carried over, which is later.
                let slow = in_flight.iter().filter(|(started, _)| now / 100 - started / 100 > 4).count() as u64;
                prop_assert_eq!(ages.slow(generation, now), slow);
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_call_that_leaves_a_taken_bucket_is_not_carried() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let ages = Arc::new(Ages::new(4, 1));
            ages.enter(1, 0, || true, 0);
            ages.enter(1, 0, || true, 0);
            let other = ages.clone();
            let thread = thread::spawn(move || other.leave(1, 0, 0));
            ages.enter(1, 0, || true, 8);
            thread.join().unwrap();
            // One of the two early calls is left, and the late one is not slow.
            assert_eq!(ages.slow(1, 8), 1);
        });
    }
}
