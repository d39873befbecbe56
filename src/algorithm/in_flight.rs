//! A counter of calls in flight that never passes its limit.
//!
//! Entering is a compare-and-swap, not a `fetch_add` that is undone when it went too far: such an
//! excess, however short, makes another caller see a full counter and be rejected falsely.
//!
//! **Guarantee.** At the moment of each admission fewer than `limit` others are in flight.
//! **Cost.** Admitted: a load each of count and limit and one compare-and-swap; rejected: the loads
//! alone; leaving: one subtraction.

use crate::sync::{AtomicUsize, Ordering};

/// Counts what is in flight, up to a limit that may change at any time.
#[derive(Debug)]
pub struct InFlight {
    /// Calls entered and not yet left. It publishes nothing else, so accesses are Relaxed, all but
    /// [`leave`](Self::leave).
    count: AtomicUsize,
    /// The most there may be. Relaxed: an entry that races a change honors one of the two limits.
    limit: AtomicUsize,
}

impl InFlight {
    /// Nothing in flight, at most `limit`; a limit of 0 rejects everything.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        }
    }

    /// Enters, if there is room; then [`leave`](Self::leave) must follow once.
    #[must_use]
    #[inline]
    pub fn enter(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut count = self.count.load(Ordering::Relaxed);
        while count < limit {
            match self.count.compare_exchange_weak(
                count,
                count + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                // Another entered or left; look again whether there is still room.
                Err(current) => count = current,
            }
        }
        false
    }

    /// Gives back what one successful [`enter`](Self::enter) took.
    #[inline]
    pub fn leave(&self) {
        // SeqCst for the wait queue: its load of whether anybody waits, which follows, and the
        // attempt of a call that has just joined must not miss each other. See
        // `WaitQueue::has_waiters_after_leave`. It costs what Relaxed does on x86.
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "left without having entered");
    }

    /// How many are in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The most there may be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit at once. After a cut, nothing is admitted until enough have left.
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
    fn never_more_inside_than_the_limit_and_none_rejected_while_there_is_room() {
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
