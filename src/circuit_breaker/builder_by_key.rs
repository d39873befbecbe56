//! The keyed builder's `build` and `gate`.

use std::{hash::Hash, sync::Arc};

use crate::{
    ConfigError,
    circuit_breaker::{
        CircuitBreakerBuilder, CircuitGate, KeyedCircuitBreakerLayer,
        all::{AllCircuits, Shown},
        keyed::CircuitFactory,
    },
    gate::{GateLayer, Keyed, KeyedParts},
    keyed::{ByKey, HasKey},
    observe::register,
    protocol::Choice,
};

impl<F: HasKey, P> CircuitBreakerBuilder<ByKey<F>, P> {
    /// Shows keys in events of transitions, on a [page](crate::observe) and as
    /// [labels](Self::label_keys). A closure `Fn(&K) -> String` returns the text, of which 128
    /// bytes are kept. Default: keys are redacted, as a hash that is the same in all layers of the
    /// process, and different in any other process.
    ///
    /// ```
    /// use tower_keep::{circuit_breaker::CircuitBreakerLayer, protocol::Plain};
    ///
    /// let tenants = CircuitBreakerLayer::builder()
    ///     .protocol(Plain::new())
    ///     .keyed_by(|tenant: &&'static str| Some(*tenant))
    ///     .show_keys(ToString::to_string)
    ///     .build()?;
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    ///
    /// The closure is called once per circuit, when that is created, and for snapshots. If it
    /// panics, the key is redacted.
    pub fn show_keys(mut self, show: impl Fn(&F::Key) -> String + Send + Sync + 'static) -> Self {
        self.key.texts.show(show);
        self
    }
}

impl<F, P> CircuitBreakerBuilder<ByKey<F>, P>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Builds the layer. At first its only circuit is the shared one. Every circuit starts closed.
    ///
    /// # Errors
    /// A setting is outside the range that [`BreakerConfig`](super::BreakerConfig) gives for it, or
    /// there are no keys. Or backpressure is set: readiness is polled before there is a request,
    /// and thus a key. Or a [critical](Self::critical) circuit has no name.
    pub fn build(self) -> Result<KeyedCircuitBreakerLayer<F, P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let (gate, protocol) = self.made()?;
        Ok(GateLayer::with_protocol(gate, protocol.protocol()))
    }

    fn made(self) -> Result<(Keyed<F, CircuitGate>, P), ConfigError> {
        let max_keys = self
            .values
            .keys
            .max_keys(1024)
            .map_err(|error| self.error(error))?;
        if self.values.settings.has_backpressure() && !self.values.keys.all_share {
            let fix = "leave it: readiness is asked before the key is known; a stack for one peer \
                       is `one_peer`";
            return Err(self.error(ConfigError::new("backpressure", true, fix)));
        }
        let checked = self.values.settings.check();
        checked.map_err(|error| self.error(error))?;
        let all = Arc::new(AllCircuits::new(
            self.values.config,
            self.values.settings.known(),
        ));
        let labels = self.values.keys.label_keys();
        let labels = labels.map_err(|error| self.error(error))?;
        let texts = self.key.texts.clone().labelled(labels);
        let factory = CircuitFactory::new(self.values.settings, all.clone(), texts.clone());
        let shared = factory.shared().map_err(|error| self.error(error))?;
        let keys = (
            self.values.keys.overflow.unwrap_or_default(),
            self.values.keys.missing.unwrap_or_default(),
        );
        register(&all);
        let parts = KeyedParts::new(
            max_keys,
            (shared, all.tally.clone()),
            factory,
            keys,
            self.values.settings.enabled,
        )
        .all_share(self.values.keys.all_share)
        .texts(texts);
        let keyed = Keyed::new(self.key.key, parts);
        let shown: Arc<dyn Shown> = keyed.parts().clone();
        all.shows(Arc::downgrade(&shown));
        Ok((keyed, self.protocol))
    }
}

impl<F> CircuitBreakerBuilder<ByKey<F>>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Builds a gate, to be combined with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Keyed<F, CircuitGate>, ConfigError> {
        self.made().map(|(gate, _)| gate)
    }
}
