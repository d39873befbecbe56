//! A reference-counted handle whose count is not a contended write.
//!
//! A response future must own the state of its layer, so every call takes and drops one reference. With a plain
//! [`Arc`] all threads would write that one count, and the count alone would cap a layer at some 40 million calls a
//! second on two threads. Here each thread counts on a stripe of its own: an `Arc` that does nothing but own the
//! real one.
//!
//! ```text
//!   layer, handle ──anchor──▶ [ stripe 0, stripe 1, .. ]      (keeps all stripes alive)
//!   service, future ────────────────▶ stripe k ──▶ root { value, weak links to all stripes }
//! ```
//!
//! The links from the root to the stripes are weak, or nothing would ever be freed; the anchor keeps them
//! upgradable. When every anchor has gone and a stripe has died, a clone falls back to the stripe that it came from:
//! slower under contention, never wrong.

use std::{
    cell::Cell,
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// A handle to a shared `T`. `clone()` counts on the current thread's stripe; [`anchored`](Self::anchored) makes a
/// long-lived one that also keeps all the stripes.
pub(crate) struct Striped<T> {
    local: Arc<Stripe<T>>,
    anchor: Option<Arc<[Arc<Stripe<T>>]>>,
}

/// On cache lines of its own, count included: two lines, because neighbours are prefetched in pairs.
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
        let root = Arc::new(Root { value, stripes: OnceLock::new() });
        let anchor: Arc<[_]> = (0..stripe_count()).map(|_| Arc::new(Stripe { root: root.clone() })).collect();
        root.stripes.get_or_init(|| anchor.iter().map(Arc::downgrade).collect());
        Self { local: anchor[0].clone(), anchor: Some(anchor) }
    }

    /// A clone that keeps the stripes alive if this one does: for layers, handles and the services that a layer makes.
    pub(crate) fn anchored(&self) -> Self {
        Self { local: self.local.clone(), anchor: self.anchor.clone() }
    }

    #[cfg(test)]
    fn shares_its_count_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.local, &other.local)
    }
}

impl<T> Clone for Striped<T> {
    #[inline]
    fn clone(&self) -> Self {
        // A mask, not a remainder: the number is a power of two, and a division costs more than all the rest.
        let stripes = self.local.root.stripes.get();
        let own = stripes.and_then(|stripes| stripes.get(current_stripe() & (stripes.len() - 1))?.upgrade());
        Self { local: own.unwrap_or_else(|| self.local.clone()), anchor: None }
    }
}

impl<T> Deref for Striped<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.local.root.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Striped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

/// How many stripes anything striped by thread has: a power of two, one or more for each core, at most 32.
pub(crate) fn stripe_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(1, usize::from).next_power_of_two().min(MAX_STRIPES))
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
        let handles: Vec<_> = (0..4).map(|_| first.clone()).collect();
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
        let here = first.clone();
        let there = thread::scope(|scope| scope.spawn(|| here.clone()).join().unwrap());
        let back = there.clone();
        assert!(back.shares_its_count_with(&here));
    }

    #[test]
    fn without_an_anchor_a_clone_still_reaches_the_value() {
        let first = Striped::new(7);
        let orphan = thread::scope(|scope| scope.spawn(|| first.clone()).join().unwrap());
        drop(first);
        assert_eq!(*orphan.clone(), 7);
    }
}
