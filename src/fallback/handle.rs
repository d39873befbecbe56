//! The handle.

use crate::{
    fallback::state::{Snapshot, State},
    sync::Striped,
};

/// Watches a fallback from outside. Cheap to clone.
#[derive(Debug)]
pub struct FallbackHandle {
    state: Striped<State>,
}

impl FallbackHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The fallback as it is now. Costs five loads.
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
