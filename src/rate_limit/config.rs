//! The settings that can change while a rate limit runs.

use std::time::Duration;

use crate::{ConfigError, algorithm::Rate};

/// The rate of a limit, its queue, and its use of hints. The fields have the names of the builder's
/// setters.
///
/// ```
/// use tower_keep::rate_limit::{Rate, RateLimitLayer};
///
/// let handle = RateLimitLayer::builder(Rate::per_second(10)).build()?.handle();
/// let mut config = handle.config();
/// config.rate = Rate::per_second(20);
/// config.burst = 5;
/// let changed = handle.update(config)?;
/// assert_eq!(changed.to_string(), "rate_limit: `rate` from 10 per 1s to 20 per 1s, \
///     rate_limit: `burst` from 10 to 5");
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// The units of a period.
    pub rate: Rate,
    /// The units that may be taken at once after a pause. A sliding window has no burst of its own:
    /// there it is the count of the rate. It is 1 for a leaky bucket.
    pub burst: u32,
    /// The longest wait of a call over the limit. `None`: only calls with a deadline wait.
    pub max_wait: Option<Duration>,
    /// The most calls that wait at a time. `None`: 1024.
    pub max_waiting: Option<usize>,
    /// The longest time that a hint closes the limit. `None`: hints are not honored.
    pub honor_retry_after: Option<Duration>,
    /// If true, callers are sent the limit and what is left of it.
    pub advertise: bool,
}

/// The settings of waits, advertising and hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manners {
    pub(crate) max_wait: Option<Duration>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) honor_retry_after: Option<Duration>,
    pub(crate) advertise: bool,
}

impl RateLimitConfig {
    pub(super) fn new((rate, burst): (Rate, u32), manners: Manners) -> Self {
        let Manners {
            max_wait,
            max_waiting,
            honor_retry_after,
            advertise,
        } = manners;
        Self {
            rate,
            burst,
            max_wait,
            max_waiting,
            honor_retry_after,
            advertise,
        }
    }

    pub(super) fn manners(&self) -> Manners {
        Manners {
            max_wait: self.max_wait,
            max_waiting: self.max_waiting,
            honor_retry_after: self.honor_retry_after,
            advertise: self.advertise,
        }
    }

    /// Checks that only rate and burst differ, for a table of keys.
    pub(super) fn only_rate(&self, current: &Self) -> Result<(), ConfigError> {
        let fix = "leave it: a table of keys changes its rate and its burst while it runs";
        if self.max_wait != current.max_wait {
            let wait = self.max_wait.unwrap_or_default();
            return Err(ConfigError::new("max_wait", wait, fix));
        }
        if self.max_waiting != current.max_waiting {
            let waiting = self.max_waiting.unwrap_or_default();
            return Err(ConfigError::new("max_waiting", waiting, fix));
        }
        if self.honor_retry_after != current.honor_retry_after {
            let honored = self.honor_retry_after.unwrap_or_default();
            return Err(ConfigError::new("honor_retry_after", honored, fix));
        }
        match self.advertise == current.advertise {
            true => Ok(()),
            false => Err(ConfigError::new("advertise", self.advertise, fix)),
        }
    }
}

impl Manners {
    /// # Errors
    /// Rejects a bound on waiters if no call can wait.
    pub(super) fn check(&self, deadlines: bool) -> Result<(), ConfigError> {
        match self.max_waiting {
            Some(calls) if self.max_wait.is_none() && !deadlines => {
                let fix = "say how long they may wait with `max_wait`, or leave it";
                Err(ConfigError::new("max_waiting", calls, fix))
            }
            _ => Ok(()),
        }
    }
}
