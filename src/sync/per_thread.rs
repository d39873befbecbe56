//! A value for each thread, so that threads which write do not contend.

use std::{
    cell::Cell,
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::sync::Padded;

/// One `T` for each thread, on cache lines of its own. Threads beyond their number share one, so a
/// `T` is atomic.
pub(crate) struct PerThread<T>(Box<[Padded<T>]>);

impl<T> PerThread<T> {
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        let slots = (0..stripe_count()).map(|_| Padded(make()));
        Self(slots.collect())
    }

    /// Returns the current thread's.
    #[inline(always)]
    pub(crate) fn here(&self) -> &T {
        &of_thread(&self.0).0
    }

    /// Visits those of all threads, to sum them up.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|slot| &**slot)
    }
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T> fmt::Debug for PerThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerThread").finish_non_exhaustive()
    }
}

/// The current thread's slot of [`stripe_count`].
#[inline(always)]
pub(super) fn of_thread<T>(slots: &[T]) -> &T {
    // A mask, not a remainder: a division costs more than all the rest.
    &slots[current_stripe() & (slots.len() - 1)]
}

/// How many stripes anything striped by thread has: a power of two, at least one for each core, at
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

/// The current thread's number. Take it modulo [`stripe_count`].
#[inline(always)]
pub(crate) fn current_stripe() -> usize {
    // Relaxed: the numbers only have to differ, and `fetch_add` alone gives that.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static CURRENT: Cell<usize> = const { Cell::new(usize::MAX) });
    // A thread that is being torn down has no thread-locals any more. Stripe 0 serves it.
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
