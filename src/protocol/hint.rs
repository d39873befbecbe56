//! The word of an upstream on its own limits.

use std::time::Duration;

/// The word of an upstream, in an answer, on when to come back and on what is left of its quotas.
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
    /// The earliest moment at which the upstream wants to hear of this again. It counts only in an
    /// answer that is a failure or an overload, as a `Retry-After` does.
    pub retry_after: Option<Duration>,
    /// The upstream's quotas that the answer tells of.
    pub quotas: Vec<QuotaHint>,
}

/// One quota of an upstream, as an answer tells it. A rate limit
/// [follows](crate::rate_limit::RateLimitBuilder::follow) it by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaHint {
    /// The name of what is counted: `requests`, `tokens`.
    pub name: &'static str,
    /// The units that there are when the quota is whole.
    pub limit: Option<u64>,
    /// The units that are left.
    pub remaining: Option<u64>,
    /// The time until the quota is whole again. That is not when to come back: a quota that refills
    /// evenly has something again much earlier.
    pub full_in: Option<Duration>,
}

impl Hint {
    /// A hint that says nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets when to come back.
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

    /// Returns whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.retry_after.is_none() && self.quotas.is_empty()
    }
}

impl QuotaHint {
    /// A quota of which nothing is known yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            limit: None,
            remaining: None,
            full_in: None,
        }
    }

    /// Sets how much there is when it is whole.
    #[must_use]
    pub fn limit(mut self, units: u64) -> Self {
        self.limit = Some(units);
        self
    }

    /// Sets how much is left.
    #[must_use]
    pub fn remaining(mut self, units: u64) -> Self {
        self.remaining = Some(units);
        self
    }

    /// Sets how long until it is whole again.
    #[must_use]
    pub fn full_in(mut self, wait: Duration) -> Self {
        self.full_in = Some(wait);
        self
    }
}
