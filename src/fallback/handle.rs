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
    /// Failed calls that the closure answered with `Ok`, so far: a failing response that it passed
    /// on is among them.
    pub answered: u64,
    /// Failed calls that the closure answered with an error, so far.
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
