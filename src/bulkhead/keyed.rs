//! A bulkhead for each key.

use std::{
    fmt,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    Changed, ConfigError,
    ambient::clock::Clock,
    bulkhead::{
        BulkheadGate, BulkheadHandle, KeyedBulkheadLayer,
        adaptive::Algorithm,
        asked::Controlled,
        limits::Limits,
        observed::observe,
        settings::{Settings, checked_share, checked_total},
    },
    gate::{Keyable, Keyed, KeyedParts},
    keyed::{HasKey, partitions::Recipe},
    observe::{Instance, Observed, Tally, Totals, trace},
    queue::Total,
};

/// Watches and changes keyed bulkheads from outside.
pub struct KeyedBulkheadHandle<K> {
    parts: Arc<KeyedParts<K, BulkheadGate>>,
}

/// What bulkheads are made of.
#[derive(Debug)]
pub struct Plan<K> {
    /// Relaxed: one that is made beside a change is put right by its maker.
    pub(super) limit: AtomicUsize,
    /// Of keys that do not have that one.
    pub(super) limits: Limits<K>,
    /// What all keys together have in flight; `None` without a total.
    pub(super) total: Option<Arc<Total>>,
    /// Of all keys, because they wait in one queue.
    pub(super) clock: Clock,
    pub(super) adaptive: Option<Algorithm>,
    pub(super) settings: Settings,
    pub(super) tally: Arc<Tally>,
}

impl<F: HasKey<Key: Hash + Eq + Clone>> Keyed<F, BulkheadGate> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> KeyedBulkheadHandle<F::Key> {
        KeyedBulkheadHandle {
            parts: self.parts().clone(),
        }
    }
}

impl<F: HasKey<Key: Hash + Eq + Clone>, P> KeyedBulkheadLayer<F, P> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> KeyedBulkheadHandle<F::Key> {
        self.gate().handle()
    }
}

impl<F: HasKey<Key: Hash + Eq + Clone>> Controlled for Keyed<F, BulkheadGate> {
    type Handle = KeyedBulkheadHandle<F::Key>;

    fn control(&self) -> KeyedBulkheadHandle<F::Key> {
        self.handle()
    }
}

impl<K: Hash + Eq + Clone> KeyedBulkheadHandle<K> {
    /// The key's bulkhead, if it has one of its own just now: one in which nothing is in flight may
    /// be evicted, unless a handle holds it, or its limit was changed by one.
    #[must_use]
    pub fn key(&self, key: &K) -> Option<BulkheadHandle> {
        self.parts
            .partitions
            .find_lasting(key)
            .map(|partition| partition.gate.handle())
    }

    /// The bulkhead of all keys that have none of their own.
    #[must_use]
    pub fn shared(&self) -> BulkheadHandle {
        self.parts.shared.handle()
    }

    /// What all bulkheads have counted so far, evicted ones too. Costs some twenty loads for each.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.parts.recipe.tally.totals()
    }

    /// All keys that have a bulkhead of their own. Costs a copy of each key.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, BulkheadHandle)> {
        let partitions = self.parts.partitions.all().into_iter();
        partitions
            .map(|partition| (partition.key().clone(), partition.gate.handle()))
            .collect()
    }

    /// What runs of all keys together, and how much may before shares are enforced; `None` if they
    /// have no [total](crate::bulkhead::BulkheadBuilder::within).
    #[must_use]
    pub fn total(&self) -> Option<(usize, usize)> {
        let total = self.parts.recipe.total.as_ref();
        total.map(|total| (total.places.count(), total.places.limit()))
    }

    /// Changes that total at once; nothing if they have none. After a raise, calls that wait come
    /// in.
    ///
    /// # Errors
    /// A total below the share of a key, or below those of a
    /// [list](crate::bulkhead::BulkheadBuilder::limits) together.
    pub fn set_total(&self, total: usize) -> Result<Changed, ConfigError> {
        let Plan {
            limit,
            limits,
            total: places,
            clock,
            tally,
            ..
        } = &self.parts.recipe;
        let guaranteed = limits.listed().max(limit.load(Ordering::Relaxed));
        checked_total(total, guaranteed, tally.name)?;
        let Some(places) = places else {
            return Ok(Changed::default());
        };
        let before = places.places.limit();
        places.set_limit(total, || clock.now());
        let changed = Changed::default().note(tally.layer, "within", (before, total));
        trace::updated((tally.layer, tally.name), &changed);
        Ok(changed)
    }

    /// Changes the limit of every key, those to come included, but not of keys to which the builder
    /// gave [one of their own](crate::bulkhead::BulkheadBuilder::limit_for).
    ///
    /// # Errors
    /// A limit of 0, or above the total.
    pub fn update(&self, limit: usize) -> Result<Changed, ConfigError> {
        self.checked(limit)?;
        let changed = self.parts.shared.state.update(limit)?;
        // First for those to come: one that is made meanwhile is put right by its maker.
        self.parts.recipe.limit.store(limit, Ordering::Relaxed);
        for partition in self.parts.partitions.all() {
            let state = &partition.gate.state;
            if !state.has_fixed_limit {
                state.set_limit(limit, false)?;
            }
        }
        Ok(changed)
    }

    fn checked(&self, limit: usize) -> Result<usize, ConfigError> {
        let Plan { total, tally, .. } = &self.parts.recipe;
        checked_share(limit, total.as_deref(), tally.name)
    }

    /// Whether [`update`](Self::update) would accept it.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, limit: usize) -> Result<(), ConfigError> {
        self.checked(limit).map(drop)
    }
}

impl<K> Plan<K> {
    /// One of several, which counts for so many threads.
    pub(super) fn bulkhead(&self, limit: usize, is_fixed: bool, stripes: usize) -> BulkheadGate {
        let (total, algorithm) = (self.total.clone(), self.adaptive.as_ref());
        let tally = self.tally.part(stripes);
        BulkheadGate::new(
            (limit, is_fixed),
            (total, algorithm),
            self.settings,
            self.clock,
            tally,
        )
    }
}

impl Keyable for BulkheadGate {
    type Recipe<K> = Plan<K>;
}

impl<K> Recipe<K, BulkheadGate> for Plan<K> {
    fn make(&self, key: &K) -> Result<BulkheadGate, ConfigError> {
        let fixed = self.limits.of(key);
        let limit = fixed.unwrap_or_else(|| self.limit.load(Ordering::Relaxed));
        let limit = checked_share(limit, self.total.as_deref(), self.tally.name)?;
        // One stripe: there are many bulkheads, and few threads at each.
        Ok(self.bulkhead(limit, fixed.is_some(), 1))
    }

    fn made(&self, bulkhead: &BulkheadGate) {
        let (state, limit) = (&bulkhead.state, self.limit.load(Ordering::Relaxed));
        if !state.has_fixed_limit && state.max() != limit {
            // What the shared bulkhead has accepted this one does.
            let _ = state.set_limit(limit, false);
        }
    }
}

impl<K> Observed for KeyedParts<K, BulkheadGate>
where
    K: Hash + Eq + Clone + Send + Sync,
{
    fn layer(&self) -> &'static str {
        self.recipe.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.recipe.tally.name
    }

    fn observe(&self) -> Instance {
        let partitions = self.partitions.all();
        let own = partitions.iter().map(|partition| &partition.gate);
        let bulkheads = own.chain([&self.shared]).map(|gate| &*gate.state);
        let limit = self.recipe.limit.load(Ordering::Relaxed);
        observe(&self.recipe.tally, (limit, None), bulkheads)
    }
}

impl<K> Clone for KeyedBulkheadHandle<K> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
        }
    }
}

impl<K> fmt::Debug for KeyedBulkheadHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBulkheadHandle")
            .finish_non_exhaustive()
    }
}
