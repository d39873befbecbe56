//! The limits of keys.

use std::{collections::HashMap, fmt, hash::Hash, sync::Arc, time::Duration};

use crate::{
    ConfigError,
    ambient::clock::nanos,
    bulkhead::settings::checked,
    keyed::{ByKey, HasKey, KeyTexts, sealed},
};

/// The builder's type of key: a bulkhead per key that a closure finds.
pub struct LimitByKey<F: HasKey> {
    pub(super) key: F,
    pub(super) limits: Limits<F::Key>,
    pub(crate) texts: KeyTexts<F::Key>,
}

/// The limits of keys that have one of their own.
pub(super) struct Limits<K> {
    listed: Option<Listed<K>>,
    by_key: Option<LimitFor<K>>,
}

/// The settings of all keys that are changed in one step, because one bounds the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// The limit of each key that has none of its own.
    pub(super) limit: usize,
    /// The total of all keys.
    pub(super) total: Option<usize>,
    /// The nanoseconds after which permits may be taken back, if they may.
    pub(super) reclaim_after: Option<u64>,
}

/// The limit of a bulkhead, and its origin.
pub(super) struct BulkheadLimit {
    pub(super) limit: usize,
    /// If true, the builder gave the key a limit of its own.
    pub(super) is_fixed: bool,
    /// The nanoseconds after which permits may be taken back, if they may.
    pub(super) reclaim_after: Option<u64>,
    /// The edition of the settings of all keys that it comes from.
    pub(super) edition: u64,
}

/// The keys that are known when the layer is built.
struct Listed<K> {
    /// A closure over a map, so that only a list needs keys that can be hashed.
    limit: LimitFor<K>,
    all: Vec<usize>,
}

type LimitFor<K> = Arc<dyn Fn(&K) -> Option<usize> + Send + Sync>;

impl BulkheadLimit {
    /// Creates the limit of a bulkhead without keys.
    pub(super) fn of_all(limit: usize, reclaim_after: Option<Duration>) -> Self {
        Self {
            limit,
            is_fixed: false,
            reclaim_after: reclaim_after.map(nanos),
            edition: 0,
        }
    }
}

impl<F: HasKey> sealed::KeyIsSet for LimitByKey<F> {}

impl<F: HasKey<Key: Hash>> LimitByKey<F> {
    pub(crate) fn new(key: F) -> Self {
        let limits = Limits {
            listed: None,
            by_key: None,
        };
        let texts = KeyTexts::redacted();
        Self { key, limits, texts }
    }
}

impl<F: HasKey<Key: Hash>> From<ByKey<F>> for LimitByKey<F> {
    fn from(ByKey { key, texts }: ByKey<F>) -> Self {
        let own = Self::new(key);
        Self { texts, ..own }
    }
}

impl<F: HasKey> LimitByKey<F> {
    pub(super) fn limit_for<L, G>(mut self, limit: G) -> Self
    where
        G: Fn(&F::Key) -> L + Send + Sync + 'static,
        L: Into<Option<usize>>,
    {
        self.limits.by_key = Some(Arc::new(move |key| limit(key).into()));
        self
    }

    pub(super) fn limits(mut self, limits: HashMap<F::Key, usize>) -> Self
    where
        F::Key: Hash + Eq + Send + Sync + 'static,
    {
        self.limits.listed = Some(Listed {
            all: limits.values().copied().collect(),
            limit: Arc::new(move |key| limits.get(key).copied()),
        });
        self
    }
}

impl<K> Limits<K> {
    /// Returns the own limit of a key, if it has one.
    pub(super) fn of(&self, key: &K) -> Option<usize> {
        let listed = self.listed.as_ref();
        let listed = listed.and_then(|listed| (listed.limit)(key));
        listed.or_else(|| self.by_key.as_ref().and_then(|limit| limit(key)))
    }

    /// Returns the sum of the limits of the list.
    pub(super) fn listed(&self) -> usize {
        let all = self.listed.iter().flat_map(|listed| &listed.all);
        all.fold(0, |sum, limit| sum.saturating_add(*limit))
    }

    pub(super) fn check(
        &self,
        total: Option<usize>,
        name: Option<&'static str>,
    ) -> Result<(), ConfigError> {
        let mut all = self.listed.iter().flat_map(|listed| &listed.all);
        all.try_for_each(|limit| checked(*limit, name).map(drop))?;
        match total {
            Some(total) if total < self.listed() => {
                let fix =
                    "guarantee at most the total of `within` to all keys of the list together";
                Err(ConfigError::new("limits", self.listed(), fix).of("bulkhead", name))
            }
            _ => Ok(()),
        }
    }
}

impl<K> Clone for Limits<K> {
    fn clone(&self) -> Self {
        Self {
            listed: self.listed.clone(),
            by_key: self.by_key.clone(),
        }
    }
}

impl<K> Clone for Listed<K> {
    fn clone(&self) -> Self {
        Self {
            limit: self.limit.clone(),
            all: self.all.clone(),
        }
    }
}

impl<F: HasKey + Clone> Clone for LimitByKey<F> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            limits: self.limits.clone(),
            texts: self.texts.clone(),
        }
    }
}

impl<F: HasKey> fmt::Debug for LimitByKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitByKey")
    }
}

impl<K> fmt::Debug for Limits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("listed", &self.listed())
            .field("by_key", &self.by_key.is_some())
            .finish()
    }
}
