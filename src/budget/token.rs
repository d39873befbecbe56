//! A budget's token for an attempt beyond the first.

use std::sync::Arc;

use crate::{algorithm::Budget, ambient::clock::Clock};

/// A budget's token for another attempt. If dropped before the attempt was sent, it goes back.
#[derive(Debug)]
pub(crate) struct Token {
    budget: Option<Arc<Budget>>,
    sent: bool,
}

impl Token {
    /// Makes a token that costs nothing.
    pub(crate) fn free() -> Self {
        Self {
            budget: None,
            sent: false,
        }
    }

    /// Counts the start of a call for which the budget may pay.
    pub(crate) fn begin_call(budget: &Budget) {
        budget.called(budget_now(budget));
    }

    /// Takes a token of `budget`, if it has one. `counted` is true if the failure was already
    /// counted, or if there was none.
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

    /// Marks the attempt as sent: the token is spent, unless a layer beneath rejects the attempt.
    pub(crate) fn send(&mut self) {
        self.sent = true;
    }

    /// Returns the token at once: the attempt never reached the upstream.
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

/// Returns the time for a budget, by a clock common to all layers, because they may share the
/// budget. 0 for budgets that read no time.
#[inline]
pub(super) fn budget_now(budget: &Budget) -> u64 {
    if budget.reads_time() {
        Clock::common().now()
    } else {
        0
    }
}
