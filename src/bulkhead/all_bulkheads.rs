//! The bulkheads of all keys within a total, any of which may hold overdue permits of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::queue::Overdue;

#[derive(Debug, Default)]
pub(super) struct AllBulkheads {
    /// Locked to add a bulkhead and to list them.
    bulkheads: Mutex<Vec<Weak<dyn HoldsPlaces>>>,
    /// The earliest moment at which a permit may be overdue. As that of
    /// [`HeldPlaces`](crate::algorithm::HeldPlaces), with `changes` in place of its time.
    due: AtomicU64,
    changes: AtomicU64,
}

/// A bulkhead whose permits may be overdue.
pub(super) trait HoldsPlaces: fmt::Debug + Send + Sync {
    /// Takes overdue permits back, without freeing them for others yet. Returns how many, and the
    /// earliest moment at which more may be overdue.
    fn find_overdue(&self, now: u64) -> (usize, u64);

    /// Frees so many of these permits for others.
    fn leave_all(&self, places: usize);
}

impl AllBulkheads {
    /// Adds a bulkhead, which holds nothing yet.
    pub(super) fn add(&self, bulkhead: Weak<dyn HoldsPlaces>) {
        let mut bulkheads = self
            .bulkheads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Removes those of evicted keys each time that the list would grow.
        if bulkheads.len() == bulkheads.capacity() {
            bulkheads.retain(|bulkhead| bulkhead.strong_count() > 0);
        }
        bulkheads.push(bulkhead);
    }

    /// Returns a copy of the list, because freeing permits admits waiters, which runs user code.
    fn list(&self) -> Vec<Arc<dyn HoldsPlaces>> {
        let bulkheads = self
            .bulkheads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        bulkheads.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Overdue for AllBulkheads {
    fn take_back(&self, now: u64) -> (usize, u64) {
        let due = self.due.load(Ordering::Acquire);
        if now < due {
            return (0, due);
        }
        let changes = self.changes.load(Ordering::Relaxed);
        let bulkheads = self.list();
        let (mut found, mut due) = (Vec::new(), u64::MAX);
        for bulkhead in &bulkheads {
            let (taken, next) = bulkhead.find_overdue(now);
            due = due.min(next);
            if taken > 0 {
                found.push((bulkhead, taken));
            }
        }
        // A change before this swap is seen by the load. Any other change stays in `due`.
        self.due.swap(due, Ordering::AcqRel);
        if self.changes.load(Ordering::Relaxed) != changes {
            self.due.store(0, Ordering::Release);
        }
        // After the swap: freeing permits may call this function again.
        let taken = found.iter().map(|(_, taken)| taken).sum();
        for (bulkhead, taken) in found {
            bulkhead.leave_all(taken);
        }
        (taken, due)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.due.swap(0, Ordering::AcqRel);
    }
}
