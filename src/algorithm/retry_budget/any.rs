//! One type for all budgets.

use super::{RetryBudget, RetryThrottle, WindowedBudget};

/// Any of the budgets. A retry and a hedge withdraw from it, and may share it.
///
/// ```
/// use std::sync::Arc;
/// use tower_keep::algorithm::{Budget, RetryBudget};
///
/// let shared: Arc<Budget> = RetryBudget::new(10, 0.1)?.into();
/// assert!(shared.withdraw(0));
/// assert_eq!(shared.available(0), 9);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Budget {
    /// A budget that successes fund.
    Funded(RetryBudget),
    /// A budget that calls and time fund, and whose tokens fade.
    Windowed(WindowedBudget),
    /// A throttle that grants retries only while few calls fail.
    Throttle(RetryThrottle),
}

impl Budget {
    /// Returns whether `now` matters. If not, skip reading the clock and pass 0.
    #[inline]
    #[must_use]
    pub fn reads_time(&self) -> bool {
        matches!(self, Self::Windowed(_))
    }

    /// Records the start of a call. Its retries and hedges are not calls of their own.
    #[inline]
    pub fn called(&self, now: u64) {
        if let Self::Windowed(budget) = self {
            budget.deposit(now);
        }
    }

    /// Returns whether it would pay for a retry of a call that starts now, and is not yet
    /// [recorded](Self::called).
    #[inline]
    #[must_use]
    pub fn pays_for_call(&self, now: u64) -> bool {
        match self {
            Self::Windowed(budget) => budget.available_to_call(now) > 0,
            Self::Funded(_) | Self::Throttle(_) => self.available(now) > 0,
        }
    }

    /// Records that an attempt succeeded.
    #[inline]
    pub fn succeeded(&self) {
        match self {
            Self::Funded(budget) => budget.deposit(),
            Self::Throttle(throttle) => throttle.deposit(),
            Self::Windowed(_) => {}
        }
    }

    /// Records that an attempt failed and that no retry is wanted.
    #[inline]
    pub fn failed(&self) {
        if let Self::Throttle(throttle) = self {
            throttle.fail();
        }
    }

    /// Takes the cost of one retry, if it is available. After a failed attempt, call this instead
    /// of [`failed`](Self::failed).
    #[must_use]
    pub fn withdraw(&self, now: u64) -> bool {
        match self {
            Self::Funded(budget) => budget.withdraw(),
            Self::Windowed(budget) => budget.withdraw(now),
            Self::Throttle(throttle) => throttle.withdraw(),
        }
    }

    /// Takes the cost of a retry without counting a failure, because it is [recorded](Self::failed)
    /// already, or because there was none, as before a hedge. A throttle takes tokens for failures
    /// alone, so it only checks that it is above half.
    #[must_use]
    pub fn withdraw_counted(&self, now: u64) -> bool {
        match self {
            Self::Throttle(throttle) => throttle.is_above_half(),
            Self::Funded(_) | Self::Windowed(_) => self.withdraw(now),
        }
    }

    /// Removes old tokens of a [`RetryBudget`]: see [`RetryBudget::expire`]. The other budgets have
    /// rules of their own.
    pub fn expire(&self, successes: u64, now: u64) {
        if let Self::Funded(budget) = self {
            budget.expire(successes, now);
        }
    }

    /// Gives back the cost of a retry that was never sent. A throttle takes tokens for the failure
    /// and not for the retry, so it gives nothing back.
    pub fn refund(&self, now: u64) {
        match self {
            Self::Funded(budget) => budget.refund(),
            Self::Windowed(budget) => budget.refund(now),
            Self::Throttle(_) => {}
        }
    }

    /// Returns the settings that bound it, by their names in metrics.
    #[cfg(feature = "layers")]
    pub(crate) fn settings(&self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Funded(budget) => budget.settings().to_vec(),
            Self::Windowed(budget) => budget.settings().to_vec(),
            Self::Throttle(throttle) => throttle.settings().to_vec(),
        }
    }

    /// Returns how many retries in a row it would pay for now.
    #[inline]
    #[must_use]
    pub fn available(&self, now: u64) -> u32 {
        match self {
            Self::Funded(budget) => budget.available(),
            Self::Windowed(budget) => budget.available(now),
            Self::Throttle(throttle) => throttle.available(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::Funded(RetryBudget::default())
    }
}

impl From<RetryBudget> for Budget {
    fn from(budget: RetryBudget) -> Self {
        Self::Funded(budget)
    }
}

impl From<WindowedBudget> for Budget {
    fn from(budget: WindowedBudget) -> Self {
        Self::Windowed(budget)
    }
}

impl From<RetryThrottle> for Budget {
    fn from(throttle: RetryThrottle) -> Self {
        Self::Throttle(throttle)
    }
}

// Not generic: a layer takes a budget of its own as well as a shared one.
impl From<RetryBudget> for std::sync::Arc<Budget> {
    fn from(budget: RetryBudget) -> Self {
        Self::new(budget.into())
    }
}

impl From<WindowedBudget> for std::sync::Arc<Budget> {
    fn from(budget: WindowedBudget) -> Self {
        Self::new(budget.into())
    }
}

impl From<RetryThrottle> for std::sync::Arc<Budget> {
    fn from(throttle: RetryThrottle) -> Self {
        Self::new(throttle.into())
    }
}
