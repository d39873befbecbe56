//! The start of time for state that several layers may share.

use crate::sync::{AtomicU64, Ordering};

/// A moment that is set once, by the first layer that begins.
///
/// A layer counts time from its own start. If two layers of different ages share a limit, the older
/// one writes times that are far in the younger one's future. For the younger one the limit would
/// not refill until then. So state that can be shared keeps the moment from which all layers count,
/// on a clock that they have in common.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// The moment, or [`UNSET`]. Relaxed: nothing is published with it, and the loser of the race
    /// to set it uses the winner's value.
    moment: AtomicU64,
}

impl Epoch {
    pub(crate) fn unset() -> Self {
        Self {
            moment: AtomicU64::new(UNSET),
        }
    }

    /// Returns the moment, which becomes `at` if it was unset.
    pub(crate) fn begin(&self, at: u64) -> u64 {
        let relaxed = Ordering::Relaxed;
        match self.moment.load(relaxed) {
            UNSET => self
                .moment
                .compare_exchange(UNSET, at, relaxed, relaxed)
                .map_or_else(|first| first, |_| at),
            moment => moment,
        }
    }

    /// Returns how long after the moment `at` is, or 0 if it is before, or if the moment is unset.
    pub(crate) fn until(&self, at: u64) -> u64 {
        // Unset is later than any time.
        at.saturating_sub(self.moment.load(Ordering::Relaxed))
    }
}

const UNSET: u64 = u64::MAX;
