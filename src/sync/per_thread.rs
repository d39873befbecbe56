//! Values per thread, so that writing threads do not contend.

use std::{
    cell::Cell,
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use crate::sync::{Owners, Padded, owners::add_as_owner};

/// Counters per thread, on their own cache lines, created when a thread first counts.
///
/// A thread owns a slot while it lives, so that counting is a load and a store. Threads beyond the
/// number of slots share a few more, with locked instructions.
pub(crate) struct PerThread<T> {
    slots: Box<[OnceLock<Box<Padded<T>>>]>,
    size: usize,
    make: fn(usize) -> T,
}

impl<T> PerThread<T> {
    /// Creates the counters, which `make` will create per thread with this size.
    pub(crate) fn new(size: usize, make: fn(usize) -> T) -> Self {
        let slots = own_slots() + SHARED;
        Self {
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            size,
            make,
        }
    }

    /// Adds to a counter.
    #[inline(always)]
    pub(crate) fn add(&self, count: u64, counter: impl FnOnce(&T) -> &AtomicU64) {
        self.add_each(|slot, add| add(counter(slot), count));
    }

    /// Adds to several counters of one slot.
    #[inline(always)]
    pub(crate) fn add_each(&self, counters: impl FnOnce(&T, fn(&AtomicU64, u64))) {
        let slot = ThreadSlot::current();
        let value = match self.slots[slot.number].get() {
            Some(value) => value,
            None => self.first(slot),
        };
        if slot.is_own {
            counters(value, add_as_owner);
        } else {
            counters(value, |counter, count| {
                counter.fetch_add(count, Ordering::Relaxed);
            });
        }
    }

    #[cold]
    fn first(&self, slot: ThreadSlot) -> &T {
        self.slots[slot.number].get_or_init(|| Box::new(Padded((self.make)(self.size))))
    }

    /// Iterates over the counters of all threads, to sum them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let slots = self.slots.iter().filter_map(OnceLock::get);
        slots.map(|slot| &***slot)
    }
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        Self::new(0, |_| T::default())
    }
}

impl<T> fmt::Debug for PerThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerThread").finish_non_exhaustive()
    }
}

/// The index of a thread's counters in each [`PerThread`].
#[derive(Debug, Clone, Copy)]
struct ThreadSlot {
    number: usize,
    /// If true, no other thread writes there.
    is_own: bool,
}

impl ThreadSlot {
    #[inline(always)]
    fn current() -> Self {
        match CURRENT_SLOT.try_with(Cell::get) {
            Ok(current) if current.number != Self::UNKNOWN.number => current,
            _ => Self::first(),
        }
    }

    /// Takes a slot for this thread. Slots are shared by threads that own none. Either there are
    /// more threads than slots, or the thread is exiting and has given its slot back.
    #[cold]
    fn first() -> Self {
        thread_local!(static OWN: OwnSlot = OwnSlot::take());
        let own = OWN.try_with(|own| own.0);
        let slot = own.unwrap_or_else(|_| Self::shared());
        let _ = CURRENT_SLOT.try_with(|current| current.set(slot));
        slot
    }

    fn shared() -> Self {
        Self {
            number: own_slots() + current_stripe() % SHARED,
            is_own: false,
        }
    }

    const UNKNOWN: Self = Self {
        number: usize::MAX,
        is_own: false,
    };
}

thread_local! {
    /// A copy of the thread's slot. Unlike the [`OwnSlot`] it has no destructor, so that it is read
    /// without a check of whether it still exists.
    static CURRENT_SLOT: Cell<ThreadSlot> = const { Cell::new(ThreadSlot::UNKNOWN) };
}

/// An owned slot, given back when the thread ends.
struct OwnSlot(ThreadSlot);

impl OwnSlot {
    fn take() -> Self {
        let count = u32::try_from(own_slots()).unwrap_or(u32::MAX);
        Self(
            OWNERS
                .take(count)
                .map_or_else(ThreadSlot::shared, |number| ThreadSlot {
                    number,
                    is_own: true,
                }),
        )
    }
}

impl Drop for OwnSlot {
    fn drop(&mut self) {
        if self.0.is_own {
            // First, so that the thread no longer counts as the owner.
            let _ = CURRENT_SLOT.try_with(|current| current.set(ThreadSlot::UNKNOWN));
            OWNERS.give_back(self.0.number);
        }
    }
}

static OWNERS: Owners = Owners::new();

/// Returns the number of slots that threads own: two per stripe, since a runtime's workers are not
/// the only threads that make calls.
fn own_slots() -> usize {
    2 * stripe_count()
}

/// The number of slots that all other threads share.
const SHARED: usize = 4;

/// Returns the current thread's element of a slice of [`stripe_count`] elements.
#[inline(always)]
pub(super) fn of_thread<T>(slots: &[T]) -> &T {
    // A mask, not a remainder: a division costs more than all the rest.
    &slots[current_stripe() & (slots.len() - 1)]
}

/// Returns the number of stripes of everything striped by thread. It is a power of two, at least
/// one per core, at most 32.
pub(crate) fn stripe_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        thread::available_parallelism()
            .map_or(1, usize::from)
            .next_power_of_two()
            .min(MAX_STRIPES)
    })
}

/// Returns the current thread's number. Take it modulo [`stripe_count`].
#[inline(always)]
pub(crate) fn current_stripe() -> usize {
    // Relaxed: the numbers only have to differ, and `fetch_add` alone gives that.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static CURRENT: Cell<usize> = const { Cell::new(usize::MAX) });
    // An exiting thread has no thread-locals any more, and uses stripe 0.
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
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn counts_of_threads_that_end_are_kept() {
        let counters = PerThread::<AtomicU64>::default();
        let sum = |counters: &PerThread<AtomicU64>| -> u64 {
            let counts = counters.iter();
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        // First more threads at once than there are slots, then other threads in the same slots.
        for round in 1..=3 {
            let threads = own_slots() + 3;
            let all = Barrier::new(threads);
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        counters.add(1, |count| count);
                        all.wait();
                        (0..1000).for_each(|_| counters.add(1, |count| count));
                    });
                }
            });
            assert_eq!(sum(&counters), round * 1001 * threads as u64);
        }
    }

    #[test]
    fn a_thread_counts_while_it_is_torn_down() {
        static COUNTERS: OnceLock<PerThread<AtomicU64>> = OnceLock::new();
        struct CountsAtTheEnd;
        impl Drop for CountsAtTheEnd {
            fn drop(&mut self) {
                COUNTERS.get().unwrap().add(1, |count| count);
            }
        }
        thread_local!(static LAST: CountsAtTheEnd = const { CountsAtTheEnd });
        let counters = COUNTERS.get_or_init(PerThread::default);
        // Joined, because the end of a scope does not wait for thread-locals.
        let thread = thread::spawn(|| {
            LAST.with(|_| ());
            counters.add(1, |count| count);
        });
        thread.join().unwrap();
        let counts = counters.iter().map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts.sum::<u64>(), 2);
    }

    #[test]
    fn a_slot_is_made_for_the_thread_that_counts() {
        let counters = PerThread::<AtomicU64>::default();
        assert_eq!(counters.iter().count(), 0);
        counters.add(1, |count| count);
        counters.add(1, |count| count);
        assert_eq!(counters.iter().count(), 1);
    }
}
