//! An upstream's report of its own limits.

use std::time::Duration;

/// An upstream's report, in a response, of when to come back and of what is left of its quotas.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::protocol::{Hint, QuotaHint};
///
/// let minute = Duration::from_secs(60);
/// let tokens = QuotaHint::new("tokens").limit(80_000).remaining(0).full_in(minute);
/// let hint = Hint::new().quota(tokens);
/// assert_eq!(hint.quotas[0].name, "tokens");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hint {
    /// The earliest time of the next call that the upstream wants. It counts only in a response
    /// that is a failure or an overload, like a `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The upstream's quotas that the response reports.
    pub quotas: Vec<QuotaHint>,
}

/// One quota of an upstream, as a response reports it. A rate limit
/// [follows](crate::rate_limit::RateLimitBuilder::follow) it by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaHint {
    /// The name of the unit: `requests`, `tokens`.
    pub name: &'static str,
    /// The units of the full quota.
    pub limit: Option<u64>,
    /// The units that are left.
    pub remaining: Option<u64>,
    /// The time until the quota is full again. It is not the time to come back: a quota that
    /// refills evenly has units again much earlier.
    pub full_in: Option<Duration>,
}

impl Hint {
    /// Creates an empty hint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds a quota.
    #[must_use]
    pub fn quota(mut self, quota: QuotaHint) -> Self {
        self.quotas.push(quota);
        self
    }

    /// Returns whether the hint is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.retry_after.is_none() && self.quotas.is_empty()
    }
}

impl QuotaHint {
    /// Creates a quota with nothing reported yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            limit: None,
            remaining: None,
            full_in: None,
        }
    }

    /// Sets the units of the full quota.
    #[must_use]
    pub fn limit(mut self, units: u64) -> Self {
        self.limit = Some(units);
        self
    }

    /// Sets the units that are left.
    #[must_use]
    pub fn remaining(mut self, units: u64) -> Self {
        self.remaining = Some(units);
        self
    }

    /// Sets the time until the quota is full again.
    #[must_use]
    pub fn full_in(mut self, wait: Duration) -> Self {
        self.full_in = Some(wait);
        self
    }
}
