//! Reference counts without contention between threads.
//!
//! A response future must own the state of its layer, so every call takes and drops a reference.
//! With a plain [`Arc`] all threads would write the same count, and that alone would cap a layer at
//! some 40 million calls per second on two threads. Here each thread counts on its own stripe: an
//! `Arc` whose only content is the real one.
//!
//! ```text
//!   layer, service ──▶ [ stripe 0, stripe 1, .. ]      one count, written by clones
//!   future, permit ──▶ stripe k ──▶ value              a count a thread, written by calls
//! ```

use std::{fmt, ops::Deref, sync::Arc};

use crate::sync::{per_thread::of_thread, stripe_count};

/// A shared `T`, for layers and services. It owns all the stripes.
pub(crate) struct Striped<T> {
    /// The stripes, whose number is a power of two.
    stripes: Arc<[Held<T>]>,
}

/// A shared `T`, for objects that live as long as a call.
pub(crate) struct Held<T> {
    stripe: Arc<Stripe<T>>,
}

/// A stripe on its own two cache lines, count included, because processors prefetch lines in pairs.
#[repr(align(128))]
struct Stripe<T> {
    value: Arc<T>,
}

impl<T> Striped<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        let stripe = |_| Held {
            stripe: Arc::new(Stripe {
                value: value.clone(),
            }),
        };
        Self {
            stripes: (0..stripe_count()).map(stripe).collect(),
        }
    }

    /// Returns the value itself, for weak references.
    pub(crate) fn value(&self) -> &Arc<T> {
        &self.stripes[0].stripe.value
    }

    /// Returns the current thread's stripe.
    #[inline(always)]
    pub(crate) fn here(&self) -> &Held<T> {
        of_thread(&self.stripes)
    }

    /// Returns a reference for a call, counted on the current thread's stripe.
    #[inline(always)]
    pub(crate) fn for_call(&self) -> Held<T> {
        self.here().clone()
    }
}

impl<T> Clone for Striped<T> {
    fn clone(&self) -> Self {
        Self {
            stripes: self.stripes.clone(),
        }
    }
}

impl<T> Clone for Held<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self {
            stripe: self.stripe.clone(),
        }
    }
}

impl<T> Deref for Striped<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.stripes[0]
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.stripe.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Striped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    struct CountsDrops(Arc<AtomicUsize>);

    impl Drop for CountsDrops {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_value_is_dropped_once_with_its_last_reference() {
        let drops = Arc::new(AtomicUsize::new(0));
        let first = Striped::new(CountsDrops(drops.clone()));
        let held: Vec<_> = (0..4).map(|_| (first.clone(), first.for_call())).collect();
        let elsewhere = thread::scope(|scope| scope.spawn(|| first.for_call()).join().unwrap());
        drop(first);
        drop(held);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(elsewhere);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn calls_of_a_thread_count_on_one_stripe() {
        let shared = Striped::new(());
        let (first, second) = (shared.for_call(), shared.clone().for_call());
        assert!(Arc::ptr_eq(&first.stripe, &second.stripe));
    }

    #[test]
    fn a_clone_keeps_the_stripes_of_a_dropped_original() {
        let original = Striped::new(());
        let kept = original.clone();
        drop(original);
        let elsewhere = || thread::scope(|scope| scope.spawn(|| kept.for_call()).join().unwrap());
        let here = kept.for_call();
        let same = |other: &Held<()>| Arc::ptr_eq(&here.stripe, &other.stripe);
        // If as many threads call as there are stripes, at most one shares this thread's stripe.
        let shared = (0..stripe_count())
            .map(|_| elsewhere())
            .filter(same)
            .count();
        assert!(stripe_count() == 1 || shared <= 1);
    }
}
