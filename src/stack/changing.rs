//! The changes of a stack's limits by their handles.

use std::hash::Hash;

use crate::{
    Changed, ConfigError,
    bulkhead::{BulkheadHandle, KeyedBulkheadHandle},
    rate_limit::{KeyedRateLimitHandle, Manners, PerKeyRateLimitHandle, Rate, RateLimitHandle},
};

/// A change of a rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateChange {
    /// If true, the rate is on. `None` if that does not change.
    pub(super) on: Option<bool>,
    /// Rate and burst, if these change.
    pub(super) quota: Option<(Rate, u32)>,
    /// The rules for waiting and for hints, if they change.
    pub(super) manners: Option<Manners>,
}

/// The handle of a part with a rate.
pub trait ChangesRate {
    /// Returns the current rate, for a change that undoes another.
    fn now(&self) -> RateChange;

    /// Changes the rate of all keys alike.
    fn change_rate(
        &self,
        rate: RateChange,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError>;
}

/// The handle of a part that limits the calls in flight.
pub trait ChangesLimit {
    /// Changes the limit of all keys alike.
    fn change_limit(&self, calls: usize) -> Result<Changed, ConfigError>;

    /// Checks whether the change would be accepted.
    fn check_limit(&self, calls: usize) -> Result<(), ConfigError>;
}

impl ChangesRate for Option<RateLimitHandle> {
    fn now(&self) -> RateChange {
        let limit = self.as_ref();
        RateChange {
            on: limit.map(RateLimitHandle::is_enabled),
            quota: limit.map(RateLimitHandle::rate),
            manners: limit.map(RateLimitHandle::manners),
        }
    }

    fn change_rate(
        &self,
        RateChange { on, quota, manners }: RateChange,
        _: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        match (self, on) {
            (Some(limit), Some(on)) => limit.change(quota, manners, on),
            _ => Ok(Changed::default()),
        }
    }
}

impl<K> ChangesRate for KeyedRateLimitHandle<K> {
    fn now(&self) -> RateChange {
        RateChange {
            on: Some(true),
            quota: Some(self.rate()),
            manners: None,
        }
    }

    fn change_rate(
        &self,
        change: RateChange,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        match (change.on, change.quota) {
            (None, _) => Ok(Changed::default()),
            (_, Some((rate, burst))) => self.set_rate(rate, burst),
            (_, None) => Err(stays(stack)),
        }
    }
}

impl<K> ChangesRate for PerKeyRateLimitHandle<K> {
    fn now(&self) -> RateChange {
        RateChange::default()
    }

    fn change_rate(
        &self,
        change: RateChange,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        let fix = "change the limit of a key, by the handle's `rate_limit.make(&key)`";
        match (change.on, change.quota) {
            (None, _) => Ok(Changed::default()),
            (_, Some((rate, _))) => Err(ConfigError::new("rate", rate, fix).of("stack", stack)),
            (_, None) => Err(stays(stack)),
        }
    }
}

/// Returns the error for a keyed limit, which cannot be removed.
fn stays(stack: Option<&'static str>) -> ConfigError {
    let fix = "give all keys a high rate: limits by key cannot be removed while they run";
    ConfigError::new("rate", "off", fix).of("stack", stack)
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
