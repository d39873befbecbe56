//! The handle.

use std::sync::Arc;

use crate::{
    Changed, ConfigError,
    hedge::{
        Policy,
        state::{Snapshot, State},
    },
};

/// Watches and changes a hedge from outside. Cheap to clone; it keeps the hedge's state alive, not
/// its services.
#[derive(Debug, Clone)]
pub struct HedgeHandle {
    state: Arc<State>,
}

impl HedgeHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    #[inline]
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The hedge as it is now. Costs a load for each of its numbers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// When, and how often, calls are hedged.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.state.policy()
    }

    /// Changes that at once, for hedges that are not due yet: start from
    /// [`policy`](Self::policy).
    ///
    /// # Errors
    /// What [`build`](super::HedgeBuilder::build) would reject. Nothing has changed then.
    pub fn update(&self, policy: Policy) -> Result<Changed, ConfigError> {
        self.state.update(policy)
    }
}
