//! A bulkhead per key.

use std::{hash::Hash, sync::Arc, time::Duration};

use crate::{
    Changed, ConfigError,
    ambient::clock::Clock,
    bulkhead::{
        BulkheadConfig, BulkheadGate, BulkheadHandle,
        adaptive::Algorithm,
        all_bulkheads::{AllBulkheads, HoldsPlaces},
        limits::{BulkheadLimit, Limits, Shares},
        observed::{Thresholds, Use, observe},
        settings::{Settings, changed_reclaim, checked_share, checked_total, duration},
        state::State,
    },
    config::{Edition, Editions},
    gate::{Keyable, KeyedHandle, KeyedParts},
    keyed::partitions::Factory,
    observe::{GateTally, Instance, Observed, Tally, trace},
    queue::Total,
};

/// The factory of the bulkheads of keys.
#[derive(Debug)]
pub struct BulkheadFactory<K> {
    pub(super) shares: Editions<Shares>,
    /// The limits of keys that have one of their own.
    pub(super) limits: Limits<K>,
    /// The calls in flight of all keys together. `None` without a total.
    pub(super) total: Option<Arc<Total>>,
    /// The bulkheads of all keys, if they have a total whose permits are taken back.
    pub(super) all_bulkheads: Option<Arc<AllBulkheads>>,
    /// The clock of all keys, because they wait in one queue.
    pub(super) clock: Clock,
    pub(super) adaptive: Option<Algorithm>,
    pub(super) settings: Settings,
    pub(super) tally: Arc<Tally>,
}

impl<K: Hash + Eq + Clone> KeyedHandle<K, BulkheadGate> {
    /// Returns the calls in flight of all keys together, and their total, above which shares are
    /// enforced. `None` without a [total](crate::bulkhead::BulkheadBuilder::within).
    #[must_use]
    pub fn total(&self) -> Option<(usize, usize)> {
        let total = self.parts.factory.total.as_ref();
        total.map(|total| (total.places.count(), total.places.limit()))
    }

    /// Changes the total at once. Without a total, changes nothing. After it is raised, waiters are
    /// admitted.
    ///
    /// The total is below the share of a key, or below the sum of the [listed
    /// shares](crate::bulkhead::BulkheadBuilder::limits).
    pub fn set_total(&self, total: usize) -> Result<Changed, ConfigError> {
        let BulkheadFactory {
            shares,
            limits,
            total: places,
            clock,
            tally,
            ..
        } = &self.parts.factory;
        let mut before = total;
        // In one step, so that no other change of the limit or the total comes between this check
        // and the change.
        shares.change(|shares| {
            let guaranteed = limits.listed().max(shares.limit);
            checked_total(total, guaranteed, tally.name)?;
            if let Some(places) = places {
                before = places.places.limit();
                places.places.set_limit(total);
            }
            let total = shares.total.and(Some(total));
            Ok(Shares { total, ..shares })
        })?;
        let Some(places) = places else {
            return Ok(Changed::default());
        };
        places.notify(|| clock.now());
        let changed = Changed::default().note(tally.layer, "within", (before, total));
        trace::updated((tally.layer, tally.name), &changed);
        Ok(changed)
    }

    /// Returns the settings of keys that have none of their own.
    #[must_use]
    pub fn config(&self) -> BulkheadConfig {
        let Shares {
            limit,
            reclaim_after,
            ..
        } = self.parts.factory.shares.settings();
        BulkheadConfig {
            limit,
            reclaim_after: reclaim_after.and_then(duration),
        }
    }

    /// Changes the settings of every key, present and future. Start from [`config`](Self::config).
    /// Keys whose limit the builder set with
    /// [`limit_for`](crate::bulkhead::BulkheadBuilder::limit_for) keep it.
    ///
    /// # Errors
    /// The limit is 0 or above the total, or `reclaim_after` is zero, or the bulkheads were built
    /// without it.
    pub fn update(&self, config: BulkheadConfig) -> Result<Changed, ConfigError> {
        let reclaim_after = self.reclaim_after(config.reclaim_after)?;
        self.change(|shares| Shares {
            limit: config.limit,
            reclaim_after,
            ..shares
        })
    }

    /// Changes only the limit, as [`update`](Self::update) does.
    ///
    /// # Errors
    /// The limit is 0, or above the total.
    pub fn set_limit(&self, limit: usize) -> Result<Changed, ConfigError> {
        self.change(|shares| Shares { limit, ..shares })
    }

    fn change(&self, change: impl FnOnce(Shares) -> Shares) -> Result<Changed, ConfigError> {
        let BulkheadFactory { shares, tally, .. } = &self.parts.factory;
        let change = |shares: Shares| {
            let shares = change(shares);
            checked_share(shares.limit, shares.total, tally.name)?;
            Ok(shares)
        };
        let take = |gate: &BulkheadGate, shares| Ok(gate.state.take(shares));
        self.parts.update_all(shares, change, take)
    }

    fn reclaim_after(&self, after: Option<Duration>) -> Result<Option<u64>, ConfigError> {
        let BulkheadFactory {
            settings, tally, ..
        } = &self.parts.factory;
        let is_built = settings.reclaim_after.is_some();
        changed_reclaim(after, is_built, tally.name)
    }

    /// Returns an error if [`update`](Self::update) would reject this limit.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, limit: usize) -> Result<(), ConfigError> {
        let BulkheadFactory { shares, tally, .. } = &self.parts.factory;
        checked_share(limit, shares.settings().total, tally.name).map(drop)
    }
}

impl<K> BulkheadFactory<K> {
    /// Creates one of several bulkheads, with the limit of all keys or with a fixed limit.
    pub(super) fn bulkhead(
        &self,
        shares: Edition<Shares>,
        fixed: Option<usize>,
        (tally, partition): (GateTally, Option<u64>),
    ) -> BulkheadGate {
        let limit = BulkheadLimit {
            limit: fixed.unwrap_or(shares.settings.limit),
            is_fixed: fixed.is_some(),
            reclaim_after: shares.settings.reclaim_after,
            edition: shares.number,
        };
        let (total, algorithm) = (self.total.clone(), self.adaptive.as_ref());
        let settings = Settings {
            partition,
            ..self.settings
        };
        let gate = BulkheadGate::new(limit, (total, algorithm), settings, self.clock, tally);
        if let Some(all_bulkheads) = &self.all_bulkheads {
            let state: Arc<dyn HoldsPlaces> = gate.state.clone();
            all_bulkheads.add(Arc::downgrade(&state));
        }
        gate
    }
}

impl HoldsPlaces for State {
    fn find_overdue(&self, now: u64) -> (usize, u64) {
        self.permits.find_overdue(now)
    }

    fn leave_all(&self, places: usize) {
        self.permits.leave_all(places);
    }
}

impl Keyable for BulkheadGate {
    type Factory<K> = BulkheadFactory<K>;

    fn watch(&self) -> BulkheadHandle {
        BulkheadHandle::watching(self.state.clone())
    }
}

impl<K> Factory<K, BulkheadGate> for BulkheadFactory<K> {
    fn make(&self, key: &K) -> Result<BulkheadGate, ConfigError> {
        let (fixed, shares) = (self.limits.of(key), self.shares.latest());
        let Shares { limit, total, .. } = shares.settings;
        checked_share(fixed.unwrap_or(limit), total, self.tally.name)?;
        let partition = self.settings.advertise.new_partition();
        Ok(self.bulkhead(shares, fixed, (self.tally.key(), partition)))
    }

    fn made(&self, bulkhead: &BulkheadGate) {
        bulkhead.state.take(self.shares.latest());
    }
}

impl<K> Observed for KeyedParts<K, BulkheadGate>
where
    K: Hash + Eq + Clone + Send + Sync,
{
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let mut use_of_all = Use::of(&self.shared.state);
        self.partitions.each(|_, gate| use_of_all.add(&gate.state));
        let shares = self.factory.shares.settings();
        let thresholds = Thresholds {
            limit: shares.limit,
            max: shares.limit,
            within: shares.total,
            settings: self.factory.settings,
            reclaim_after: shares.reclaim_after.and_then(duration),
            learned: None,
        };
        observe(&self.tally, thresholds, use_of_all)
            .with_keys(self.shown_keys(|gate| (gate.state.key_state(), &gate.state.permits.tally)))
    }
}
