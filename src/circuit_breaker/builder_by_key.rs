//! The end of a builder with keys.

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
    /// [labels](Self::label_keys), as the text that a closure `Fn(&K) -> String` makes of one, of
    /// which 128 bytes are kept. Default: they are redacted, as a hash that is the same in all
    /// layers of the process and in no other process.
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
    /// It is asked once for each circuit, when that is made, and for snapshots. A text that it
    /// cannot make, by a panic, is redacted.
    pub fn show_keys(mut self, show: impl Fn(&F::Key) -> String + Send + Sync + 'static) -> Self {
        self.key.texts.show(show);
        self
    }
}

impl<F, P> CircuitBreakerBuilder<ByKey<F>, P>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Starts with no circuits but that which keys share; each is closed at first.
    ///
    /// # Errors
    /// A setting outside the range that [`BreakerConfig`](super::BreakerConfig) gives for it; no
    /// keys; backpressure, because readiness is asked before there is a request, and so a key.
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
        let all = Arc::new(AllCircuits::new(
            self.values.config,
            self.values.settings.known(),
        ));
        let labels = self.values.keys.label_keys();
        let labels = labels.map_err(|error| self.error(error))?;
        let texts = self.key.texts.clone().labelled(labels);
        let factory = CircuitFactory::new(all.clone(), self.values.settings, texts.clone());
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
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Keyed<F, CircuitGate>, ConfigError> {
        self.made().map(|(gate, _)| gate)
    }
}
