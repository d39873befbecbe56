//! A throttle for each key.

use std::{hash::Hash, sync::Arc};

use crate::{
    Changed, ConfigError,
    algorithm::throttle::ThrottleConfig,
    config::Editions,
    gate::{Keyable, KeyedHandle, KeyedParts},
    keyed::partitions::Factory,
    observe::{self, GateTally, Instance, KeyState, Observed, Tally},
    sync::stripe_count,
    throttle::{ThrottleGate, ThrottleHandle, handle::params},
};

/// The factory of the keys' throttles.
#[derive(Debug)]
pub struct ThrottleFactory {
    /// The settings of all throttles that have none of their own.
    configs: Editions<ThrottleConfig>,
    tally: Arc<Tally>,
}

impl<K: Hash + Eq + Clone> KeyedHandle<K, ThrottleGate> {
    /// Changes the settings of all throttles, future ones included. Each keeps its counts.
    ///
    /// # Errors
    /// As [`ThrottleHandle::update`].
    pub fn update(&self, config: ThrottleConfig) -> Result<Changed, ConfigError> {
        let configs = &self.parts.factory.configs;
        self.parts.shared.state.check(&config)?;
        let take = |gate: &ThrottleGate, config| gate.state.take(config);
        self.parts.update_all(configs, |_| Ok(config), take)
    }

    /// Checks whether an update to these settings would be accepted.
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

impl ThrottleFactory {
    pub(super) fn new(config: ThrottleConfig, tally: Arc<Tally>) -> Self {
        Self {
            configs: Editions::new(config),
            tally,
        }
    }

    /// Makes the throttle of all keys that have none of their own.
    pub(super) fn shared(&self) -> Result<ThrottleGate, ConfigError> {
        self.throttle(stripe_count(), self.tally.keyless())
    }

    fn throttle(&self, stripes: usize, tally: GateTally) -> Result<ThrottleGate, ConfigError> {
        let config = self.configs.latest();
        // The layer checks whether it is enabled before it looks up a key.
        ThrottleGate::new(config, stripes, true, tally)
    }
}

impl Keyable for ThrottleGate {
    type Factory<K> = ThrottleFactory;

    fn watch(&self) -> ThrottleHandle {
        ThrottleHandle::watching(self.state.clone())
    }
}

impl<K> Factory<K, ThrottleGate> for ThrottleFactory {
    fn make(&self, _: &K) -> Result<ThrottleGate, ConfigError> {
        // One stripe: there are many throttles, and few threads use the same one.
        self.throttle(1, self.tally.key())
    }

    fn made(&self, throttle: &ThrottleGate) {
        // This cannot fail: the shared throttle has accepted the same settings.
        let _ = throttle.state.take(self.configs.latest());
    }
}

impl<K> Observed for KeyedParts<K, ThrottleGate>
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
        let own = self.partitions.collect(|_, gate| gate.probability());
        let shared = self.shared.probability();
        let probability = own.into_iter().fold(shared, f64::max);
        let state = observe::State::Throttle { probability };
        let config = params(&self.factory.configs.settings());
        Instance::new(&self.tally, config, state).with_keys(self.shown_keys(|gate| {
            let probability = gate.probability();
            (KeyState::Throttle { probability }, &gate.state.tally)
        }))
    }
}
