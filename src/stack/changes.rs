//! Changes while a stack runs.

use std::{hash::Hash, time::Duration};

use super::{ClientHandle, ServerHandle, check::Times, handle::Enabled};
use crate::{
    Changed, ConfigError,
    algorithm::{BreakerConfig, Window, throttle::ThrottleConfig},
    bulkhead::{BulkheadHandle, KeyedBulkheadHandle},
    hedge::HedgeConfig,
    rate_limit::{KeyedRateLimitHandle, PerKeyRateLimitHandle, Rate, RateLimitHandle},
    retry::RetryConfig,
    throttle::KeyedThrottleHandle,
};

/// Settings to change in a running stack, all at once. What is not set stays.
///
/// ```
/// # use std::{hash::Hash, time::Duration};
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
    total_timeout: Option<Duration>,
    attempt_timeout: Option<Duration>,
    rate: Option<(Rate, u32)>,
    max_in_flight: Option<usize>,
    retry: Option<RetryConfig>,
    hedge: Option<HedgeConfig>,
    circuit_breaker: Option<BreakerConfig>,
    throttle: Option<ThrottleConfig>,
}

impl Changes {
    /// Changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a call may take: of a client with all its attempts, of a server at all.
    #[must_use]
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = Some(timeout);
        self
    }

    /// Sets how long one attempt may take. Servers have none.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// The rate, and how many calls may come at once after a pause. Only for stacks that were built
    /// with a rate.
    #[must_use]
    pub fn rate(mut self, rate: Rate, burst: u32) -> Self {
        self.rate = Some((rate, burst));
        self
    }

    /// Sets how many calls may be in flight. A client's limit is for each host, and there need not
    /// have been one before. Only for stacks that were not built without a bulkhead.
    #[must_use]
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = Some(calls);
        self
    }

    /// The retries: start from the handle's `retry.config()`. Servers have none.
    #[must_use]
    pub fn retry(mut self, config: RetryConfig) -> Self {
        self.retry = Some(config);
        self
    }

    /// The hedge: start from its handle's `config()`. Only for stacks that hedge.
    #[must_use]
    pub fn hedge(mut self, config: HedgeConfig) -> Self {
        self.hedge = Some(config);
        self
    }

    /// The throttles, those to come included: start from their handle's `shared().config()`. Only
    /// for stacks with one.
    #[must_use]
    pub fn throttle(mut self, config: ThrottleConfig) -> Self {
        self.throttle = Some(config);
        self
    }

    /// The circuits, those to come included: start from the handle's
    /// `circuit_breaker.shared().config()`. Servers have none.
    #[must_use]
    pub fn circuit_breaker(mut self, config: BreakerConfig) -> Self {
        self.circuit_breaker = Some(config);
        self
    }
}

impl<L: ChangesRate, B: ChangesLimit> ClientHandle<L, B> {
    /// Changes settings, each part's checked as by `build`, and against the others'. What calls
    /// hold stays; a part that a call comes to from now on has the new settings. Returns what has
    /// changed.
    ///
    /// # Errors
    /// What `build` would reject; a rate where there is none. Nothing has changed then.
    pub fn update(&self, changes: Changes) -> Result<Changed, ConfigError> {
        // Two updates at once, each right by itself, could contradict each other.
        let _updating = self.updating.lock();
        self.check(&changes)?;
        // The only part that is asked by changing it: a limit may be of the user's own making.
        let mut changed = match changes.rate {
            Some((rate, burst)) => self.rate_limit.change_rate(rate, burst, self.name)?,
            None => Changed::default(),
        };
        if let Some(timeout) = changes.total_timeout {
            let total = self.total_timeout.update(timeout)?;
            changed = changed.and(total.named("total_timeout"));
        }
        if let Some(config) = changes.retry {
            changed = changed.and(self.retry.update(config)?);
        }
        if let (Some(hedge), Some(config)) = (&self.hedge, changes.hedge) {
            changed = changed.and(hedge.update(config)?);
        }
        if let Some(config) = changes.circuit_breaker {
            changed = changed.and(self.circuit_breaker.update(config)?);
        }
        if let (Some(throttle), Some(config)) = (&self.throttle, changes.throttle) {
            changed = changed.and(throttle.update(config)?);
        }
        if let Some(calls) = changes.max_in_flight {
            changed = changed.and(self.bulkhead.change_limit(calls)?);
        }
        if let Some(timeout) = changes.attempt_timeout {
            let attempt = self.attempt_timeout.update(timeout)?;
            changed = changed.and(attempt.named("attempt_timeout"));
        }
        Ok(changed)
    }

    /// All that can be known before anything is changed: each part, and each against the others.
    fn check(&self, changes: &Changes) -> Result<(), ConfigError> {
        let or_nothing = |checked: Option<_>| checked.unwrap_or(Ok(()));
        let in_flight = changes.max_in_flight;
        let attempt = changes.attempt_timeout;
        let total = changes.total_timeout;
        or_nothing(total.map(|timeout| self.total_timeout.check(timeout)))
            .map_err(|error| error.renamed("duration", "total_timeout"))?;
        or_nothing(changes.retry.map(|config| self.retry.check(config)))?;
        if let Some(config) = changes.hedge {
            let hedge = self.hedge.as_ref();
            hedge.map_or_else(|| Err(self.absent("hedge")), |hedge| hedge.check(config))?;
        }
        if let Some(config) = changes.throttle {
            let throttle = self.throttle.as_ref();
            let check = |throttle: &KeyedThrottleHandle<_>| throttle.check(&config);
            throttle.map_or_else(|| Err(self.absent("throttle")), check)?;
        }
        let circuit = changes.circuit_breaker;
        or_nothing(circuit.map(|config| self.circuit_breaker.check(&config)))?;
        or_nothing(in_flight.map(|calls| self.check_limit(calls)))?;
        or_nothing(attempt.map(|timeout| self.attempt_timeout.check(timeout)))
            .map_err(|error| error.renamed("duration", "attempt_timeout"))?;
        let times = self.times_after(changes).check();
        times.map_err(|error| error.of("stack", self.name))
    }

    fn check_limit(&self, calls: usize) -> Result<(), ConfigError> {
        match self.enabled.bulkhead {
            true => self.bulkhead.check_limit(calls),
            false => Err(self.absent("max_in_flight")),
        }
    }

    fn absent(&self, part: &'static str) -> ConfigError {
        let fix = "leave it, or build the stack with one: then it can be changed";
        ConfigError::new(part, "set", fix).of("stack", self.name)
    }

    /// The settings that depend on each other, as they would be.
    fn times_after(&self, changes: &Changes) -> Times {
        let total = changes.total_timeout;
        let total = total.unwrap_or_else(|| self.total_timeout.snapshot().duration);
        let attempt = changes.attempt_timeout;
        let attempt = attempt.unwrap_or_else(|| self.attempt_timeout.snapshot().duration);
        let config = changes.circuit_breaker;
        let config = config.unwrap_or_else(|| self.circuit_breaker.shared().config());
        let window = match config.window {
            Window::Time(window) => Some(window),
            Window::Calls(_) => None,
        };
        let retry_config = changes.retry.unwrap_or_else(|| self.retry.config());
        // Settings that nobody has changed follow the total timeout, as in `build`.
        let hint = changes.retry.map(|_| retry_config.max_retry_after);
        let Enabled {
            total: has_total,
            retry,
            breaker,
            attempt: has_attempt,
            ..
        } = self.enabled;
        Times {
            total: has_total.then_some(total),
            attempt: has_attempt.then_some(attempt),
            window: window.filter(|_| breaker),
            max_retry_after: hint.filter(|_| retry),
            backoff: retry_config.least_wait().filter(|_| retry),
            delay: self
                .hedge
                .as_ref()
                .and_then(|hedge| hedge.delay_after(changes.hedge)),
        }
    }
}

impl<L: ChangesRate, B: ChangesLimit> ServerHandle<L, B> {
    /// Changes settings. What calls hold stays; a part that a call comes to from now on has the new
    /// settings. Returns what has changed.
    ///
    /// # Errors
    /// What `build` would reject; a setting of a part that a server does not have, or a rate where
    /// there is none. Nothing has changed then.
    pub fn update(&self, changes: Changes) -> Result<Changed, ConfigError> {
        let _updating = self.updating.lock();
        self.check(&changes)?;
        // The only part that is asked by changing it: a limit may be of the user's own making.
        let mut changed = match changes.rate {
            Some((rate, burst)) => self.rate_limit.change_rate(rate, burst, self.name)?,
            None => Changed::default(),
        };
        if let Some(calls) = changes.max_in_flight {
            changed = changed.and(self.bulkhead.change_limit(calls)?);
        }
        if let Some(timeout) = changes.total_timeout {
            let total = self.timeout.update(timeout)?;
            changed = changed.and(total.named("timeout"));
        }
        Ok(changed)
    }

    fn check(&self, changes: &Changes) -> Result<(), ConfigError> {
        let absent = |field, is_set: bool| match is_set {
            true => {
                let fix = "leave it: only clients have that";
                Err(ConfigError::new(field, "set", fix).of("stack", self.name))
            }
            false => Ok(()),
        };
        absent("attempt_timeout", changes.attempt_timeout.is_some())?;
        absent("retry", changes.retry.is_some())?;
        absent("hedge", changes.hedge.is_some())?;
        absent("throttle", changes.throttle.is_some())?;
        absent("circuit_breaker", changes.circuit_breaker.is_some())?;
        if let Some(calls) = changes.max_in_flight {
            self.bulkhead.check_limit(calls)?;
        }
        match changes.total_timeout {
            Some(timeout) => {
                let checked = self.timeout.check(timeout);
                checked.map_err(|error| error.renamed("duration", "timeout"))
            }
            None => Ok(()),
        }
    }
}

/// The handle of a part with a rate.
pub trait ChangesRate {
    /// Changes it, of all keys alike.
    fn change_rate(
        &self,
        rate: Rate,
        burst: u32,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError>;
}

/// The handle of a part that bounds what is in flight.
pub trait ChangesLimit {
    /// Changes the bound, of all keys alike.
    fn change_limit(&self, calls: usize) -> Result<Changed, ConfigError>;

    /// Returns whether that would be accepted.
    fn check_limit(&self, calls: usize) -> Result<(), ConfigError>;
}

impl ChangesRate for Option<RateLimitHandle> {
    fn change_rate(
        &self,
        rate: Rate,
        burst: u32,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        let Some(limit) = self else {
            let fix = "build the stack with a `rate`, however high: then it can be changed";
            return Err(ConfigError::new("rate", rate, fix).of("stack", stack));
        };
        limit.update(rate, burst)
    }
}

impl<K> ChangesRate for KeyedRateLimitHandle<K> {
    fn change_rate(
        &self,
        rate: Rate,
        burst: u32,
        _: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        self.update(rate, burst)
    }
}

impl<K> ChangesRate for PerKeyRateLimitHandle<K> {
    fn change_rate(
        &self,
        rate: Rate,
        _: u32,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        let fix = "change the limit of a key, by the handle's `rate_limit.make(&key)`";
        Err(ConfigError::new("rate", rate, fix).of("stack", stack))
    }
}

impl ChangesLimit for BulkheadHandle {
    fn change_limit(&self, calls: usize) -> Result<Changed, ConfigError> {
        let changed = self.update(calls)?;
        Ok(changed.named("max_in_flight"))
    }

    fn check_limit(&self, calls: usize) -> Result<(), ConfigError> {
        self.check(calls)
            .map_err(|error| error.renamed("limit", "max_in_flight"))
    }
}

impl<K: Hash + Eq + Clone> ChangesLimit for KeyedBulkheadHandle<K> {
    fn change_limit(&self, calls: usize) -> Result<Changed, ConfigError> {
        let changed = self.update(calls)?;
        Ok(changed.named("max_in_flight"))
    }

    fn check_limit(&self, calls: usize) -> Result<(), ConfigError> {
        self.check(calls)
            .map_err(|error| error.renamed("limit", "max_in_flight"))
    }
}
