//! A reference-counted handle whose count is not a contended write.
//!
//! A response future must own the state of its layer, so every call takes and drops one reference.
//! With a plain [`Arc`] all threads would write that one count, and the count alone would cap a
//! layer at some 40 million calls a second on two threads. Here each thread counts on a stripe of
//! its own: an `Arc` that does nothing but own the real one.
//!
//! ```text
//!   layer, handle, service ──anchor──▶ [ stripe 0, stripe 1, .. ]      (keeps all stripes alive)
//!   future, permit ───────────────────▶ stripe k ──▶ root { value, weak links to all stripes }
//! ```
//!
//! The links from the root to the stripes are weak, or nothing would ever be freed; the anchor
//! keeps them upgradable. Services are anchored too, at the price of one shared count for each
//! clone of a service, or a client whose original was dropped would lose its stripes for all the
//! calls of its clones. When every anchor has gone and a stripe has died, a call's handle falls
//! back to the stripe that it came from: slower under contention, never wrong.

use std::{
    cell::Cell,
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering, fence},
    },
    thread,
};

/// A handle to a shared `T`, for what lives long: it keeps all the stripes.
pub(crate) struct Striped<T> {
    held: Held<T>,
    /// `None` for a value with a single count.
    anchor: Option<Arc<[Held<T>]>>,
}

/// A handle to a shared `T`, for what lives as long as a call. Made by
/// [`for_call`](Self::for_call), which writes nothing that threads share.
pub(crate) struct Held<T> {
    stripe: Arc<Stripe<T>>,
}

/// On cache lines of its own, count included: two lines, because neighbours are prefetched in
/// pairs.
#[repr(align(128))]
struct Stripe<T> {
    root: Arc<Root<T>>,
}

struct Root<T> {
    value: T,
    stripes: OnceLock<Box<[Weak<Stripe<T>>]>>,
}

impl<T> Striped<T> {
    pub(crate) fn new(value: T) -> Self {
        let root = Arc::new(Root {
            value,
            stripes: OnceLock::new(),
        });
        let anchor: Arc<[_]> = (0..stripe_count())
            .map(|_| Held {
                stripe: Arc::new(Stripe { root: root.clone() }),
            })
            .collect();
        root.stripes.get_or_init(|| {
            anchor
                .iter()
                .map(|held| Arc::downgrade(&held.stripe))
                .collect()
        });
        Self {
            held: anchor[0].for_call(),
            anchor: Some(anchor),
        }
    }
}

impl<T> Held<T> {
    /// With a single count: for values of which there are many, each little contended.
    pub(crate) fn single(value: T) -> Self {
        let root = Arc::new(Root {
            value,
            stripes: OnceLock::new(),
        });
        Self {
            stripe: Arc::new(Stripe { root }),
        }
    }

    /// How many hold a [`single`](Self::single) value.
    pub(crate) fn holders(&self) -> usize {
        let count = Arc::strong_count(&self.stripe);
        // Pairs with the Release of a drop: what those who held it have done with it is seen.
        fence(Ordering::Acquire);
        count
    }

    /// Another hold, counted on the current thread's stripe, which keeps the value alive but not
    /// the other stripes.
    #[inline]
    pub(crate) fn for_call(&self) -> Self {
        // A mask, not a remainder: the number is a power of two, and a division costs more than all
        // the rest.
        let stripes = self.stripe.root.stripes.get();
        let own = stripes.and_then(|stripes| {
            stripes
                .get(current_stripe() & (stripes.len() - 1))?
                .upgrade()
        });
        Self {
            stripe: own.unwrap_or_else(|| self.stripe.clone()),
        }
    }

    #[cfg(test)]
    fn shares_its_count_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stripe, &other.stripe)
    }
}

impl<T> Clone for Striped<T> {
    fn clone(&self) -> Self {
        Self {
            held: self.held.for_call(),
            anchor: self.anchor.clone(),
        }
    }
}

impl<T> From<Held<T>> for Striped<T> {
    fn from(held: Held<T>) -> Self {
        Self { held, anchor: None }
    }
}

impl<T> Deref for Striped<T> {
    type Target = Held<T>;

    #[inline]
    fn deref(&self) -> &Held<T> {
        &self.held
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.stripe.root.value
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

/// How many stripes anything striped by thread has: a power of two, one or more for each core, at
/// most 32.
pub(crate) fn stripe_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        thread::available_parallelism()
            .map_or(1, usize::from)
            .next_power_of_two()
            .min(MAX_STRIPES)
    })
}

/// The current thread's number; take it modulo [`stripe_count`].
#[inline]
pub(crate) fn current_stripe() -> usize {
    // Relaxed: only the numbers' being different matters, and `fetch_add` alone gives that.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static CURRENT: Cell<usize> = const { Cell::new(usize::MAX) });
    // A thread that is being torn down has no thread-locals any more; stripe 0 serves it.
    CURRENT
        .try_with(|current| {
            if current.get() == usize::MAX {
                current.set(NEXT.fetch_add(1, Ordering::Relaxed));
            }
            current.get()
        })
        .unwrap_or(0)
}

const MAX_STRIPES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    struct SetOnDrop(Arc<AtomicUsize>);

    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_value_is_dropped_once_with_its_last_handle() {
        let drops = Arc::new(AtomicUsize::new(0));
        let first = Striped::new(SetOnDrop(drops.clone()));
        let handles: Vec<_> = (0..4).map(|_| (first.clone(), first.for_call())).collect();
        let elsewhere = thread::scope(|scope| scope.spawn(|| first.clone()).join().unwrap());
        drop(first);
        drop(handles);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(elsewhere);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_clone_counts_on_its_own_threads_stripe_while_an_anchor_lives() {
        let first = Striped::new(());
        let here = first.for_call();
        let there = thread::scope(|scope| scope.spawn(|| here.for_call()).join().unwrap());
        let back = there.for_call();
        assert!(back.shares_its_count_with(&here));
    }

    #[test]
    fn a_clone_keeps_the_stripes_when_the_original_is_dropped() {
        if stripe_count() == 1 {
            return;
        }
        let original = Striped::new(());
        let kept = original.clone();
        drop(original);
        let elsewhere = |striped: &Held<()>| {
            thread::scope(|scope| scope.spawn(|| striped.for_call()).join().unwrap())
        };
        // Of as many threads as there are stripes, at most one shares ours.
        let others = (0..stripe_count()).map(|_| elsewhere(&kept));
        assert!(
            others
                .filter(|other| other.shares_its_count_with(&kept))
                .count()
                <= 1
        );
    }

    #[test]
    fn without_an_anchor_a_clone_still_reaches_the_value() {
        let first = Striped::new(7);
        let orphan = thread::scope(|scope| scope.spawn(|| first.for_call()).join().unwrap());
        drop(first);
        assert_eq!(*orphan.for_call(), 7);
    }
}
