//! A throttle for each key.

use std::{fmt, hash::Hash, sync::Arc};

use crate::{
    Changed, ConfigError,
    algorithm::throttle::ThrottleConfig,
    config::Editions,
    gate::{Keyable, Keyed, KeyedParts},
    keyed::{HasKey, partitions::Recipe},
    observe::{self, GateTally, Instance, Observed, Tally, Totals, trace},
    sync::stripe_count,
    throttle::{ThrottleGate, ThrottleHandle},
};

/// Watches and resets keyed throttles from outside.
pub struct KeyedThrottleHandle<K> {
    parts: Arc<KeyedParts<K, ThrottleGate>>,
}

/// What throttles are made of.
#[derive(Debug)]
pub struct Template {
    /// The settings of all those that have none of their own.
    configs: Editions<ThrottleConfig>,
    tally: Arc<Tally>,
}

impl<F: HasKey<Key: Hash + Eq + Clone>> Keyed<F, ThrottleGate> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> KeyedThrottleHandle<F::Key> {
        KeyedThrottleHandle {
            parts: self.parts().clone(),
        }
    }
}

impl<K: Hash + Eq + Clone> KeyedThrottleHandle<K> {
    /// The key's throttle, if it has one of its own. The handle keeps it from being evicted.
    #[must_use]
    pub fn key(&self, key: &K) -> Option<ThrottleHandle> {
        let partition = self.parts.partitions.find_lasting(key)?;
        Some(partition.gate().handle())
    }

    /// The throttle of all keys that have none of their own.
    #[must_use]
    pub fn shared(&self) -> ThrottleHandle {
        self.parts.shared.handle()
    }

    /// What all throttles have counted so far, evicted ones too. Costs some twenty loads for each.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.parts.recipe.tally.totals()
    }

    /// All keys that have a throttle of their own. Costs a copy of each key.
    ///
    /// These handles keep no key's place: a key that loses it to a new one stays, beyond the bound,
    /// for as long as they watch it.
    #[must_use]
    pub fn keys(&self) -> Vec<(K, ThrottleHandle)> {
        let partitions = &self.parts.partitions;
        partitions.collect(|key, gate| (key.clone(), gate.watch()))
    }

    /// Takes other settings for all throttles, those to come included; each keeps its counts.
    ///
    /// # Errors
    /// As [`ThrottleHandle::update`].
    pub fn update(&self, config: ThrottleConfig) -> Result<Changed, ConfigError> {
        let KeyedParts {
            partitions,
            shared,
            recipe,
            ..
        } = &*self.parts;
        let Template { configs, tally } = recipe;
        // What one accepts they all do.
        shared.state.check(&config)?;
        // First for those to come: one that is made meanwhile is put right by its maker.
        let config = configs.change(|_| Ok(config))?;
        let changed = shared.state.take(config)?;
        trace::updated((tally.layer, tally.name), &changed);
        partitions.each(|_, gate| drop(gate.state.take(config)));
        Ok(changed)
    }

    /// Whether an update to these settings would be accepted.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, config: &ThrottleConfig) -> Result<(), ConfigError> {
        self.parts.shared.state.check(config)
    }

    /// Forgets all calls of all keys, and so rejects nothing until there are new failures.
    pub fn reset(&self) {
        self.shared().reset();
        let partitions = &self.parts.partitions;
        partitions.each(|_, gate| gate.state.throttle.reset());
    }
}

impl Template {
    pub(super) fn new(config: ThrottleConfig, tally: Arc<Tally>) -> Self {
        Self {
            configs: Editions::new(config),
            tally,
        }
    }

    /// The throttle of all keys that have none of their own.
    pub(super) fn shared(&self) -> Result<ThrottleGate, ConfigError> {
        self.throttle(stripe_count(), self.tally.keyless())
    }

    fn throttle(&self, stripes: usize, tally: GateTally) -> Result<ThrottleGate, ConfigError> {
        let config = self.configs.latest();
        // Whether it is enabled is asked before there is a key.
        ThrottleGate::new(config, stripes, true, tally)
    }
}

impl Keyable for ThrottleGate {
    type Recipe<K> = Template;
}

impl<K> Recipe<K, ThrottleGate> for Template {
    fn make(&self, _: &K) -> Result<ThrottleGate, ConfigError> {
        // One stripe: there are many throttles, and few threads at each.
        self.throttle(1, self.tally.key())
    }

    fn made(&self, throttle: &ThrottleGate) {
        // What the shared throttle has accepted this one does.
        let _ = throttle.state.take(self.configs.latest());
    }
}

impl<K> Observed for KeyedParts<K, ThrottleGate>
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
        let own = self.partitions.collect(|_, gate| gate.probability());
        let shared = self.shared.probability();
        let probability = own.into_iter().fold(shared, f64::max);
        let state = observe::State::Throttle { probability };
        Instance::new(&self.recipe.tally, Vec::new(), state)
    }
}

impl<K> Clone for KeyedThrottleHandle<K> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
        }
    }
}

impl<K> fmt::Debug for KeyedThrottleHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedThrottleHandle")
            .finish_non_exhaustive()
    }
}
