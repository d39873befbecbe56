//! Where the time of state begins that several layers may share.

use crate::sync::{AtomicU64, Ordering};

/// A moment that is set once, by the first that asks.
///
/// A layer counts time from its own start. If two layers of different ages share a limit, the older
/// one writes times that are far in the younger one's future, where the limit would stand still
/// until they have come. So what can be shared keeps the moment from which all count, on a clock
/// that they have in common.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// [`UNSET`] at first. Relaxed: nothing is published with it, and who loses the race to set it
    /// reads the winner's.
    moment: AtomicU64,
}

impl Epoch {
    pub(crate) fn unset() -> Self {
        Self {
            moment: AtomicU64::new(UNSET),
        }
    }

    /// The moment; `at`, if there was none so far.
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

    /// How long after it a moment is: nothing, if that is before or there is none.
    pub(crate) fn until(&self, at: u64) -> u64 {
        // Unset is later than all.
        at.saturating_sub(self.moment.load(Ordering::Relaxed))
    }
}

const UNSET: u64 = u64::MAX;
