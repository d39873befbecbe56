//! The `build` and `gate` methods of the builder.

use std::{hash::Hash, sync::Arc};

use crate::{
    ConfigError,
    ambient::clock::{Clock, nanos},
    bulkhead::{
        BulkheadGate, BulkheadLayer, KeyedBulkheadLayer,
        all_bulkheads::AllBulkheads,
        builder::{BulkheadBuilder, BulkheadValues},
        keyed::BulkheadFactory,
        limits::{BulkheadLimit, LimitByKey, Shares},
        settings::{checked, within_total},
        state::tally,
    },
    config::Editions,
    gate::{Asking, GateLayer, Keyed, KeyedParts},
    keyed::{HasKey, NotKeyed},
    observe::register,
    protocol::Plain,
};

impl<P, A> BulkheadBuilder<NotKeyed, P, A> {
    /// Builds the layer, with nothing in flight.
    ///
    /// # Errors
    /// The limit is 0, which would reject everything, or `reclaim_after` is zero. `max_waiting` is
    /// 0, or is set without `max_wait`. Or a setting needs a key. A limit of `usize::MAX` is as
    /// good as none.
    pub fn build(self) -> Result<BulkheadLayer<P, A>, ConfigError> {
        self.values
            .keys
            .unset()
            .map_err(|error| error.of("bulkhead", self.values.name))?;
        let (limit, name) = (
            checked(self.values.limit, self.values.name)?,
            self.values.name,
        );
        if let Some(total) = self.values.total {
            let fix = "set a key too, with `keyed_by`, or leave it";
            return Err(ConfigError::new("within", total, fix).of("bulkhead", name));
        }
        let tally = tally(name).all();
        let gate = BulkheadGate::new(
            BulkheadLimit::of_all(limit, self.values.settings.reclaim_after),
            (None, self.values.adaptive.as_ref()),
            self.values.settings.checked(name)?,
            Clock::start(),
            tally,
        );
        // A disabled bulkhead has no limit to show.
        if self.values.settings.enabled {
            register(&gate.state);
        }
        let asks = self.asks;
        Ok(GateLayer::with_protocol(
            Asking { gate, asks },
            self.protocol,
        ))
    }
}

impl<F, P, A> BulkheadBuilder<LimitByKey<F>, P, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Builds the layer, with nothing in flight.
    ///
    /// # Errors
    /// The limit is 0, which would reject everything, or `reclaim_after` is zero. `max_waiting` is
    /// 0, or is set without `max_wait`. There is room for no key. A total [`within`](Self::within)
    /// is below one key's share, or below the sum of the [listed shares](Self::limits).
    pub fn build(self) -> Result<KeyedBulkheadLayer<F, P, A>, ConfigError> {
        let Self {
            values,
            key,
            asks,
            protocol,
        } = self;
        let BulkheadValues {
            limit,
            total,
            adaptive,
            settings,
            name,
            keys,
        } = values;
        let max_keys = keys
            .max_keys(1024)
            .map_err(|error| error.of("bulkhead", name))?;
        let labels = keys
            .label_keys()
            .map_err(|error| error.of("bulkhead", name))?;
        key.limits.check(total, name)?;
        let reclaims = total.and(settings.reclaim_after);
        let all_bulkheads = reclaims.map(|_| Arc::<AllBulkheads>::default());
        let factory = BulkheadFactory {
            total: within_total(total, limit, (&settings, all_bulkheads.clone()), name)?,
            all_bulkheads,
            shares: Editions::new(Shares {
                limit: checked(limit, name)?,
                total,
                reclaim_after: settings.reclaim_after.map(nanos),
            }),
            limits: key.limits,
            clock: Clock::start(),
            adaptive,
            settings: settings.checked(name)?,
            tally: tally(name),
        };
        let shared = factory.bulkhead(
            factory.shares.latest(),
            None,
            (factory.tally.keyless(), None),
        );
        let fallback = (
            keys.overflow.unwrap_or_default(),
            keys.missing.unwrap_or_default(),
        );
        let shared = (shared, factory.tally.clone());
        let parts = KeyedParts::new(max_keys, shared, factory, fallback, settings.enabled)
            .advertises(settings.advertise.is_on)
            .texts(key.texts.labelled(labels));
        let gate = Keyed::new(key.key, parts);
        // A disabled bulkhead has no limit to show.
        if settings.enabled {
            register(gate.parts());
        }
        Ok(GateLayer::with_protocol(Asking { gate, asks }, protocol))
    }
}

impl<A: Clone> BulkheadBuilder<NotKeyed, Plain, A> {
    /// Builds a gate, to be combined with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Asking<BulkheadGate, A>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<F, A> BulkheadBuilder<LimitByKey<F>, Plain, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    A: Clone,
{
    /// Builds a gate, to be combined with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Asking<Keyed<F, BulkheadGate>, A>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}
