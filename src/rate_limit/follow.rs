//! Which of an upstream's quotas a limit follows, and how far.

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
    /// One unit's share of time at the lowest rate, in nanoseconds.
    slowest: u64,
}

/// A quota that is followed, as it was told so far.
#[derive(Debug)]
pub(super) struct Follower {
    follow: Follow,
    limit: Arc<Followed>,
}

impl Follow {
    /// The quota of a name: `requests`, `tokens`, or another that a
    /// [`Hint`] tells.
    #[must_use]
    pub fn new(quota: impl Into<Name>) -> Self {
        Self {
            quota: quota.into().as_str(),
            longest: nanos(HOUR),
            slowest: u64::MAX,
        }
    }

    /// Sets how far off a reset is believed at most. A later one counts as this. Default: an hour.
    #[must_use]
    pub fn longest(mut self, reset: Duration) -> Self {
        self.longest = nanos(reset);
        self
    }

    /// Sets a rate that the limit is never slowed below, whatever is told. Default: none. A rate of
    /// nothing is none.
    #[must_use]
    pub fn at_least(mut self, rate: Rate) -> Self {
        let share = u128::from(nanos(rate.per())).checked_div(rate.count().into());
        self.slowest = share.map_or(u64::MAX, |share| u64::try_from(share).unwrap_or(u64::MAX));
        self
    }

    pub(super) fn quota(self) -> &'static str {
        self.quota
    }

    /// Reads what is told of its quota, as [`Followed::told`] takes it.
    pub(super) fn read(self, hint: &Hint) -> Option<(u64, u64, (u64, u64))> {
        let told = hint.quotas.iter().find(|told| told.name == self.quota)?;
        let (remaining, full_in) = (told.remaining?, told.full_in?);
        // Without a limit, what is left is all that is known of it.
        let limit = told.limit.unwrap_or(remaining);
        let full_in = nanos(full_in).min(self.longest);
        Some((limit, remaining, (full_in, self.slowest)))
    }
}

impl Follower {
    /// A limit that both its own and the upstream's allow, and what the latter is told by.
    pub(super) fn beside(own: impl Limit + 'static, follow: Follow) -> (All, Self) {
        let limit = Arc::new(Followed::new());
        let both = All::new(own).and(limit.clone());
        (both, Self { follow, limit })
    }

    /// Returns whether anything was told.
    pub(super) fn told(&self, hint: &Hint, now: u64) -> bool {
        let Some((limit, remaining, times)) = self.follow.read(hint) else {
            return false;
        };
        self.limit.told(limit, remaining, times, now);
        true
    }
}

const HOUR: Duration = Duration::from_secs(3600);
