//! The handle of a table of limits.

use std::{borrow::Borrow, fmt, hash::Hash, marker::PhantomData, sync::Arc, time::Duration};

use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    observe::{Instance, Observed, State, Totals},
    rate_limit::{
        FleetHandle, HeavyHitter, RateLimitConfig, RateLimitHandle, Snapshot, bucket,
        key_hash::KeyHash, keyed::Table,
    },
};

/// Watches and changes a keyed rate limit from outside. Cheap to clone. Keeps the limit's state
/// alive, not its services.
///
/// Its methods take keys of the type that the layer's closure finds, or of a type that it borrows
/// as: a `&str` for a [`String`].
///
/// ```compile_fail,E0277
/// use tower_keep::rate_limit::{Rate, RateLimitLayer};
///
/// let limit = RateLimitLayer::builder(Rate::per_second(1))
///     .keyed_by(|tenant: &u32| Some(u64::from(*tenant)))
///     .build()
///     .unwrap();
/// limit.handle().reset(&7_u32); // it has another hash than 7_u64
/// ```
pub struct KeyedRateLimitHandle<K> {
    table: Arc<Table>,
    /// The limit that all keys together stay within.
    total: Option<RateLimitHandle>,
    keys: PhantomData<fn(&K)>,
}

/// A keyed rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyedSnapshot {
    /// Keys that have used some of their burst.
    pub active: usize,
    /// Calls in the wait queues.
    pub waiting: usize,
    /// The counts so far, of all keys together.
    pub totals: Totals,
    /// Keys that were evicted so far. None of them was in debt.
    pub evictions: u64,
    /// Bytes of the table, which never grows after `build`. In a fleet, bytes of its current keys.
    pub bytes: usize,
}

/// The limit of one key of a table at one moment. It has no counts by key, because the table keeps
/// no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeySnapshot {
    /// Calls of unit cost that would be admitted at once.
    pub available: u32,
    /// Units per period.
    pub rate: Rate,
    /// The most units admitted at once.
    pub burst: u32,
    /// Calls in the key's wait queue.
    pub waiting: usize,
}

impl<K> KeyedRateLimitHandle<K> {
    pub(in crate::rate_limit) fn new(table: Arc<Table>, total: Option<RateLimitHandle>) -> Self {
        Self {
            table,
            total,
            keys: PhantomData,
        }
    }

    /// Returns the current state of the limits. Walks the whole table.
    #[must_use]
    pub fn snapshot(&self) -> KeyedSnapshot {
        let Table {
            buckets,
            queues,
            clock,
            tally,
            ..
        } = &*self.table;
        KeyedSnapshot {
            active: buckets.active(clock),
            waiting: queues.waiting() + self.total().map_or(0, |total| total.waiting),
            totals: tally.totals(),
            evictions: buckets.evictions(),
            bytes: buckets.bytes(),
        }
    }

    /// Returns the limit of one key, and at most what the total leaves. A key that overflows
    /// reports the limit that it shares.
    #[must_use]
    pub fn snapshot_of<Q>(&self, key: &Q) -> KeySnapshot
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let own = self.table.snapshot(self.hash(key));
        let total = self.total();
        let at_most = |own: u32, total: Option<u32>| total.map_or(own, |total| own.min(total));
        KeySnapshot {
            available: at_most(own.available, total.map(|total| total.available)),
            rate: own.rate,
            burst: at_most(own.burst, total.map(|total| total.burst)),
            waiting: own.waiting,
        }
    }

    /// Returns the keys that are rejected most, the highest count first: at most `max` of them, and
    /// never more than 128. Empty unless the layer was built with
    /// [`heavy_hitters`](crate::rate_limit::RateLimitBuilder::heavy_hitters).
    ///
    /// A count may be too high, by at most its `uncertain`. A key with more than one in 128 of all
    /// rejections is always included. When two threads reject at once, one rejection may not be
    /// counted, whatever its key. Each minute halves all earlier counts. Takes the mutex that
    /// rejections try to lock, and copies the labels.
    #[must_use]
    pub fn heavy_hitters(&self, max: usize) -> Vec<HeavyHitter> {
        self.table.top().highest(max, self.table.clock.now())
    }

    /// Returns the handle of the part that asks a store, if the limit is shared by a
    /// [fleet](crate::rate_limit::RateLimitBuilder::fleet).
    #[must_use]
    pub fn fleet(&self) -> Option<FleetHandle> {
        self.table.buckets.fleet()
    }

    /// Returns the rate and the burst in force.
    #[cfg(feature = "http")]
    pub(crate) fn rate(&self) -> (Rate, u32) {
        self.table.rate()
    }

    /// Returns the settings of each key's limit, to change and pass to [`update`](Self::update).
    #[must_use]
    pub fn config(&self) -> RateLimitConfig {
        self.table.config()
    }

    /// Changes rate and burst for all keys in one step, and notifies the waiters. Units already
    /// used stay used, as the *time* that it takes to pay them off: see
    /// [`RateLimitHandle::update`](crate::rate_limit::RateLimitHandle::update).
    ///
    /// # Errors
    /// The errors of `build`. A table changes only its rate and burst: another setting differs.
    pub fn update(&self, config: RateLimitConfig) -> Result<Changed, ConfigError> {
        self.table.update(config)
    }

    /// Changes rate and burst for all keys in one step: see [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn set_rate(&self, rate: Rate, burst: u32) -> Result<Changed, ConfigError> {
        self.update(RateLimitConfig {
            rate,
            burst,
            ..self.config()
        })
    }

    /// Forgets a key's used units, debts and penalty. The total keeps what it has counted. Changes
    /// nothing for a key that overflows.
    pub fn reset<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table.with(self.hash(key), |bucket| bucket.reset());
    }

    /// Corrects the units that a call of a key has taken to those that it has used, for example at
    /// the end of a body.
    pub fn settle<Q>(&self, key: &Q, taken: u32, used: u32)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table
            .with(self.hash(key), |bucket| bucket.settle(taken, used));
        self.total
            .iter()
            .for_each(|total| total.settle(taken, used));
    }

    /// Takes units that a key has used outside the layer, or beyond the cost of its call. Its later
    /// calls wait for them. A key that overflows charges the limit it shares.
    pub fn charge<Q>(&self, key: &Q, units: u32)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table
            .with(self.hash(key), |bucket| bucket.charge(units));
        self.total.iter().for_each(|total| total.charge(units));
    }

    /// Gives back units that a key's calls have taken and not used. Changes nothing for a key that
    /// overflows, or that has no debt.
    pub fn refund<Q>(&self, key: &Q, units: u32)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table
            .with(self.hash(key), |bucket| bucket.refund(units));
        self.total.iter().for_each(|total| total.refund(units));
    }

    /// Admits nothing of a key for this duration, as a penalty. Other keys are not affected. A key
    /// that overflows closes the limit it shares.
    pub fn close_for<Q>(&self, key: &Q, duration: Duration)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table
            .with(self.hash(key), |bucket| bucket.close_for(duration));
    }

    fn total(&self) -> Option<Snapshot> {
        self.total.as_ref().map(RateLimitHandle::snapshot)
    }

    fn hash<Q>(&self, key: &Q) -> KeyHash
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table.hashing.of(key)
    }

    #[cfg(test)]
    pub(super) fn queues(&self) -> usize {
        self.table.queues.count()
    }
}

impl<K> Clone for KeyedRateLimitHandle<K> {
    fn clone(&self) -> Self {
        Self::new(self.table.clone(), self.total.clone())
    }
}

impl<K> fmt::Debug for KeyedRateLimitHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitHandle")
            .finish_non_exhaustive()
    }
}

impl Observed for Table {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 2^28")]
    fn observe(&self) -> Instance {
        let state = State::RateLimit {
            queued: Some(self.queues.waiting() as u64),
            keys: Some(self.buckets.active(&self.clock) as u64),
            evictions: Some(self.buckets.evictions()),
            fleet: self.buckets.fleet().map(|fleet| fleet.counts()),
        };
        let quota = (self.buckets.rate(), self.buckets.burst());
        let settings = Some(&self.settings);
        let mut seen = bucket::observe((&self.tally, settings), Some(quota), state);
        seen.config.push(("max_keys", self.max_keys as f64));
        seen
    }
}
