//! The handle of a table of limits.

use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    observe::{Instance, Observed, State, Totals},
    rate_limit::{FleetHandle, HeavyHitter, RateLimitHandle, Snapshot, bucket, keyed::Table},
};

/// Watches and changes a keyed rate limit from outside. Cheap to clone; it keeps the limit's state
/// alive, not its services.
///
/// A key given to it is of the type that the layer's closure finds, or one that it is borrowed as:
/// a `&str` where that is a [`String`].
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
    /// What all keys together stay within.
    total: Option<RateLimitHandle>,
    keys: PhantomData<fn(&K)>,
}

/// A keyed rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyedSnapshot {
    /// How many keys have used some of their burst.
    pub active: usize,
    /// How many calls wait for their turn.
    pub waiting: usize,
    /// What has been counted so far, of all keys together.
    pub totals: Totals,
    /// How many keys lost their place to another one, so far: none that was in debt.
    pub evictions: u64,
    /// What the table takes, from `build` on: it never grows. Of a fleet, what its keys take now.
    pub bytes: usize,
}

/// The limit of one key of a table at one moment. What was counted by key it does not have: the
/// table keeps no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeySnapshot {
    /// How many calls of cost 1 would be admitted at once.
    pub available: u32,
    /// How much in how long.
    pub rate: Rate,
    /// How many are admitted at once at most.
    pub burst: u32,
    /// How many calls wait for their turn.
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

    /// The limits as they are now. Walks the whole table.
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

    /// The limit of one key, and at most what the total leaves. Of a key that overflows, that which
    /// it shares.
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

    /// The keys that are rejected most, the heaviest first: at most `max`, and 128. None unless the
    /// layer was built with
    /// [`heavy_hitters`](crate::rate_limit::RateLimitBuilder::heavy_hitters).
    ///
    /// Counts err to the high side, by what each of them tells; a key that has more than one in 128
    /// of all rejections is never left out. What was not counted because two threads rejected at
    /// once is missing from all alike. Each minute halves what came before it. Takes the mutex that
    /// those rejections try, and copies the labels.
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

    /// The rate and the burst in force.
    #[cfg(feature = "http")]
    pub(crate) fn rate(&self) -> (Rate, u32) {
        self.table.rate()
    }

    /// Changes rate and burst for all keys in one step, and tells the waiters. What they have used
    /// stays used, as the *time* that it takes to pay off: see
    /// [`RateLimitHandle::update`](crate::rate_limit::RateLimitHandle::update).
    ///
    /// # Errors
    /// What `build` would reject.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<Changed, ConfigError> {
        self.table.update(rate, burst)
    }

    /// Forgets what a key has used and owes, and its penalty, not what the total has counted of it.
    /// To a key that overflows nothing is given.
    pub fn reset<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table.with(self.hash(key), |bucket| bucket.reset());
    }

    /// Corrects what a call of a key has taken to what it turns out to have used: at the end of a
    /// body, say.
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

    /// Takes units that a key has used past the layer, or beyond what its call has cost: its later
    /// calls wait for them. A key that overflows burdens the limit it shares.
    pub fn charge<Q>(&self, key: &Q, units: u32)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table
            .with(self.hash(key), |bucket| bucket.charge(units));
        self.total.iter().for_each(|total| total.charge(units));
    }

    /// Gives back units that a key's calls have taken and not used. To a key that has overflowed,
    /// or that has no debt, nothing is given.
    pub fn refund<Q>(&self, key: &Q, units: u32)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table
            .with(self.hash(key), |bucket| bucket.refund(units));
        self.total.iter().for_each(|total| total.refund(units));
    }

    /// Admits nothing of a key for so long, as a penalty; nothing of another's. A key that
    /// overflows closes the limit it shares.
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

    fn hash<Q>(&self, key: &Q) -> u64
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.table.seed.hash_one(key)
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

    fn observe(&self) -> Instance {
        let state = State::RateLimit {
            queued: Some(self.queues.waiting() as u64),
            keys: Some(self.buckets.active(&self.clock) as u64),
            evictions: Some(self.buckets.evictions()),
            fleet: self.buckets.fleet().map(|fleet| fleet.counts()),
        };
        let quota = (self.buckets.rate(), self.buckets.burst());
        bucket::observe((&self.tally, Some(&self.settings)), Some(quota), state)
    }
}
