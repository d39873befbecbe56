//! A token of a budget, for an attempt beyond the first.

use std::sync::Arc;

use crate::{algorithm::Budget, ambient::clock::Clock};

/// A budget's token for another attempt. Dropped before the retry was sent, it goes back.
#[derive(Debug)]
pub(crate) struct Token {
    budget: Option<Arc<Budget>>,
    sent: bool,
}

impl Token {
    /// One that costs nothing.
    pub(crate) fn free() -> Self {
        Self {
            budget: None,
            sent: false,
        }
    }

    /// A call begins that the budget may pay for.
    pub(crate) fn begin_call(budget: &Budget) {
        budget.called(budget_now(budget));
    }

    /// One of `budget`'s, if it has one. `counted`: whether the failure was, or there was none.
    pub(crate) fn take(budget: &Arc<Budget>, counted: bool) -> Option<Self> {
        let now = budget_now(budget);
        let taken = if counted {
            budget.withdraw_counted(now)
        } else {
            budget.withdraw(now)
        };
        taken.then(|| Self {
            budget: Some(budget.clone()),
            sent: false,
        })
    }

    /// The attempt is sent: the token is spent, unless a layer beneath rejects it.
    pub(crate) fn send(&mut self) {
        self.sent = true;
    }

    /// The attempt never reached the upstream: the token goes back at once.
    pub(crate) fn give_back(&mut self) {
        if let Some(budget) = self.budget.take() {
            budget.refund(budget_now(&budget));
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.sent {
            self.give_back();
        }
    }
}

/// The time as a budget needs it, by a clock that all layers have in common: they may share it. 0
/// for those that need none.
#[inline]
pub(super) fn budget_now(budget: &Budget) -> u64 {
    if budget.reads_time() {
        Clock::common().now()
    } else {
        0
    }
}
