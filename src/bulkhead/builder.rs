//! The builder.

use std::{hash::Hash, sync::atomic::AtomicUsize};

use crate::{
    ConfigError,
    algorithm::Overflow,
    bulkhead::{
        BulkheadGate, BulkheadHandle, BulkheadLayer, KeyedBulkheadHandle, KeyedBulkheadLayer,
        Missing, adaptive::Algorithm, keyed::Plan, state::checked,
    },
    gate::{GateLayer, Keyed, KeyedParts},
    keyed::{ByKey, KeySettings, NotKeyed},
    protocol::Plain,
};

/// Settings of a [`BulkheadLayer`], in any order.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BulkheadBuilder<K = NotKeyed, P = Plain> {
    limit: usize,
    pub(super) adaptive: Option<Algorithm>,
    enabled: bool,
    name: Option<&'static str>,
    keys: KeySettings,
    key: K,
    protocol: P,
}

impl BulkheadLayer {
    /// At most `limit` calls at once. Half of the peak rate times the longest latency that callers
    /// wait for is a start: by Little's law, at the whole of it every answer comes just too late.
    pub fn builder(limit: usize) -> BulkheadBuilder {
        BulkheadBuilder {
            limit,
            adaptive: None,
            enabled: true,
            name: None,
            keys: KeySettings::default(),
            key: NotKeyed,
            protocol: Plain::new(),
        }
    }
}

impl<P> BulkheadLayer<P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> BulkheadHandle {
        self.gate().handle()
    }
}

impl<K: Hash + Eq + Clone, F, P> KeyedBulkheadLayer<K, F, P> {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> KeyedBulkheadHandle<K> {
        self.gate().handle()
    }
}

impl<K, P> BulkheadBuilder<K, P> {
    /// `false` lets everything through, with the same type. Default `true`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Names this instance in errors.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// How many keys have a bulkhead of their own, if [a key](Self::keyed_by) is set. Default 1024.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.keys.max_keys = Some(keys);
        self
    }

    /// What becomes of new keys when there are more than that. Default [`Overflow::Shared`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.keys.overflow = Some(overflow);
        self
    }

    /// What becomes of requests without a key. Default [`Missing::Share`].
    pub fn missing(mut self, missing: Missing) -> Self {
        self.keys.missing = Some(missing);
        self
    }

    /// How rejections travel. Default [`Plain`]: as errors.
    pub fn protocol<Q>(self, protocol: Q) -> BulkheadBuilder<K, Q> {
        let Self {
            limit,
            adaptive,
            enabled,
            name,
            keys,
            key,
            ..
        } = self;
        BulkheadBuilder {
            limit,
            adaptive,
            enabled,
            name,
            keys,
            key,
            protocol,
        }
    }

    /// A bulkhead for each key, such as a host or a tenant, each with the whole limit: a closure
    /// `Fn(&Req) -> Option<K>` finds it.
    pub fn keyed_by<Req, L, F>(self, key: F) -> BulkheadBuilder<ByKey<L, F>, P>
    where
        F: Fn(&Req) -> Option<L>,
        L: Hash + Eq + Clone,
    {
        self.with_key(ByKey::new(key))
    }

    pub(crate) fn with_key<L>(self, key: L) -> BulkheadBuilder<L, P> {
        let Self {
            limit,
            adaptive,
            enabled,
            name,
            keys,
            protocol,
            ..
        } = self;
        BulkheadBuilder {
            limit,
            adaptive,
            enabled,
            name,
            keys,
            key,
            protocol,
        }
    }
}

impl<P> BulkheadBuilder<NotKeyed, P> {
    /// Starts with nothing in flight.
    ///
    /// # Errors
    /// A limit of 0, which would reject everything, or a setting that needs a key. `usize::MAX` is
    /// as good as none.
    pub fn build(self) -> Result<BulkheadLayer<P>, ConfigError> {
        self.keys
            .unset()
            .map_err(|error| error.of("bulkhead", self.name))?;
        let limit = checked(self.limit, self.name)?;
        let gate = BulkheadGate::new(limit, self.adaptive.as_ref(), self.enabled, self.name);
        Ok(GateLayer::with_protocol(gate, self.protocol))
    }
}

impl<K: Hash + Eq + Clone, F, P> BulkheadBuilder<ByKey<K, F>, P> {
    /// Starts with nothing in flight.
    ///
    /// # Errors
    /// A limit of 0, which would reject everything, or room for no key.
    pub fn build(self) -> Result<KeyedBulkheadLayer<K, F, P>, ConfigError> {
        let Self {
            limit,
            adaptive,
            enabled,
            name,
            keys,
            key,
            protocol,
        } = self;
        let max_keys = keys
            .max_keys(1024)
            .map_err(|error| error.of("bulkhead", name))?;
        let plan = Plan {
            limit: AtomicUsize::new(limit),
            adaptive,
            enabled,
            name,
        };
        let shared = plan.bulkhead()?;
        let fallback = (
            keys.overflow.unwrap_or_default(),
            keys.missing.unwrap_or_default(),
        );
        let parts = KeyedParts::new(max_keys, shared, plan, fallback, enabled);
        Ok(GateLayer::with_protocol(
            Keyed::new(key.key, parts),
            protocol,
        ))
    }
}

impl BulkheadBuilder {
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<BulkheadGate, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<K: Hash + Eq + Clone, F: Clone> BulkheadBuilder<ByKey<K, F>> {
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Keyed<K, F, BulkheadGate>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}
