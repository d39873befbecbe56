//! The quota of an upstream that a limit follows, and the bounds of that.

use std::{sync::Arc, time::Duration};

use crate::{
    Name,
    algorithm::{All, Followed, Limit, Rate},
    ambient::clock::nanos,
    protocol::Hint,
};

/// One of an upstream's quotas, which a limit [follows](super::RateLimitBuilder::follow).
///
/// ```
/// use std::time::Duration;
/// use tower_keep::rate_limit::{Follow, Rate};
///
/// // Fields that are wrong cost at most ten minutes, and at least one call a second goes on.
/// let longest = Duration::from_secs(600);
/// let follow = Follow::new("tokens").longest(longest).at_least(Rate::per_second(1));
/// # let _ = follow;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Follow {
    quota: &'static str,
    /// In nanoseconds.
    longest: u64,
    /// Time per unit at the lowest rate, in nanoseconds.
    slowest: u64,
}

/// A quota that is followed, as last reported.
#[derive(Debug)]
pub(super) struct Follower {
    follow: Follow,
    limit: Arc<Followed>,
}

impl Follow {
    /// Follows the quota of a name: `requests`, `tokens`, or another name of a [`Hint`].
    #[must_use]
    pub fn new(quota: impl Into<Name>) -> Self {
        Self {
            quota: quota.into().as_str(),
            longest: nanos(HOUR),
            slowest: u64::MAX,
        }
    }

    /// Sets the furthest reset that is believed. A later reset counts as this one. Default: an
    /// hour.
    #[must_use]
    pub fn longest(mut self, reset: Duration) -> Self {
        self.longest = nanos(reset);
        self
    }

    /// Sets a rate that no report slows the limit below. Default: none. A rate of zero units means
    /// none.
    #[must_use]
    pub fn at_least(mut self, rate: Rate) -> Self {
        let share = u128::from(nanos(rate.per())).checked_div(rate.count().into());
        self.slowest = share.map_or(u64::MAX, |share| u64::try_from(share).unwrap_or(u64::MAX));
        self
    }

    pub(super) fn quota(self) -> &'static str {
        self.quota
    }

    /// Reads the report of this quota, in the form that [`Followed::told`] takes.
    pub(super) fn read(self, hint: &Hint) -> Option<(u64, u64, (u64, u64))> {
        let told = hint.quotas.iter().find(|told| told.name == self.quota)?;
        let (remaining, full_in) = (told.remaining?, told.full_in?);
        // Without a reported limit, the remaining units are the only known bound.
        let limit = told.limit.unwrap_or(remaining);
        let full_in = nanos(full_in).min(self.longest);
        Some((limit, remaining, (full_in, self.slowest)))
    }
}

impl Follower {
    /// Combines the own limit with the upstream's. Also returns the follower that receives the
    /// reports.
    pub(super) fn beside(own: impl Limit + 'static, follow: Follow) -> (All, Self) {
        let limit = Arc::new(Followed::new());
        let both = All::new(own).and(limit.clone());
        (both, Self { follow, limit })
    }

    /// Records a report. Returns whether the hint had one for this quota.
    pub(super) fn told(&self, hint: &Hint, now: u64) -> bool {
        let Some((limit, remaining, times)) = self.follow.read(hint) else {
            return false;
        };
        self.limit.told(limit, remaining, times, now);
        true
    }
}

const HOUR: Duration = Duration::from_secs(3600);
