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
    ConfigError,
    bulkhead::{BulkheadGate, BulkheadHandle, adaptive::Algorithm, state::checked},
    gate::{Keyable, Keyed, KeyedParts},
    keyed::partitions::Recipe,
};

/// Watches and changes keyed bulkheads from outside.
pub struct KeyedBulkheadHandle<K> {
    parts: Arc<KeyedParts<K, BulkheadGate>>,
}

/// What bulkheads are made of.
#[derive(Debug)]
pub struct Plan {
    /// Relaxed: one that is made beside a change is put right by whoever made it.
    pub(super) limit: AtomicUsize,
    pub(super) adaptive: Option<Algorithm>,
    pub(super) enabled: bool,
    pub(super) name: Option<&'static str>,
}

impl<K: Hash + Eq + Clone, F> Keyed<K, F, BulkheadGate> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> KeyedBulkheadHandle<K> {
        KeyedBulkheadHandle {
            parts: self.parts().clone(),
        }
    }
}

impl<K: Hash + Eq + Clone> KeyedBulkheadHandle<K> {
    /// The key's bulkhead, if it has one of its own just now: one in which nothing is in flight may
    /// be evicted, unless a handle holds it.
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

    /// All keys that have a bulkhead of their own. Costs a copy of each key.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, BulkheadHandle)> {
        let partitions = self.parts.partitions.all().into_iter();
        partitions
            .map(|partition| (partition.key().clone(), partition.gate.handle()))
            .collect()
    }

    /// Changes the limit of every key, those to come included.
    ///
    /// # Errors
    /// A limit of 0.
    pub fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        self.parts.shared.handle().set_limit(limit)?;
        self.parts.recipe.limit.store(limit, Ordering::Relaxed);
        let mut partitions = self.parts.partitions.all().into_iter();
        partitions.try_for_each(|partition| partition.gate.handle().set_limit(limit))
    }
}

impl Plan {
    pub(super) fn bulkhead(&self) -> Result<BulkheadGate, ConfigError> {
        let limit = checked(self.limit.load(Ordering::Relaxed), self.name)?;
        let algorithm = self.adaptive.as_ref();
        Ok(BulkheadGate::new(limit, algorithm, self.enabled, self.name))
    }
}

impl Keyable for BulkheadGate {
    type Recipe<K> = Plan;
}

impl<K> Recipe<K, BulkheadGate> for Plan {
    fn make(&self, _: &K) -> Result<BulkheadGate, ConfigError> {
        self.bulkhead()
    }

    fn made(&self, bulkhead: &BulkheadGate) {
        bulkhead.state.set_limit(self.limit.load(Ordering::Relaxed));
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
