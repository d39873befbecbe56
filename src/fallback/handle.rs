//! The control surface.

use crate::{fallback::state::State, striped::Striped};

/// Watches a fallback from outside. Cheap to clone.
#[derive(Debug)]
pub struct FallbackHandle {
    state: Striped<State>,
}

/// A fallback at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Failed calls that were answered otherwise, so far.
    pub answered: u64,
    /// Failed calls for which the fallback had an error too, or passed the failure on as one.
    pub failed: u64,
}

impl FallbackHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The fallback as it is now. Costs two loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (answered, failed) = self.state.counts();
        Snapshot { answered, failed }
    }
}

impl Clone for FallbackHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}
