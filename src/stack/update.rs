//! The updates of a running stack.

use std::time::Duration;

use super::{
    Changes, ClientHandle, ServerHandle,
    changing::{ChangesLimit, ChangesRate, RateChange},
    check::{Times, fits_all_hosts},
    defaults::{allow_slow_probes, attempt_within},
    handle::Enabled,
};
use crate::{
    Changed, ConfigError,
    algorithm::{BreakerConfig, Window},
    hedge::{HedgeConfig, HedgeHandle},
    throttle::KeyedThrottleHandle,
};

impl<L: ChangesRate, B: ChangesLimit> ClientHandle<L, B> {
    /// Changes settings. Each part's are checked as by `build`, and against the others'. Calls keep
    /// what they hold. A call uses the new settings of each part that it reaches from now on.
    /// Returns the changes.
    ///
    /// # Errors
    /// A setting that `build` would reject, or of a part that the stack was built without and that
    /// cannot be added. Nothing changes then.
    pub fn update(&self, mut changes: Changes) -> Result<Changed, ConfigError> {
        changes.attempt_timeout = changes.attempt_timeout.or(self.attempt_with(&changes));
        changes.circuit_breaker = self.circuit_with(&changes);
        let check = |changes: &Changes| self.check(changes);
        self.updating.check(&changes, check)?;
        let limit = (&self.limit, self.name);
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
            let total = self.total_timeout.set_duration(timeout)?;
            changed = changed.and(total.named("total_timeout"));
        }
        if let Some(config) = changes.retry {
            changed = changed.and(self.retry.update(config)?);
        }
        if let (Some(hedge), Some(config)) = (&self.hedge, changes.hedge) {
            changed = changed.and(change_hedge(hedge, config)?);
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
            let attempt = self.attempt_timeout.set_duration(timeout)?;
            changed = changed.and(attempt.named("attempt_timeout"));
        }
        Ok(changed)
    }

    /// Checks everything that can be known before a change: each part, and each against the others.
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
            let hedge = hedge.ok_or_else(|| self.absent("hedge"))?;
            or_nothing(config.map(|config| hedge.check(config)))?;
        }
        if let Some(config) = changes.throttle {
            let throttle = self.throttle.as_ref();
            let check = |throttle: &KeyedThrottleHandle<_>| throttle.check(&config);
            throttle.map_or_else(|| Err(self.absent("throttle")), check)?;
        }
        let circuit = changes.circuit_breaker;
        or_nothing(circuit.map(|config| self.circuit_breaker.check(&config)))?;
        or_nothing(in_flight.map(|calls| self.check_limit(calls)))?;
        let manners = changes.rate.manners.filter(|_| !self.enabled.one_peer);
        fits_all_hosts(manners.and_then(|rate| rate.honor_retry_after), self.name)?;
        or_nothing(attempt.map(|timeout| self.attempt_timeout.check(timeout)))
            .map_err(|error| error.renamed("duration", "attempt_timeout"))?;
        let times = self.times_after(changes).check();
        times.map_err(|error| error.of("stack", self.name))
    }

    /// Returns the attempt's timeout that follows a changed total, if it was not set.
    fn attempt_with(&self, changes: &Changes) -> Option<Duration> {
        let Enabled {
            total,
            attempt,
            attempt_follows,
            ..
        } = self.enabled;
        let after = changes
            .total_timeout
            .filter(|_| attempt_follows && total && attempt)?;
        let before = self.total_timeout.snapshot().duration;
        let (now, next) = (
            self.attempt_timeout.snapshot().duration,
            attempt_within(after),
        );
        // Only if it differs: another update may be about to set it.
        (now == attempt_within(before) && now != next).then_some(next)
    }

    /// Returns the circuits' settings, if they change. A probe may take as long as an attempt then,
    /// as in `build`.
    fn circuit_with(&self, changes: &Changes) -> Option<BreakerConfig> {
        let Enabled {
            total,
            attempt,
            breaker,
            ..
        } = self.enabled;
        let timeouts = [
            (attempt, &self.attempt_timeout, changes.attempt_timeout),
            (total, &self.total_timeout, changes.total_timeout),
        ];
        let timeouts = timeouts.into_iter().find(|(is_on, ..)| *is_on);
        let before = timeouts.map(|(_, handle, _)| handle.snapshot().duration);
        let after = timeouts.and_then(|(.., change)| change).or(before);
        let now = self.circuit_breaker.shared().config();
        let mut config = changes.circuit_breaker.unwrap_or(now);
        allow_slow_probes(&mut config, [before, after]);
        // Only if it differs: another update may be about to change it.
        let follows = breaker && config != now;
        changes
            .circuit_breaker
            .map(|_| config)
            .or(follows.then_some(config))
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

    /// Returns the settings that depend on each other, as they would be after the changes.
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
        // Settings that were not changed follow the total timeout, as in `build`.
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
    /// Changes settings. Calls keep what they hold. A call uses the new settings of each part that
    /// it reaches from now on. Returns the changes.
    ///
    /// # Errors
    /// A setting that `build` would reject, or of a part that a server does not have. Nothing
    /// changes then.
    pub fn update(&self, changes: Changes) -> Result<Changed, ConfigError> {
        let check = |changes: &Changes| self.check(changes);
        self.updating.check(&changes, check)?;
        let limit = (&self.limit, self.name);
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
            let total = self.timeout.set_duration(timeout)?;
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
            if calls == usize::MAX {
                let fix = "say how many calls may run at once: a server without a bound melts down";
                let error = ConfigError::new("max_in_flight", "any number", fix);
                return Err(error.of("stack", self.name));
            }
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

/// Switches a hedge on, with these settings, or off.
fn change_hedge(hedge: &HedgeHandle, to: Option<HedgeConfig>) -> Result<Changed, ConfigError> {
    let switched = hedge.set_enabled(to.is_some());
    match to {
        Some(config) => Ok(switched.and(hedge.update(config)?)),
        None => Ok(switched),
    }
}

/// Changes the rate first, because a limit may be user code and only the change itself checks it.
/// Returns an undo, in case another update contradicts the rest meanwhile.
fn change_rate_first<L: ChangesRate>(
    (limit, stack): (&L, Option<&'static str>),
    rate: RateChange,
) -> Result<(impl Fn(), Changed), ConfigError> {
    let before = rate.on.map(|_| limit.now());
    let changed = limit.change_rate(rate, stack)?;
    let undo = move || {
        if let Some(before) = before {
            // The rate before was in force, so it is valid.
            let _ = limit.change_rate(before, stack);
        }
    };
    Ok((undo, changed))
}
