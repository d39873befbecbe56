//! A count of queues that tells whether there is anything to look up.

use crate::sync::{AtomicUsize, Ordering, fence};

/// The number of queues of a map: while it is 0, nobody looks into the map.
///
/// A resource may be changed while its first waiter comes. One thread changes the resource and
/// reads the count, the other writes the count and asks the resource. Each could miss the write of
/// the other (store buffering), and the waiter would come at the turn that was forecast for it:
/// late, and not lost. So there is a fence on either side, between the write and the read.
/// Whichever fence comes first, the reads after the other see the write before it.
#[derive(Debug, Default)]
pub(super) struct QueueCount(AtomicUsize);

impl QueueCount {
    /// Returns whether there may be a queue. Relaxed: a caller that comes at the same time as the
    /// first waiter may as well have come before it.
    #[inline]
    pub(super) fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Returns the same after a change of a resource, for which every queue is found that asked the
    /// resource before the change.
    pub(super) fn is_some_after_change(&self) -> bool {
        // Partner of the fence in `added`.
        fence(Ordering::SeqCst);
        self.is_some()
    }

    /// Counts a queue that is in the map. Its waiter asks the resource after that.
    pub(super) fn added(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Partner of the fence in `is_some_after_change`, for the map and the count.
        fence(Ordering::SeqCst);
    }

    /// Counts a queue that is not in the map any more.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the map is not modelled"))]
    pub(super) fn removed(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
