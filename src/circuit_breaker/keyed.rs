//! A circuit per key.

use std::{any::Any, hash::Hash, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    Changed, ConfigError,
    algorithm::{Breaker, BreakerConfig, BreakerState, Counts},
    ambient::chance,
    circuit_breaker::{
        CircuitBreakerHandle, CircuitGate,
        all::{AllCircuits, Shown},
        changes::in_force,
        state::Settings,
    },
    gate::{Keyable, KeyedHandle, KeyedParts, WatchedCircuits},
    keyed::{KeyText, KeyTexts, Keyless, partitions::Factory},
    observe::{GateTally, KeyInstance},
    sync::stripe_count,
};

/// The factory of circuits.
#[derive(Debug)]
pub struct CircuitFactory<K> {
    all: Arc<AllCircuits>,
    settings: Settings,
    texts: KeyTexts<K>,
}

impl<K: Hash + Eq + Clone> KeyedHandle<K, CircuitGate> {
    /// Changes the settings of all circuits, present and future. Each keeps its state and window.
    ///
    /// # Errors
    /// As [`CircuitBreakerHandle::update`].
    pub fn update(&self, config: BreakerConfig) -> Result<Changed, ConfigError> {
        let all = &self.parts.factory.all;
        self.parts.shared.state.check(&config)?;
        let take = |gate: &CircuitGate, config| gate.state.take(config);
        self.parts.update_all(&all.configs, |_| Ok(config), take)
    }

    /// Returns an error if [`update`](Self::update) would reject the settings.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, config: &BreakerConfig) -> Result<(), ConfigError> {
        self.parts.shared.state.check(config)
    }
}

impl<K> WatchedCircuits for KeyedHandle<K, CircuitGate>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    /// Returns `false` for a key that is not known here. Its circuit will be a new, closed one or
    /// the shared one, so a rejection would not be certain.
    fn is_open_at(&self, key: Option<&dyn Any>, moment: Instant) -> bool {
        let is_keyless = key.is_some_and(<dyn Any>::is::<Keyless>);
        if self.parts.all_share_one() || is_keyless && self.parts.keyless_share() {
            return self.parts.shared.handle().is_open_at(None, moment);
        }
        let key = key.and_then(<dyn Any>::downcast_ref::<K>);
        let partition = key.and_then(|key| self.parts.partitions.find(key));
        partition.is_some_and(|partition| partition.gate().handle().is_open_at(None, moment))
    }
}

impl<K> CircuitFactory<K> {
    pub(super) fn new(settings: Settings, all: Arc<AllCircuits>, texts: KeyTexts<K>) -> Self {
        Self {
            settings,
            all,
            texts,
        }
    }

    /// Creates the circuit that all keys without their own share.
    pub(super) fn shared(&self) -> Result<CircuitGate, ConfigError> {
        self.circuit(stripe_count(), self.all.tally.keyless(), None)
    }

    fn circuit(
        &self,
        stripes: usize,
        tally: GateTally,
        key: Option<KeyText>,
    ) -> Result<CircuitGate, ConfigError> {
        let config = self.all.configs.latest();
        let breaker = Breaker::new(&in_force(&config.settings), stripes, chance::word())?;
        let all = self.all.clone();
        let counted = (all, tally, key);
        Ok(CircuitGate::new(breaker, config, self.settings, counted))
    }
}

impl Keyable for CircuitGate {
    type Factory<K> = CircuitFactory<K>;

    fn watch(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle::watching(self.state.clone())
    }
}

impl<K> Factory<K, CircuitGate> for CircuitFactory<K> {
    fn make(&self, key: &K) -> Result<CircuitGate, ConfigError> {
        // One stripe, because there are many circuits and few threads use each.
        self.circuit(1, self.all.tally.key(), Some(self.texts.text(key)))
    }

    fn made(&self, circuit: &CircuitGate) {
        // The shared circuit has accepted these settings, so this one accepts them.
        let _ = circuit.state.take(self.all.configs.latest());
    }
}

impl<K> Shown for KeyedParts<K, CircuitGate>
where
    K: Hash + Eq + Clone + Send + Sync,
{
    /// Returns the counts of the circuit with the largest failure rate among those with enough
    /// calls to be judged. Other circuits count only if there is none such. So an alert on that
    /// rate shows that some key's circuit is about to open.
    fn counts(&self) -> Counts {
        let min_calls = u64::from(self.config().min_calls);
        let own = self.partitions.collect(|_, gate| gate.state.counts());
        let counts = own.into_iter().chain([self.shared.state.counts()]);
        let judged = |counts: &Counts| counts.total() >= min_calls;
        counts
            .max_by(|one, two| {
                let rates = one.failure_rate().total_cmp(&two.failure_rate());
                judged(one)
                    .cmp(&judged(two))
                    .then(rates)
                    .then(one.total().cmp(&two.total()))
            })
            .unwrap_or_default()
    }

    fn keys(&self) -> (Vec<KeyInstance>, bool) {
        self.shown_keys(|gate| (gate.state.key_state(), &gate.state.tally))
    }

    fn config(&self) -> BreakerConfig {
        self.factory.all.configs.settings()
    }

    fn open(&self) -> (usize, Duration) {
        let own = self.partitions.collect(|_, gate| gate.state.open_for());
        let all = own.into_iter().chain([self.shared.state.open_for()]);
        all.flatten()
            .fold((0, Duration::ZERO), |(count, longest), since| {
                (count + 1, longest.max(since))
            })
    }

    /// Returns closed for the shared circuit while every call has a key with its own circuit. A
    /// shared circuit that was forced open is counted, because its handle was used.
    fn unused(&self) -> Option<BreakerState> {
        let closed = self.shared.state.breaker.state() == BreakerState::Closed;
        (closed && !self.uses_shared()).then_some(BreakerState::Closed)
    }
}
