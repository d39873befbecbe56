//! The counts of a window.

/// The counts of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counts {
    /// Calls that did not fail: those that succeeded, and those that were dropped when they already
    /// were slow.
    pub successes: u64,
    /// Calls that failed, or whose upstream was overloaded.
    pub failures: u64,
    /// Calls of either kind that were slow.
    pub slow: u64,
    /// Calls that were dropped unfinished, unless they count as failures. Those that already were
    /// slow also count above. In a window of calls, only those since the last answered call.
    pub abandoned: u64,
}

impl Counts {
    /// Returns successes and failures together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.successes + self.failures
    }

    /// Returns the share of failures, from 0 to 1. Returns 0 for an empty window.
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        self.share(self.failures)
    }

    /// Returns the share of slow calls, from 0 to 1. Returns 0 for an empty window.
    #[must_use]
    pub fn slow_rate(&self) -> f64 {
        self.share(self.slow)
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    fn share(&self, part: u64) -> f64 {
        if part == 0 {
            0.0
        } else {
            part as f64 / self.total() as f64
        }
    }
}
