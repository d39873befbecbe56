//! The handle.

use std::sync::{Arc, LazyLock};

use crate::{
    Changed, ConfigError,
    budget::Purses,
    observe::trace,
    retry::{
        Policy,
        event::Hook,
        state::{Fixed, Snapshot, State},
    },
};

/// Watches and changes a retry from outside. Cheap to clone; it keeps the retry's state alive, not
/// its services.
#[derive(Debug, Clone)]
pub struct RetryHandle {
    state: Arc<State>,
    /// That of a call that has no layer; else it is the state's.
    own: Option<Policy>,
}

impl RetryHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, own: None }
    }

    /// For one call without a layer: with a policy of its own, and without a budget. All of them
    /// are counted together, and nobody reads that.
    pub(crate) fn of_call(policy: Policy) -> Self {
        static STATE: LazyLock<Arc<State>> = LazyLock::new(|| {
            let fixed = Fixed {
                enabled: true,
                retry_rejected: false,
                name: None,
            };
            Arc::new(State::new(
                Policy::default(),
                Purses::unlimited(),
                fixed,
                (None, Hook::default()),
            ))
        });
        Self {
            state: STATE.clone(),
            own: Some(policy),
        }
    }

    #[inline]
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The policy of a call through the layer.
    pub(super) fn policy_of_call(&self) -> Policy {
        self.own.unwrap_or_else(|| self.state.policy())
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

    /// Returns whether [`update`](Self::update) would accept it.
    pub(crate) fn check(&self, policy: Policy) -> Result<(), ConfigError> {
        policy.check(self.state.fixed().name).map(drop)
    }
}
