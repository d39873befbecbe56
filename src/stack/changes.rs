//! Changes of a stack's settings.

use std::time::Duration;

use super::changing::RateChange;
#[cfg(feature = "serde")]
use crate::rate_limit::Manners;
use crate::{
    algorithm::{BreakerConfig, throttle::ThrottleConfig},
    hedge::HedgeConfig,
    rate_limit::Rate,
    retry::RetryConfig,
};

/// Settings to change in a running stack, all at once. Other settings stay.
///
/// ```
/// # use std::time::Duration;
/// use tower_keep::stack::{self, Changes};
///
/// let handle = stack::client().http().max_in_flight(100).build()?.handle();
/// let changes = Changes::new().attempt_timeout(Duration::from_secs(1)).max_in_flight(20);
/// let changed = handle.update(changes)?;
/// assert_eq!(changed.to_string(), "bulkhead: `max_in_flight` from 100 to 20, \
///     timeout: `attempt_timeout` from 3s to 1s");
///
/// // Longer than the total timeout, so not even one attempt would end.
/// let error = handle.update(Changes::new().attempt_timeout(Duration::from_secs(60))).unwrap_err();
/// assert_eq!(error.field, "total_timeout");
/// assert_eq!(handle.snapshot().attempt_timeout.duration, Duration::from_secs(1));
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes {
    pub(super) total_timeout: Option<Duration>,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) rate: RateChange,
    pub(super) max_in_flight: Option<usize>,
    pub(super) retry: Option<RetryConfig>,
    pub(super) hedge: Option<Option<HedgeConfig>>,
    pub(super) circuit_breaker: Option<BreakerConfig>,
    pub(super) throttle: Option<ThrottleConfig>,
}

impl Changes {
    /// Returns these changes, followed by others.
    pub(super) fn then(&self, later: &Self) -> Self {
        Self {
            total_timeout: later.total_timeout.or(self.total_timeout),
            attempt_timeout: later.attempt_timeout.or(self.attempt_timeout),
            rate: if later.rate.on.is_some() {
                later.rate
            } else {
                self.rate
            },
            max_in_flight: later.max_in_flight.or(self.max_in_flight),
            retry: later.retry.or(self.retry),
            hedge: later.hedge.or(self.hedge),
            circuit_breaker: later.circuit_breaker.or(self.circuit_breaker),
            throttle: later.throttle.or(self.throttle),
        }
    }

    /// Makes an empty set of changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a call may take: in a client with all its attempts.
    #[must_use]
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = Some(timeout);
        self
    }

    /// Sets how long one attempt may take. Servers have no attempts.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets the rate, and how many calls may arrive at once after a pause. A stack without a rate
    /// gets one: it begins with a full burst, and calls in flight are not counted. A rate that was
    /// removed continues with its former state.
    ///
    /// ```
    /// use tower_keep::{rate_limit::Rate, stack::{self, Changes}};
    ///
    /// let handle = stack::client().http().build()?.handle();
    /// let changed = handle.update(Changes::new().rate(Rate::per_second(50), 10))?;
    /// assert_eq!(changed.to_string(), "rate_limit: `rate` from off to 50 per 1s, \
    ///     rate_limit: `burst` from off to 10");
    /// assert_eq!(handle.snapshot().rate_limit.unwrap().burst, 10);
    /// handle.update(Changes::new().without_rate())?;
    /// assert!(handle.snapshot().rate_limit.is_none());
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// A limit on calls in flight that `build` would have derived from a rate is not derived from
    /// this one: set [`max_in_flight`](Self::max_in_flight) too.
    #[must_use]
    pub fn rate(mut self, rate: Rate, burst: u32) -> Self {
        self.rate.on = Some(true);
        self.rate.quota = Some((rate, burst));
        self
    }

    /// Removes the rate, also one that was set by its own builder, unless it is keyed. Calls that
    /// wait for it are admitted at once.
    #[must_use]
    pub fn without_rate(mut self) -> Self {
        self.rate = RateChange {
            on: Some(false),
            ..RateChange::default()
        };
        self
    }

    /// Sets a rate as a file has it.
    #[cfg(feature = "serde")]
    pub(crate) fn rate_of_file(
        mut self,
        quota: Option<(Rate, u32)>,
        manners: Option<Manners>,
        on: Option<bool>,
    ) -> Self {
        self.rate = RateChange { on, quota, manners };
        self
    }

    /// Sets how many calls may be in flight. A client's limit is for each host. It may be a first
    /// limit: calls already in flight count at once. Only for stacks that were not built without a
    /// bulkhead.
    #[must_use]
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = Some(calls);
        self
    }

    /// Removes the limit on calls in flight. Queued calls are admitted at once. Calls are still
    /// counted, for a later limit. Only for clients: a server needs a limit.
    #[must_use]
    pub fn without_max_in_flight(mut self) -> Self {
        self.max_in_flight = Some(usize::MAX);
        self
    }

    /// Sets the retries: start from the handle's `retry.config()`. Servers have none.
    #[must_use]
    pub fn retry(mut self, config: RetryConfig) -> Self {
        self.retry = Some(config);
        self
    }

    /// Sets the hedge: start from its handle's `config()`. Only for stacks that were built with
    /// [one](super::ClientBuilder::hedge), switched off or not. It is on afterwards.
    #[must_use]
    pub fn hedge(mut self, config: HedgeConfig) -> Self {
        self.hedge = Some(Some(config));
        self
    }

    /// Removes the hedge: no call is sent again from now on. A [`hedge`](Self::hedge) adds it
    /// again.
    #[must_use]
    pub fn without_hedge(mut self) -> Self {
        self.hedge = Some(None);
        self
    }

    /// Leaves the hedge unchanged, whether it is off or absent.
    #[cfg(feature = "serde")]
    pub(crate) fn with_hedge_as_it_is(mut self) -> Self {
        self.hedge = None;
        self
    }

    /// Sets the throttles, also future ones: start from their handle's `shared().config()`. Only
    /// for stacks with throttles.
    #[must_use]
    pub fn throttle(mut self, config: ThrottleConfig) -> Self {
        self.throttle = Some(config);
        self
    }

    /// Sets the circuits, also future ones: start from the handle's
    /// `circuit_breaker.shared().config()`. Servers have none.
    #[must_use]
    pub fn circuit_breaker(mut self, config: BreakerConfig) -> Self {
        self.circuit_breaker = Some(config);
        self
    }
}
