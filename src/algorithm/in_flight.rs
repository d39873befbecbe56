//! A counter of calls in flight that never passes its limit.
//!
//! Entering is a compare-and-swap, not a `fetch_add` that is undone when it exceeds the limit. Such
//! an excess, however short, makes another caller see a full counter and be rejected wrongly.
//!
//! **Guarantee.** At the moment of each admission fewer than `limit` other calls are in flight.
//! **Cost.** Admitted: one load each of count and limit, and one compare-and-swap. Rejected: only
//! the loads. Leaving: one subtraction.

use crate::sync::{AtomicUsize, Ordering};

/// A counter of calls in flight, up to a limit that may change at any time.
#[derive(Debug)]
pub struct InFlight {
    /// Calls that have entered and not left. It publishes nothing else, so all accesses are Relaxed
    /// but that of [`leave`](Self::leave).
    count: AtomicUsize,
    /// The most calls in flight. Relaxed: an entry that races a change honors one of the two
    /// limits.
    limit: AtomicUsize,
}

impl InFlight {
    /// Creates a counter with nothing in flight and at most `limit`. A limit of 0 rejects
    /// everything.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        }
    }

    /// Enters, if there is room, and returns whether it did. If so, [`leave`](Self::leave) must
    /// follow once.
    #[must_use]
    #[inline]
    pub fn enter(&self) -> bool {
        self.enter_below(self.limit.load(Ordering::Relaxed))
    }

    /// Enters, if at most `percent` of the limit is then in use, rounded up to a whole call. Calls
    /// that are to be rejected first under pressure use a lower percentage.
    #[must_use]
    #[inline]
    pub fn enter_within(&self, percent: u8) -> bool {
        let (limit, percent) = (self.limit.load(Ordering::Relaxed), usize::from(percent));
        // In two parts, because the product may not fit.
        self.enter_below((limit / 100 * percent) + (limit % 100 * percent).div_ceil(100))
    }

    /// Enters whatever the limit, because another counter has decided. [`leave`](Self::leave) must
    /// follow once.
    #[inline]
    pub fn enter_anyway(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    #[inline(always)]
    fn enter_below(&self, limit: usize) -> bool {
        let mut count = self.count.load(Ordering::Relaxed);
        while count < limit {
            match self.count.compare_exchange_weak(
                count,
                count + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                // Another call entered or left: check again for room.
                Err(current) => count = current,
            }
        }
        false
    }

    /// Gives back what one successful [`enter`](Self::enter) took.
    #[inline]
    pub fn leave(&self) {
        // SeqCst for the wait queue. Its load of the number of waiters, which follows, and the
        // attempt of a call that has just joined must not miss each other. See
        // `WaitQueue::has_waiters_after_leave`. On x86 this costs the same as Relaxed.
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "left without having entered");
    }

    /// Returns the number of calls in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit at once. After a cut, nothing is admitted until enough calls have left.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn after_a_cut_nothing_enters_until_enough_have_left() {
        let counter = InFlight::new(3);
        assert!((0..3).all(|_| counter.enter()));
        counter.set_limit(1);
        counter.leave();
        counter.leave();
        assert!(!counter.enter());
        counter.leave();
        assert!(counter.enter());
    }

    #[test]
    fn a_part_of_the_limit_is_rounded_up() {
        let counter = InFlight::new(3);
        assert!(counter.enter_within(50) && counter.enter_within(50));
        assert!(!counter.enter_within(50));
        assert!(counter.enter_within(100));
        assert!(!counter.enter_within(100));
        counter.enter_anyway();
        assert_eq!(counter.count(), 4);
        let counter = InFlight::new(usize::MAX);
        assert!(counter.enter_within(100) && counter.enter_within(1));
    }

    #[test]
    fn the_largest_limit_works() {
        let counter = InFlight::new(usize::MAX);
        assert!(counter.enter());
        assert_eq!(counter.count(), 1);
    }

    proptest! {
        #[test]
        fn counts_as_a_plain_number_does(steps in prop::collection::vec((0u8..4, 0usize..5), 1..200)) {
            let counter = InFlight::new(2);
            let (mut count, mut limit) = (0, 2);
            for (step, value) in steps {
                match step {
                    0 => { limit = value; counter.set_limit(value); }
                    1 if count > 0 => { count -= 1; counter.leave(); }
                    _ => {
                        let fits = count < limit;
                        prop_assert_eq!(counter.enter(), fits);
                        count += usize::from(fits);
                    }
                }
                prop_assert_eq!(counter.count(), count);
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{
        sync::{Arc, atomic::AtomicUsize},
        thread,
    };

    use super::*;

    #[test]
    fn stays_within_the_limit_without_false_rejections() {
        loom::model(|| {
            let counter = Arc::new(InFlight::new(1));
            let inside = Arc::new(AtomicUsize::new(0));
            let visit = |counter: &InFlight, inside: &AtomicUsize| {
                let entered = counter.enter();
                if entered {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    counter.leave();
                }
                entered
            };
            let (there, theirs) = (counter.clone(), inside.clone());
            let thread = thread::spawn(move || visit(&there, &theirs));
            let here = visit(&counter, &inside);
            assert!(thread.join().unwrap() || here);
            assert_eq!(counter.count(), 0);
            assert!(counter.enter());
        });
    }
}
