//! The control surface.

use std::sync::Arc;

use crate::{
    ConfigError,
    retry::{Policy, state::State},
};

/// Watches and changes a retry from outside. Cheap to clone; it keeps the retry's state alive, not
/// its services.
#[derive(Debug, Clone)]
pub struct RetryHandle {
    state: Arc<State>,
}

/// A retry at one moment.
///
/// Every call that has ended is in one of the totals from `first_try` on. Calls that were dropped
/// before their end are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many retries the budget would pay for; `None` without a budget.
    pub budget: Option<u32>,
    /// Attempts beyond the first that were sent, so far.
    pub retries: u64,
    /// Calls that succeeded at once.
    pub first_try: u64,
    /// Calls that succeeded after a retry.
    pub recovered: u64,
    /// Calls that failed in each of the attempts that are allowed.
    pub exhausted: u64,
    /// Calls that failed while the budget was empty.
    pub budget_denied: u64,
    /// Calls that ended with a result that is not retried, or not for that request.
    pub not_retryable: u64,
    /// Calls that failed and could not be sent again: the body was too long to keep or still in
    /// use, or the protocol kept nothing of the request.
    pub not_replayable: u64,
    /// Calls that ended with a rejection of a layer beneath.
    pub rejected: u64,
    /// Calls that failed and whose retry could not be sent: it would have come after the deadline
    /// or the longest `Retry-After`, or the inner service did not become ready.
    pub not_sent: u64,
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

    /// Changes that, for attempts that fail from now on, and returns what it was. A call that began
    /// under a policy of one attempt is not retried. A retry that was built as not enabled stays
    /// so.
    ///
    /// # Errors
    /// No attempts.
    pub fn update(&self, policy: Policy) -> Result<Policy, ConfigError> {
        let policy = policy.check(self.state.fixed().name)?;
        Ok(self.state.set_policy(policy))
    }
}
