//! Changes while a stack runs.

use std::hash::Hash;

use super::{Changes, ClientHandle, ServerHandle, check::Times, handle::Enabled};
use crate::{
    Changed, ConfigError,
    algorithm::Window,
    bulkhead::{BulkheadHandle, KeyedBulkheadHandle},
    rate_limit::{KeyedRateLimitHandle, PerKeyRateLimitHandle, Rate, RateLimitHandle},
    throttle::KeyedThrottleHandle,
};

impl<L: ChangesRate, B: ChangesLimit> ClientHandle<L, B> {
    /// Changes settings, each part's checked as by `build`, and against the others'. What calls
    /// hold stays; a part that a call comes to from now on has the new settings. Returns what has
    /// changed.
    ///
    /// # Errors
    /// What `build` would reject; a rate where there is none. Nothing has changed then.
    pub fn update(&self, changes: Changes) -> Result<Changed, ConfigError> {
        let check = |changes: &Changes| self.check(changes);
        self.updating.check(&changes, check)?;
        let limit = (&self.rate_limit, self.name);
        let (undo, changed) = change_rate_first(limit, changes.rate)?;
        let made = self
            .updating
            .make(&changes, check, |changes| self.make(changes));
        made.map(|made| changed.and(made)).inspect_err(|_| undo())
    }

    /// Changes all parts but the rate.
    fn make(&self, changes: &Changes) -> Result<Changed, ConfigError> {
        let mut changed = Changed::default();
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
        let check = |changes: &Changes| self.check(changes);
        self.updating.check(&changes, check)?;
        let limit = (&self.rate_limit, self.name);
        let (undo, changed) = change_rate_first(limit, changes.rate)?;
        let made = self
            .updating
            .make(&changes, check, |changes| self.make(changes));
        made.map(|made| changed.and(made)).inspect_err(|_| undo())
    }

    /// Changes all parts but the rate.
    fn make(&self, changes: &Changes) -> Result<Changed, ConfigError> {
        let mut changed = Changed::default();
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

/// Changes the rate, the only part that is asked by changing it: a limit may be of the user's own
/// making. Returns how to undo that too, if another update contradicts the rest meanwhile.
fn change_rate_first<L: ChangesRate>(
    (limit, stack): (&L, Option<&'static str>),
    rate: Option<(Rate, u32)>,
) -> Result<(impl Fn(), Changed), ConfigError> {
    let before = rate.and_then(|_| limit.rate());
    let changed = match rate {
        Some((rate, burst)) => limit.change_rate(rate, burst, stack)?,
        None => Changed::default(),
    };
    let undo = move || {
        if let Some((rate, burst)) = before {
            // It was in force, and so is right.
            let _ = limit.change_rate(rate, burst, stack);
        }
    };
    Ok((undo, changed))
}

/// The handle of a part with a rate.
pub trait ChangesRate {
    /// The rate and the burst in force, if there are any for all calls.
    fn rate(&self) -> Option<(Rate, u32)>;

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
    fn rate(&self) -> Option<(Rate, u32)> {
        self.as_ref().map(RateLimitHandle::rate)
    }

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
    fn rate(&self) -> Option<(Rate, u32)> {
        Some(self.rate())
    }

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
    fn rate(&self) -> Option<(Rate, u32)> {
        None
    }

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
        let changed = self.set_limit(calls)?;
        Ok(changed.named("max_in_flight"))
    }

    fn check_limit(&self, calls: usize) -> Result<(), ConfigError> {
        self.check(calls)
            .map_err(|error| error.renamed("limit", "max_in_flight"))
    }
}

impl<K: Hash + Eq + Clone> ChangesLimit for KeyedBulkheadHandle<K> {
    fn change_limit(&self, calls: usize) -> Result<Changed, ConfigError> {
        let changed = self.set_limit(calls)?;
        Ok(changed.named("max_in_flight"))
    }

    fn check_limit(&self, calls: usize) -> Result<(), ConfigError> {
        self.check(calls)
            .map_err(|error| error.renamed("limit", "max_in_flight"))
    }
}
