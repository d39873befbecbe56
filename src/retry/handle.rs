//! The control surface.

use std::sync::Arc;

use crate::{
    Changed, ConfigError,
    observe::trace,
    retry::{
        Policy,
        state::{Snapshot, State},
    },
};

/// Watches and changes a retry from outside. Cheap to clone; it keeps the retry's state alive, not
/// its services.
#[derive(Debug, Clone)]
pub struct RetryHandle {
    state: Arc<State>,
}

impl RetryHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// The retry as it is now. Costs a load for each of its numbers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// How often, and after how long, calls are sent again.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.state.policy()
    }

    /// Changes that, for attempts that fail from now on: start from [`policy`](Self::policy). A
    /// call that began under a policy of one attempt is not retried. A retry that was built as not
    /// enabled stays so.
    ///
    /// # Errors
    /// No attempts.
    pub fn update(&self, policy: Policy) -> Result<Changed, ConfigError> {
        self.check(policy)?;
        let changed = policy.since(&self.state.set_policy(policy));
        trace::updated(("retry", self.state.fixed().name), &changed);
        Ok(changed)
    }

    /// Whether [`update`](Self::update) would accept it.
    pub(crate) fn check(&self, policy: Policy) -> Result<(), ConfigError> {
        policy.check(self.state.fixed().name).map(drop)
    }
}
