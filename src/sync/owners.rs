//! Numbers that threads own while they live.

use crate::sync::{AtomicU64, Ordering};

/// Up to 64 numbers, each owned by at most one thread at a time.
#[derive(Debug)]
pub(crate) struct Owners {
    /// A bit per number: set while a thread owns it. A thread that takes a number sees every write
    /// of the thread that gave it back.
    owned: AtomicU64,
}

impl Owners {
    #[cfg(not(keep_loom))]
    pub(crate) const fn new() -> Self {
        Self {
            owned: AtomicU64::new(0),
        }
    }

    #[cfg(keep_loom)]
    pub(crate) fn new() -> Self {
        Self {
            owned: AtomicU64::new(0),
        }
    }

    /// Takes a number below `count` that no thread owns.
    pub(crate) fn take(&self, count: u32) -> Option<usize> {
        let mut owned = self.owned.load(Ordering::Relaxed);
        loop {
            let number = owned.trailing_ones();
            if number >= count {
                return None;
            }
            // Acquire: partner of the Release in `give_back`, for the writes of the last owner.
            let taken = owned | 1 << number;
            match self.owned.compare_exchange_weak(
                owned,
                taken,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(number as usize),
                // Another thread has taken or given back a number: try again with the new value.
                Err(now) => owned = now,
            }
        }
    }

    /// Gives a number back.
    pub(crate) fn give_back(&self, number: usize) {
        // Release: partner of the Acquire in `take`.
        self.owned.fetch_and(!(1 << number), Ordering::Release);
    }
}

/// Adds to a counter as its only writer, while others may read it. Costs a load and a store, where
/// threads that share a counter need a locked instruction.
#[inline(always)]
pub(crate) fn add_as_owner(counter: &AtomicU64, count: u64) {
    // Both Relaxed: a statistic. The next owner of the number sees the last store.
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(count), Ordering::Relaxed);
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken() {
        let owners = Owners::new();
        let taken: Vec<_> = (0..4).map(|_| owners.take(3)).collect();
        assert_eq!(taken, [Some(0), Some(1), Some(2), None]);
        owners.give_back(1);
        assert_eq!((owners.take(3), owners.take(3)), (Some(1), None));
    }

    #[test]
    fn sixty_four_numbers_are_owned_at_most() {
        let owners = Owners::new();
        let taken = (0..64).filter_map(|_| owners.take(64)).count();
        assert_eq!((taken, owners.take(64)), (64, None));
    }
}

#[cfg(all(test, keep_loom))]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn no_count_is_lost_when_a_number_changes_hands() {
        loom::model(|| {
            let shared = Arc::new((Owners::new(), AtomicU64::new(0), AtomicU64::new(0)));
            let count = |shared: &(Owners, AtomicU64, AtomicU64)| {
                let (owners, own, of_all) = shared;
                match owners.take(1) {
                    Some(number) => {
                        add_as_owner(own, 1);
                        owners.give_back(number);
                    }
                    None => {
                        of_all.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || count(&shared))
                })
                .collect();
            count(&shared);
            for other in others {
                other.join().unwrap();
            }
            let (_, own, of_all) = &*shared;
            let counted = own.load(Ordering::Relaxed) + of_all.load(Ordering::Relaxed);
            assert_eq!(counted, 3);
        });
    }
}
