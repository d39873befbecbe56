//! The builder of a throttle.

use std::{hash::Hash, sync::Arc, time::Duration};

use crate::{
    ConfigError, Name,
    algorithm::{Overflow, throttle::ThrottleConfig},
    config::Editions,
    gate::{Controlled, GateLayer, Keyed, KeyedParts},
    keyed::{ByKey, HasKey, KeyFn, KeyIsSet, KeySettings, Missing, NotKeyed},
    observe::{Tally, register},
    protocol::{Choice, Chosen, Unset},
    sync::stripe_count,
    throttle::{
        KeyedThrottleLayer, ThrottleGate, ThrottleHandle, ThrottleLayer, keyed::ThrottleFactory,
    },
};

/// Settings of a [`ThrottleLayer`], in any order. [`ThrottleConfig`] explains each, with the reason
/// for its default.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ThrottleBuilder<K = NotKeyed, P = Unset> {
    values: ThrottleValues,
    key: K,
    protocol: P,
}

/// The settings that no type parameter of the builder depends on.
#[derive(Debug, Clone)]
struct ThrottleValues {
    config: ThrottleConfig,
    enabled: bool,
    name: Option<&'static str>,
    keys: KeySettings,
}

impl ThrottleLayer {
    /// Starts a builder. By default the layer sends at most twice what the upstream accepted in the
    /// last two minutes. It rejects nothing below 20 calls, and always sends at least one call in
    /// twenty.
    pub fn builder() -> ThrottleBuilder {
        ThrottleBuilder {
            values: ThrottleValues {
                config: ThrottleConfig::default(),
                enabled: true,
                name: None,
                keys: KeySettings::default(),
            },
            key: NotKeyed,
            protocol: Unset,
        }
    }
}

impl Controlled for ThrottleGate {
    type Handle = ThrottleHandle;

    fn control(&self) -> ThrottleHandle {
        self.handle()
    }
}

impl<K, P> ThrottleBuilder<K, P> {
    /// Sets all settings of the algorithm at once, and replaces those set so far.
    pub fn config(mut self, config: ThrottleConfig) -> Self {
        self.values.config = config;
        self
    }

    /// Sets the ratio of calls sent to calls accepted by the upstream. Default 2.
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.values.config.multiplier = multiplier;
        self
    }

    /// Sets how long a call counts. Default 2 minutes.
    pub fn window(mut self, window: Duration) -> Self {
        self.values.config.window = window;
        self
    }

    /// Sets how many calls the window must hold before any is rejected. Default 20.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.values.config.min_calls = calls;
        self
    }

    /// Sets the highest probability of a rejection. Default 0.95.
    pub fn max_rejection(mut self, probability: f64) -> Self {
        self.values.config.max_rejection = probability;
        self
    }

    /// If `false`, lets every call through, with the same type, and counts nothing. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.values.enabled = enabled;
        self
    }

    /// Names this instance in errors and events, and adds it to the
    /// [`Registry`](crate::observe::Registry). Without a name it has no metrics.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.values.name = Some(name.into().as_str());
        self
    }

    /// Sets the settings of keys that are not set yet: a stack's, or a file's.
    #[cfg(feature = "http")]
    pub(crate) fn key_settings(mut self, keys: KeySettings) -> Self {
        self.values.keys.or(keys);
        self
    }

    /// Sets the protocol, which classifies results and carries rejections. No default: over HTTP,
    /// [`Plain`](crate::protocol::Plain) would count every 503 as accepted.
    pub fn protocol<Q>(self, protocol: Q) -> ThrottleBuilder<K, Chosen<Q>> {
        ThrottleBuilder {
            values: self.values,
            key: self.key,
            protocol: Chosen(protocol),
        }
    }

    /// Gives each key, such as a host or a route, its own throttle. A closure `Fn(&Req) ->
    /// Option<K>` finds the key.
    pub fn keyed_by<Req, L, F>(self, key: F) -> ThrottleBuilder<ByKey<KeyFn<F, Req>>, P>
    where
        F: Fn(&Req) -> Option<L>,
        L: Hash + Eq + Clone,
    {
        self.with_key(ByKey::new(KeyFn::new(key)))
    }

    /// Gives each requested [host](crate::keyed::Host) its own throttle, as the client's
    /// [stack](crate::stack) has a circuit for each.
    #[cfg(feature = "http")]
    pub fn per_host(self) -> ThrottleBuilder<ByKey<crate::keyed::ByHost>, P> {
        self.with_key(ByKey::new(crate::keyed::ByHost))
    }

    pub(crate) fn with_key<L>(self, key: L) -> ThrottleBuilder<L, P> {
        ThrottleBuilder {
            values: self.values,
            key,
            protocol: self.protocol,
        }
    }

    fn error(&self, error: ConfigError) -> ConfigError {
        error.of("throttle", self.values.name)
    }
}

impl<K: KeyIsSet, P> ThrottleBuilder<K, P> {
    /// Sets how many keys have a throttle of their own. Default 1024, some 1.3 MiB.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.values.keys.max_keys = Some(keys);
        self
    }

    /// Sets the fate of new keys when there is no room for more. Default [`Overflow::Shared`]: they
    /// share one throttle.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.values.keys.overflow = Some(overflow);
        self
    }

    /// Sets the fate of requests without a key. Default [`Missing::Share`]: they share the throttle
    /// of the keys that overflow.
    pub fn missing(mut self, missing: Missing) -> Self {
        self.values.keys.missing = Some(missing);
        self
    }

    /// Adds a label `key` to the gauges in metrics, if keys are few. At most `max` keys, from 1 to
    /// 256, get their own label. Later ones share the label `other`. Default: no labels.
    pub fn label_keys(mut self, max: usize) -> Self {
        self.values.keys.label_keys = Some(max);
        self
    }
}

impl<F: HasKey, P> ThrottleBuilder<ByKey<F>, P> {
    /// Shows keys in snapshots and as [labels](Self::label_keys), with the text that a closure
    /// `Fn(&K) -> String` makes of a key. Default: a hash, so that keys stay secret.
    pub fn show_keys(mut self, show: impl Fn(&F::Key) -> String + Send + Sync + 'static) -> Self {
        self.key.texts.show(show);
        self
    }
}

impl<P> ThrottleBuilder<NotKeyed, P> {
    /// Builds the layer, with an empty window.
    ///
    /// # Errors
    /// A setting outside the range that [`ThrottleConfig`] gives for it.
    pub fn build(self) -> Result<ThrottleLayer<P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let gate = self.made()?;
        Ok(GateLayer::with_protocol(gate, self.protocol.protocol()))
    }

    fn made(&self) -> Result<ThrottleGate, ConfigError> {
        let tally = Arc::new(Tally::new("throttle", self.values.name));
        let config = Editions::new(self.values.config).latest();
        let gate = ThrottleGate::new(config, stripe_count(), self.values.enabled, tally.all())?;
        register(&gate.state);
        Ok(gate)
    }
}

impl ThrottleBuilder {
    /// Builds a gate, to combine with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<ThrottleGate, ConfigError> {
        self.made()
    }
}

impl<F, P> ThrottleBuilder<ByKey<F>, P>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Builds the layer, with the shared throttle only. Each throttle starts with an empty window.
    ///
    /// # Errors
    /// A setting outside the range that [`ThrottleConfig`] gives for it, or a `max_keys` of 0.
    pub fn build(self) -> Result<KeyedThrottleLayer<F, P::Protocol>, ConfigError>
    where
        P: Choice,
    {
        let (gate, protocol) = self.made()?;
        Ok(GateLayer::with_protocol(gate, protocol.protocol()))
    }

    fn made(self) -> Result<(Keyed<F, ThrottleGate>, P), ConfigError> {
        let max_keys = self.values.keys.max_keys(1024);
        let max_keys = max_keys.map_err(|error| self.error(error))?;
        let tally = Arc::new(Tally::new("throttle", self.values.name));
        let factory = ThrottleFactory::new(self.values.config, tally.clone());
        let shared = factory.shared()?;
        let otherwise = (
            self.values.keys.overflow.unwrap_or_default(),
            self.values.keys.missing.unwrap_or_default(),
        );
        let labels = self.values.keys.label_keys();
        let labels = labels.map_err(|error| self.error(error))?;
        let parts = KeyedParts::new(
            max_keys,
            (shared, tally),
            factory,
            otherwise,
            self.values.enabled,
        )
        .texts(self.key.texts.labelled(labels));
        let keyed = Keyed::new(self.key.key, parts);
        register(keyed.parts());
        Ok((keyed, self.protocol))
    }
}

impl<F> ThrottleBuilder<ByKey<F>>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Builds a gate, to combine with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Keyed<F, ThrottleGate>, ConfigError> {
        self.made().map(|(gate, _)| gate)
    }
}
