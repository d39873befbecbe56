//! The classes of call results that a window counts.

/// The class of a call's result, as a window counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Success,
    Failure,
    SlowSuccess,
    SlowFailure,
    /// Dropped unfinished. Does not count while other calls are answered.
    Abandoned,
    /// Dropped when it already was slow.
    SlowAbandoned,
    /// Dropped after the head of its response. Counts only as an answer.
    Answered,
}

impl Class {
    pub(crate) fn new(failed: bool, slow: bool) -> Self {
        match (failed, slow) {
            (false, false) => Self::Success,
            (true, false) => Self::Failure,
            (false, true) => Self::SlowSuccess,
            (true, true) => Self::SlowFailure,
        }
    }

    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::SlowFailure)
    }

    pub(crate) fn is_slow(self) -> bool {
        matches!(
            self,
            Self::SlowSuccess | Self::SlowFailure | Self::SlowAbandoned
        )
    }

    /// Returns whether it is part of the failure and slow rates.
    pub(crate) fn is_judged(self) -> bool {
        !matches!(self, Self::Abandoned | Self::Answered)
    }

    pub(crate) fn is_abandoned(self) -> bool {
        matches!(self, Self::Abandoned | Self::SlowAbandoned)
    }
}
