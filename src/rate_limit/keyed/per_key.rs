//! A limit of its own for each key, of any kind.

use std::{cmp::Reverse, fmt, hash::Hash, sync::Arc};

use crate::{
    ConfigError,
    algorithm::Limit,
    ambient::clock::Clock,
    gate::{Keyable, Keyed, KeyedParts},
    keyed::{HasKey, partitions::Recipe},
    observe::{Instance, Observed, State, Tally, Totals},
    rate_limit::{
        LimitGate, RateLimitHandle,
        bucket::{self, Settings},
        state::AnyLimit,
    },
};

/// Watches and changes the rate limits that keys have of their own.
pub struct PerKeyRateLimitHandle<K> {
    parts: Arc<KeyedParts<K, LimitGate>>,
}

/// A builder's state: a [limit of its own](crate::rate_limit::RateLimitBuilder::per_key) for each
/// key.
pub struct PerKey<F: HasKey> {
    pub(in crate::rate_limit) key: F,
    pub(in crate::rate_limit) limit: MakeLimit<F::Key>,
}

/// What limits are made of. They all have one clock, so that a limit may be part of several.
pub struct Plans<K> {
    pub(in crate::rate_limit) limit: MakeLimit<K>,
    pub(in crate::rate_limit) clock: Clock,
    pub(in crate::rate_limit) settings: Settings,
    /// Of all keys together.
    pub(in crate::rate_limit) all: Arc<AllKeys>,
}

/// The limits of all keys, as the registry sees them.
#[derive(Debug)]
pub(in crate::rate_limit) struct AllKeys(pub(in crate::rate_limit) Arc<Tally>);

/// Makes the limit of a key.
pub(in crate::rate_limit) type MakeLimit<K> =
    Arc<dyn Fn(&K) -> Result<Box<dyn Limit>, ConfigError> + Send + Sync>;

impl<F: HasKey<Key: Hash + Eq + Clone>> Keyed<F, LimitGate> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> PerKeyRateLimitHandle<F::Key> {
        PerKeyRateLimitHandle {
            parts: self.parts().clone(),
        }
    }
}

impl<K: Hash + Eq + Clone> PerKeyRateLimitHandle<K> {
    /// The key's limit, if it has one of its own. The handle keeps it from being evicted, and so
    /// does a change of its rate or burst, for good.
    #[must_use]
    pub fn key(&self, key: &K) -> Option<RateLimitHandle> {
        self.parts
            .partitions
            .find_lasting(key)
            .map(|partition| partition.gate().handle())
    }

    /// The key's limit, made if it has none yet and there is a place for it: to set a customer's
    /// rate before its first call.
    #[must_use]
    pub fn make(&self, key: &K) -> Option<RateLimitHandle> {
        self.parts
            .find_or_make(key)
            .map(|partition| partition.gate().handle())
    }

    /// The limit that keys share which have none of their own.
    #[must_use]
    pub fn shared(&self) -> RateLimitHandle {
        self.parts.shared.handle()
    }

    /// The keys that have used most of what they have, the heaviest first: those whose limits will
    /// take longest to be whole again. At most `max`. Costs as much as [`keys`](Self::keys).
    #[must_use]
    pub fn heavy_hitters(&self, max: usize) -> Vec<(K, RateLimitHandle)> {
        let partitions = &self.parts.partitions;
        let mut keys =
            partitions.collect(|key, gate| (gate.state.until_whole(), key.clone(), gate.watch()));
        keys.sort_by_key(|(wait, ..)| Reverse(*wait));
        keys.truncate(max);
        keys.into_iter()
            .map(|(_, key, limit)| (key, limit))
            .collect()
    }

    /// What all limits have counted so far, evicted ones too. Costs some twenty loads for each.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.parts.recipe.all.0.totals()
    }

    /// All keys that have a limit of their own. Costs a copy of each key.
    ///
    /// These handles keep no key's place: a key that loses it to a new one stays, beyond the bound,
    /// for as long as they watch it.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, RateLimitHandle)> {
        let partitions = &self.parts.partitions;
        partitions.collect(|key, gate| (key.clone(), gate.watch()))
    }
}

impl Keyable for LimitGate {
    type Recipe<K> = Plans<K>;
}

impl<K> Recipe<K, LimitGate> for Plans<K> {
    fn make(&self, key: &K) -> Result<LimitGate, ConfigError> {
        let limit = (self.limit)(key)?;
        let settings = Settings {
            partition: self.settings.advertise.new_partition(),
            ..self.settings
        };
        Ok(LimitGate::new(
            AnyLimit::Other(limit),
            self.clock,
            settings,
            self.all.0.key(),
        ))
    }
}

impl Observed for AllKeys {
    fn layer(&self) -> &'static str {
        self.0.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.0.name
    }

    fn observe(&self) -> Instance {
        let state = State::RateLimit {
            queued: None,
            keys: None,
            evictions: None,
        };
        bucket::observe(&self.0, None, state)
    }
}

impl<K> Clone for PerKeyRateLimitHandle<K> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
        }
    }
}

impl<K> fmt::Debug for PerKeyRateLimitHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKeyRateLimitHandle")
            .finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for Plans<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plans")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<F: HasKey + Clone> Clone for PerKey<F> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            limit: self.limit.clone(),
        }
    }
}

impl<F: HasKey> fmt::Debug for PerKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerKey")
    }
}
