//! A limit of any kind for each key.

use std::{cmp::Reverse, fmt, hash::Hash, sync::Arc};

use crate::{
    ConfigError,
    algorithm::Limit,
    ambient::clock::Clock,
    gate::{Keyable, KeyedHandle},
    keyed::{HasKey, partitions::Factory},
    observe::{Instance, Observed, State, Tally},
    rate_limit::{
        LimitGate, RateLimitHandle,
        any_limit::AnyLimit,
        bucket,
        fleet::Fleet,
        key_hash::{FleetSecret, KeyHash},
        settings::Settings,
    },
};

/// A builder's state: a [limit of its own](crate::rate_limit::RateLimitBuilder::per_key) for each
/// key.
pub struct PerKey<F: HasKey> {
    pub(in crate::rate_limit) key: F,
    pub(in crate::rate_limit) limit: MakeLimit<F::Key>,
}

/// The factory of the keys' limits. All limits have one clock, so that several may share a part.
pub struct LimitFactory<K> {
    pub(in crate::rate_limit) limit: MakeLimit<K>,
    pub(in crate::rate_limit) clock: Clock,
    pub(in crate::rate_limit) settings: Settings,
    /// The part that asks the store, if the limits are shared.
    pub(in crate::rate_limit) fleet: Option<FleetOfKeys<K>>,
    /// The counts of all keys together.
    pub(in crate::rate_limit) all: Arc<AllKeys>,
}

/// The fleet that shares the keys' limits, and the hash by which the store knows a key.
pub(in crate::rate_limit) struct FleetOfKeys<K> {
    fleet: Arc<Fleet>,
    hash: fn(FleetSecret, &K) -> KeyHash,
}

/// The limits of all keys, as the registry sees them.
#[derive(Debug)]
pub(in crate::rate_limit) struct AllKeys {
    pub(in crate::rate_limit) tally: Arc<Tally>,
    pub(in crate::rate_limit) settings: Settings,
    pub(in crate::rate_limit) fleet: Option<Arc<Fleet>>,
}

/// Makes the limit of a key.
pub(in crate::rate_limit) type MakeLimit<K> =
    Arc<dyn Fn(&K) -> Result<Box<dyn Limit>, ConfigError> + Send + Sync>;

impl<K: Hash + Eq + Clone> KeyedHandle<K, LimitGate> {
    /// Returns the keys that have used most of their limit, the heaviest first: those whose limits
    /// take longest to refill. At most `max`. Costs as much as [`keys`](Self::keys).
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
}

impl Keyable for LimitGate {
    type Factory<K> = LimitFactory<K>;

    fn watch(&self) -> RateLimitHandle {
        RateLimitHandle::watching(self.state.clone())
    }
}

impl<K> Factory<K, LimitGate> for LimitFactory<K> {
    fn make(&self, key: &K) -> Result<LimitGate, ConfigError> {
        let limit = self.limit_of(key)?;
        let settings = Settings {
            partition: self.settings.advertise.new_partition(),
            ..self.settings
        };
        Ok(LimitGate::new(
            limit,
            settings,
            self.clock,
            self.all.tally.key(),
        ))
    }
}

impl<K: Hash> FleetOfKeys<K> {
    pub(in crate::rate_limit) fn new(fleet: Arc<Fleet>) -> Self {
        let hash = FleetSecret::of::<K>;
        Self { fleet, hash }
    }
}

impl<K> FleetOfKeys<K> {
    pub(in crate::rate_limit) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    pub(in crate::rate_limit) fn hash(&self, key: &K) -> KeyHash {
        (self.hash)(self.fleet.secret, key)
    }
}

impl<K> LimitFactory<K> {
    /// Makes the limit of a key. In a fleet, it has the given rate and burst, and the store knows
    /// it by the key's hash.
    fn limit_of(&self, key: &K) -> Result<AnyLimit, ConfigError> {
        let limit = (self.limit)(key)?;
        let Some(of_keys) = &self.fleet else {
            return Ok(AnyLimit::Other(limit));
        };
        let fleet = of_keys.fleet();
        let key = format!("{}:{}", fleet.name, of_keys.hash(key));
        fleet.limit(key.into(), limit.rate(), limit.burst())
    }
}

impl Observed for AllKeys {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let state = State::RateLimit {
            queued: None,
            keys: None,
            evictions: None,
            fleet: self.fleet.as_ref().map(|fleet| fleet.counts()),
        };
        bucket::observe((&self.tally, Some(&self.settings)), None::<(_, u32)>, state)
    }
}

impl<K> fmt::Debug for LimitFactory<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitFactory")
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
