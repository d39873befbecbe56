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

    /// Whether an update to this policy would be accepted.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, policy: Policy) -> Result<(), ConfigError> {
        self.state.check(policy).map(drop)
    }

    /// How long a hedge waits at least, after a change to a policy.
    #[cfg(feature = "http")]
    pub(crate) fn delay_after(&self, policy: Option<Policy>) -> Option<std::time::Duration> {
        let policy = policy.unwrap_or_else(|| self.policy());
        self.state.is_enabled().then(|| policy.least_delay())
    }
}
