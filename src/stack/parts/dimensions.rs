//! Several quotas as the rate limit of a stack.

use std::{hash::Hash, time::Duration};

use super::{LimitPart, RatePart, named};
use crate::{
    Changed, ConfigError,
    gate::Keyed,
    keyed::{HasKey, NotKeyed},
    protocol::Plain,
    rate_limit::{
        DimensionsBuilder, DimensionsGate, DimensionsHandle, DimensionsSnapshot,
        KeyedDimensionsHandle, PerKeyDimensions, Settles,
    },
    stack::{
        changing::{ChangesRate, RateChange},
        handle::Readable,
    },
};

impl<const N: usize, C: Clone, U: Settles + Clone> LimitPart
    for DimensionsBuilder<N, NotKeyed, Plain, C, U>
{
    type Gate = DimensionsGate<N, C, U>;

    fn closed_for_all(&self) -> Option<Duration> {
        self.honored()
    }

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

impl<const N: usize, F, C, U> LimitPart
    for DimensionsBuilder<N, PerKeyDimensions<F, N>, Plain, C, U>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    type Gate = Keyed<F, DimensionsGate<N, C, U>>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

impl<const N: usize> Readable for DimensionsHandle<N> {
    type Snapshot = DimensionsSnapshot<N>;

    fn read(&self) -> Self::Snapshot {
        self.snapshot()
    }
}

impl<const N: usize, K, C, U> Readable for KeyedDimensionsHandle<N, K, C, U>
where
    K: Hash + Eq + Clone,
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    type Snapshot = Vec<(Option<K>, DimensionsSnapshot<N>)>;

    fn read(&self) -> Self::Snapshot {
        let keys = self.keys().into_iter();
        let keys = keys.map(|(key, quotas)| (Some(key), quotas.snapshot()));
        keys.chain([(None, self.shared().snapshot())]).collect()
    }
}

impl<const N: usize> ChangesRate for DimensionsHandle<N> {
    fn now(&self) -> RateChange {
        RateChange::default()
    }

    fn change_rate(
        &self,
        change: RateChange,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        several(change, stack)
    }
}

impl<const N: usize, K, C, U> ChangesRate for KeyedDimensionsHandle<N, K, C, U>
where
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    fn now(&self) -> RateChange {
        RateChange::default()
    }

    fn change_rate(
        &self,
        change: RateChange,
        stack: Option<&'static str>,
    ) -> Result<Changed, ConfigError> {
        several(change, stack)
    }
}

/// Fails for a change of one rate, because a limit of several quotas has several.
fn several(change: RateChange, stack: Option<&'static str>) -> Result<Changed, ConfigError> {
    let Some(on) = change.on else {
        return Ok(Changed::default());
    };
    let fix = "leave it, and change a quota by its name, with `update` of the handle `rate_limit`";
    let value = change.quota.filter(|_| on).map(|(rate, _)| rate);
    let error = match value {
        Some(rate) => ConfigError::new("rate", rate, fix),
        None => ConfigError::new("rate", "off", fix),
    };
    Err(error.of("stack", stack))
}
