//! A queue per key that has waiters.
//!
//! One queue for all keys would let a key over its limit block keys below theirs. So a queue is
//! created when the first call of a key has to wait, and removed when the last has left. The mutex
//! orders these two. A call of a key without waiters reads one word, or does one look-up in a map
//! that readers do not write to.
#![cfg(not(keep_loom))]

use std::{
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use papaya::{HashMap, ResizeMode};

use super::{Bounds, Resource, Ticket, WaitQueue, queue_count::QueueCount};
use crate::ambient::chance::Hashing;

pub(crate) struct QueuesByKey<K> {
    queues: HashMap<K, Arc<WaitQueue>, Hashing>,
    /// The number of queues, which spares newcomers a look-up while it is 0.
    count: QueueCount,
    /// The number of tickets, over all keys. Relaxed: a bound that a race may exceed by one.
    waiting: AtomicUsize,
    /// Held to create or remove a queue.
    changing: Mutex<()>,
}

impl<K: Hash + Eq> Default for QueuesByKey<K> {
    fn default() -> Self {
        let queues = HashMap::builder()
            .hasher(Hashing::new())
            .resize_mode(ResizeMode::Blocking)
            .build();
        Self {
            queues,
            count: QueueCount::default(),
            waiting: AtomicUsize::new(0),
            changing: Mutex::new(()),
        }
    }
}

impl<K: Hash + Eq + Copy> QueuesByKey<K> {
    /// Returns the queue of a key, if it has waiters.
    #[inline]
    pub(crate) fn find(&self, key: K) -> Option<Arc<WaitQueue>> {
        self.look_up(key, self.count.is_some())
    }

    /// Notifies the key's queue of a change of the key's limit. Called if no queue was found before
    /// the change: the first waiter may have arrived since, and asked the limit too early.
    pub(crate) fn changed(&self, key: K, resource: &dyn Resource, now: impl FnOnce() -> u64) {
        if let Some(queue) = self.look_up(key, self.count.is_some_after_change()) {
            queue.notify(resource, now);
        }
    }

    #[inline]
    fn look_up(&self, key: K, any: bool) -> Option<Arc<WaitQueue>> {
        any.then(|| self.queues.pin().get(&key).cloned()).flatten()
    }

    /// Returns whether a key has waiters.
    #[inline]
    pub(crate) fn has_waiters(&self, key: K) -> bool {
        self.find(key).is_some_and(|queue| !queue.is_empty())
    }

    /// Joins the key's queue, which is created if there is none. At most `max_total` calls wait in
    /// all queues.
    ///
    /// # Errors
    /// As [`WaitQueue::join`].
    pub(crate) fn join(
        &self,
        key: K,
        resource: &dyn Resource,
        units: u32,
        (bounds, max_total): (Bounds, usize),
        now: u64,
    ) -> Result<(Arc<WaitQueue>, Ticket), Option<u64>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = self.queues.pin();
        if self.waiting() >= max_total {
            return Err(resource.ready_in(units, 0, now));
        }
        if let Some(queue) = queues.get(&key) {
            let ticket = queue.join(resource, units, bounds, now)?;
            self.waiting.fetch_add(1, Ordering::Relaxed);
            return Ok((queue.clone(), ticket));
        }
        let queue = Arc::new(WaitQueue::default());
        let ticket = queue.join(resource, units, bounds, now)?;
        queues.insert(key, queue.clone());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The first poll of the ticket asks the limit.
        self.count.added();
        Ok((queue, ticket))
    }

    /// Counts a ticket of the key's queue that has come back, and removes the queue if that was the
    /// last. Called once per ticket.
    pub(crate) fn left(&self, key: K, queue: &WaitQueue) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if !queue.is_empty() || !queue.is_unused() {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = self.queues.pin();
        // Another thread may have joined the queue meanwhile. Or another may have removed it, and a
        // third created a new one.
        let unused = queues.get(&key).is_some_and(|queue| queue.is_unused());
        if unused && queues.remove(&key).is_some() {
            self.count.removed();
        }
    }

    /// Returns all keys that have waiters.
    pub(crate) fn all(&self) -> Vec<(K, Arc<WaitQueue>)> {
        self.queues
            .pin()
            .iter()
            .map(|(key, queue)| (*key, queue.clone()))
            .collect()
    }

    /// Returns the number of waiters of all keys.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.queues.len()
    }
}

impl<K> fmt::Debug for QueuesByKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuesByKey")
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Blocked, ONE_CLASS};

    /// A resource without free units.
    struct Full;

    impl Resource for Full {
        fn acquire(&self, _: u32, _: u64, _: u64) -> Result<(), Blocked> {
            Err(Blocked::UntilRelease)
        }

        fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
            None
        }

        fn give_back(&self, _: u32, _: u64) {}
    }

    const BOUNDS: Bounds = Bounds {
        until: u64::MAX,
        grace: 0,
        max_waiting: 2,
        class: ONE_CLASS,
    };

    #[test]
    fn a_queue_is_forgotten_with_its_last_waiter() {
        let queues = QueuesByKey::<u64>::default();
        let join = |key| queues.join(key, &Full, 1, (BOUNDS, 3), 0);
        let leave = |key, (queue, ticket): (Arc<WaitQueue>, Ticket)| {
            queue.cancel(&Full, &ticket, 0);
            queues.left(key, &queue);
        };
        let (first, second, other) = (join(1), join(1), join(2));
        assert!(join(3).is_err(), "as many wait as may");
        assert_eq!((queues.waiting(), queues.count()), (3, 2));
        leave(1, first.unwrap());
        assert!(queues.has_waiters(1) && queues.find(3).is_none());
        leave(1, second.unwrap());
        assert!(queues.find(1).is_none() && queues.has_waiters(2));
        assert!(queues.count.is_some());
        leave(2, other.unwrap());
        assert_eq!((queues.waiting(), queues.count()), (0, 0));
        assert!(!queues.count.is_some(), "nobody looks for one");
    }
}
