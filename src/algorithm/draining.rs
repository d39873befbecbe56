//! Draining: counts the calls in flight, and closes to new ones.
//!
//! A waiter for the last call must not miss one that entered just before the close. A counter and a
//! flag that are read one after the other would miss it. The call reads the flag, the waiter closes
//! and reads a count of zero, and then the call enters. So a call counts itself first and then
//! reads the flag, and the waiter closes first and then reads the count. At least one of them sees
//! the other: the store buffer pattern of Dekker's algorithm.
//!
//! **Guarantee.** Once [`close`](Draining::close) has returned and
//! [`in_flight`](Draining::in_flight) was 0, no call is in flight and none will enter. **Cost.** A
//! call writes twice to the counter of its own stripe, which other threads rarely write to.

use crate::sync::{AtomicBool, AtomicUsize, Ordering, Padded, after_seq_cst_write};

/// A counter of calls in flight, on stripes, which can be closed to new calls.
#[derive(Debug)]
pub struct Draining {
    /// Calls that have entered on a stripe and not left, and, for a moment, calls that are leaving
    /// again because it is closed. `SeqCst` with `closed`: see the module.
    stripes: Box<[Padded<AtomicUsize>]>,
    closed: AtomicBool,
}

impl Draining {
    /// Creates an open counter with nothing in flight. More stripes mean less contention between
    /// threads.
    #[must_use]
    pub fn new(stripes: usize) -> Self {
        let stripe = |_| Padded(AtomicUsize::new(0));
        Self {
            // A power of two, so that the remainder takes no division.
            stripes: (0..stripes.next_power_of_two()).map(stripe).collect(),
            closed: AtomicBool::new(false),
        }
    }

    /// Enters, unless it is closed. Returns the stripe, on which [`leave`](Self::leave) must follow
    /// once. `hint` may be any number, and spreads threads over the stripes.
    #[must_use]
    #[inline]
    pub fn enter(&self, hint: usize) -> Option<usize> {
        let stripe = hint & (self.stripes.len() - 1);
        self.stripes[stripe].fetch_add(1, Ordering::SeqCst);
        after_seq_cst_write();
        if self.closed.load(Ordering::SeqCst) {
            self.leave(stripe);
            return None;
        }
        Some(stripe)
    }

    /// Leaves a stripe. Returns whether it is closed, so that a waiter may have to be woken.
    #[inline]
    pub fn leave(&self, stripe: usize) -> bool {
        let before = self.stripes[stripe].fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "left without having entered");
        after_seq_cst_write();
        self.closed.load(Ordering::SeqCst)
    }

    /// Closes to new calls. Calls in flight stay.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        after_seq_cst_write();
    }

    /// Opens to new calls again.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// Returns whether it is closed.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Returns the number of calls in flight. While the counter is open this is only a statistic.
    /// Once it is closed, 0 is final.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let stripes = self.stripes.iter();
        stripes.map(|stripe| stripe.load(Ordering::SeqCst)).sum()
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_closed_counter_lets_no_call_in() {
        let calls = Draining::new(2);
        let (first, second) = (calls.enter(0).unwrap(), calls.enter(3).unwrap());
        assert_eq!((first, second, calls.in_flight()), (0, 1, 2));
        assert!(!calls.leave(first), "nobody waits for it");
        calls.close();
        assert_eq!(calls.enter(0), None);
        assert_eq!(calls.in_flight(), 1);
        assert!(calls.leave(second));
        assert_eq!(calls.in_flight(), 0);
        calls.open();
        assert!(calls.enter(7).is_some());
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn zero_after_closing_means_that_no_call_is_within() {
        loom::model(|| {
            let calls = Arc::new(Draining::new(2));
            let other = calls.clone();
            let thread = thread::spawn(move || other.enter(1));
            calls.close();
            let seen = calls.in_flight();
            let entered = thread.join().unwrap();
            assert!(seen > 0 || entered.is_none(), "a call was missed");
        });
    }

    #[test]
    fn the_last_call_wakes_or_is_seen_to_have_left() {
        loom::model(|| {
            let calls = Arc::new(Draining::new(1));
            let stripe = calls.enter(0).unwrap();
            let other = calls.clone();
            let thread = thread::spawn(move || other.leave(stripe));
            calls.close();
            let seen = calls.in_flight();
            let wakes = thread.join().unwrap();
            assert!(seen == 0 || wakes, "nothing would wake the waiter");
        });
    }
}
