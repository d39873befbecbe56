//! The handle of a fallback.

use crate::{
    fallback::state::{Snapshot, State},
    sync::Striped,
};

/// A handle to watch a fallback. Cheap to clone.
#[derive(Debug)]
pub struct FallbackHandle {
    state: Striped<State>,
}

impl FallbackHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// Returns the fallback's numbers now. Costs five loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }
}

impl Clone for FallbackHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}
