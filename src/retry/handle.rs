//! What the layer, its services and its handles share.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    algorithm::{Backoff, RetryBudget},
    striped::Held,
};

/// Watches a retry from outside. Cheap to clone; it keeps the retry's state alive, not its
/// services.
#[derive(Debug, Clone)]
pub struct RetryHandle {
    state: Arc<State>,
}

/// A retry at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Attempts beyond the first that were made, so far.
    pub retries: u64,
    /// Retries that the budget did not pay for, so far.
    pub over_budget: u64,
    /// How many retries the budget would pay for; `None` without a budget.
    pub budget: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) max_retry_after: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    policy: Policy,
    budget: Option<Arc<RetryBudget>>,
    /// Relaxed, both: statistics.
    retries: AtomicU64,
    over_budget: AtomicU64,
}

/// What the services of one application of the layer share.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) state: Arc<State>,
    /// A clone of the inner service, never called, from which those that need to retry take theirs:
    /// most calls succeed at once, and are spared a clone of all that lies beneath. Locked by those
    /// alone.
    prototype: Mutex<S>,
}

/// A call's hold on what is shared, and on the token of a retry that has not been sent yet.
#[derive(Debug)]
pub(super) struct Account<S> {
    shared: Held<Shared<S>>,
    token: Token,
}

/// What has become of the budget's token for the latest retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// None was needed.
    None,
    /// Taken for a retry that has not been sent: dropped, it goes back.
    Reserved,
    /// The retry was sent. It goes back only if a layer further in turned the retry away.
    Spent,
}

impl RetryHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// The retry as it is now. Costs three loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            retries: self.state.retries.load(Ordering::Relaxed),
            over_budget: self.state.over_budget.load(Ordering::Relaxed),
            budget: self.state.budget.as_ref().map(|budget| budget.available()),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(10),
        }
    }
}

impl State {
    pub(super) fn new(policy: Policy, budget: Option<Arc<RetryBudget>>) -> Self {
        Self {
            policy,
            budget,
            retries: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
        }
    }

    /// Whether it is worth keeping a request.
    #[inline]
    pub(super) fn may_retry(&self) -> bool {
        self.policy.attempts > 1
            && self
                .budget
                .as_ref()
                .is_none_or(|budget| budget.available() > 0)
    }
}

impl<S> Shared<S> {
    pub(super) fn new(state: Arc<State>, prototype: S) -> Self {
        Self {
            state,
            prototype: Mutex::new(prototype),
        }
    }
}

impl<S> Account<S> {
    pub(super) fn new(shared: Held<Shared<S>>) -> Self {
        Self {
            shared,
            token: Token::None,
        }
    }

    pub(super) fn policy(&self) -> Policy {
        self.shared.state.policy
    }

    /// A service for the retries of one call, not yet asked for readiness.
    pub(super) fn service(&self) -> S
    where
        S: Clone,
    {
        self.shared
            .prototype
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    #[inline]
    pub(super) fn deposit(&self) {
        if let Some(budget) = &self.shared.state.budget {
            budget.deposit();
        }
    }

    /// Takes a token for a retry, if there is one.
    pub(super) fn reserve(&mut self) -> bool {
        let Some(budget) = &self.shared.state.budget else {
            return true;
        };
        let granted = budget.withdraw();
        self.token = if granted {
            Token::Reserved
        } else {
            Token::None
        };
        if !granted {
            self.shared
                .state
                .over_budget
                .fetch_add(1, Ordering::Relaxed);
        }
        granted
    }

    /// The next retry needs no token.
    pub(super) fn ride_free(&mut self) {
        self.token = Token::None;
    }

    /// The retry is being sent, whether or not a token paid for it.
    pub(super) fn send(&mut self) {
        if self.token == Token::Reserved {
            self.token = Token::Spent;
        }
        self.shared.state.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// The retry is not sent after all.
    pub(super) fn release(&mut self) {
        self.give_back(Token::Reserved);
    }

    /// The attempt never reached the peer.
    pub(super) fn turned_away(&mut self) {
        self.give_back(Token::Spent);
    }

    fn give_back(&mut self, token: Token) {
        if let (true, Some(budget)) = (self.token == token, &self.shared.state.budget) {
            self.token = Token::None;
            budget.refund();
        }
    }
}

impl<S> Drop for Account<S> {
    fn drop(&mut self) {
        self.release();
    }
}
