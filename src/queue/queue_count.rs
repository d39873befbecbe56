//! A count of queues, which spares a look-up while there are none.

use crate::sync::{AtomicUsize, Ordering, fence};

/// The number of queues in a map: while it is 0, no thread looks into the map.
///
/// A resource may change while its first waiter arrives. One thread changes the resource and reads
/// the count. The other writes the count and asks the resource. Each could miss the write of the
/// other (store buffering), and the waiter would be served only at its forecast turn: late, but not
/// lost. So either side has a fence between its write and its read. Whichever fence comes first,
/// the reads after the other see the write before it.
#[derive(Debug, Default)]
pub(super) struct QueueCount(AtomicUsize);

impl QueueCount {
    /// Returns whether there may be a queue. Relaxed: a caller that arrives at the same time as the
    /// first waiter may count as arriving before it.
    #[inline]
    pub(super) fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Returns whether there may be a queue, after a change of a resource. It finds every queue
    /// that asked the resource before the change.
    pub(super) fn is_some_after_change(&self) -> bool {
        // Partner of the fence in `added`.
        fence(Ordering::SeqCst);
        self.is_some()
    }

    /// Counts a queue that is in the map. Its waiter asks the resource after this call.
    pub(super) fn added(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Partner of the fence in `is_some_after_change`, for the map and the count.
        fence(Ordering::SeqCst);
    }

    /// Counts a queue that was removed from the map.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the map is not modelled"))]
    pub(super) fn removed(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
