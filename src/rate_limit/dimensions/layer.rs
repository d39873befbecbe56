//! The layers that the builder of several quotas makes.

use std::{
    hash::Hash,
    sync::{Arc, OnceLock},
};

use super::{
    builder::{DimensionsBuilder, PerKeyDimensions, Values},
    closures::{Settles, UnitCosts, Unsettled},
    dimension::Dimension,
    gate::DimensionsGate,
    keyed::{AllKeys, DimensionsFactory, Parts},
    state::{ObservedDimension, Quotaed, State, Tallies},
};
use crate::{
    ConfigError, Name,
    ambient::clock::Clock,
    config::Editions,
    gate::{GateLayer, Keyed, KeyedHandle, KeyedParts},
    keyed::{HasKey, NotKeyed},
    observe::{LIMIT_WAIT, Tally, register},
    protocol::Plain,
    rate_limit::{Follow, Outage, keyed::FleetOfKeys},
};

/// Limits calls by several quotas at once. All services it makes, and all their clones, share them.
pub type DimensionsLayer<const N: usize, P = Plain, C = UnitCosts, U = Unsettled> =
    GateLayer<DimensionsGate<N, C, U>, P>;

/// Limits the calls of each key by several quotas at once.
pub type KeyedDimensionsLayer<const N: usize, F, P = Plain, C = UnitCosts, U = Unsettled> =
    GateLayer<Keyed<F, DimensionsGate<N, C, U>>, P>;

/// Watches and changes the quotas of keys.
pub type KeyedDimensionsHandle<const N: usize, K, C = UnitCosts, U = Unsettled> =
    KeyedHandle<K, DimensionsGate<N, C, U>>;

impl<const N: usize, P, C, U> DimensionsBuilder<N, NotKeyed, P, C, U>
where
    U: Settles,
{
    /// Builds the layer, with full bursts.
    ///
    /// # Errors
    /// - No dimension, or two of one name.
    /// - A zero rate or period.
    /// - A burst of 0, or one that refills in over a year.
    /// - `max_waiting` without `max_wait`.
    /// - A file's `within`, which needs a key.
    pub fn build(self) -> Result<DimensionsLayer<N, P, C, U>, ConfigError> {
        let Self {
            values,
            protocol,
            costs,
            uses,
            ..
        } = self;
        let name = values.settings.name;
        if values.total.is_some() {
            let fix = "set a key too, with `keyed_by` or `per_key`, or leave it";
            return Err(ConfigError::new("within", "dimensions", fix).of("rate_limit", name));
        }
        let (parts, tally) = values.parts()?;
        let state = parts.state(values.dimensions, ("", 1), None, tally.all());
        let state = state.map_err(|error| error.of("rate_limit", name))?;
        register(&state);
        watch(&parts.tallies, Some(&state));
        let gate = DimensionsGate { state, costs, uses };
        Ok(GateLayer::with_protocol(gate, protocol))
    }
}

impl<const N: usize, F, P, C, U> DimensionsBuilder<N, PerKeyDimensions<F, N>, P, C, U>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    /// Builds the layer, with no keys. A key whose quotas cannot be made is treated as one that
    /// found no room.
    ///
    /// # Errors
    /// As without keys, except that key settings are allowed. A `max_keys` of 0 is an error, and so
    /// are shares without a total, or of a fleet's.
    pub fn build(self) -> Result<KeyedDimensionsLayer<N, F, P, C, U>, ConfigError> {
        let Self {
            values,
            key,
            protocol,
            costs,
            uses,
        } = self;
        let settings = values.settings;
        let max_keys = values.keys.max_keys(1024);
        let max_keys = max_keys.map_err(|error| error.of("rate_limit", settings.name))?;
        let (mut parts, tally) = values.parts()?;
        let fleet = parts.fleet.clone();
        if key.quotas.is_some() && fleet.is_none() {
            // The quotas of a key may follow, also if the shared ones do not.
            parts.settings.follow.get_or_insert(Follow::new(""));
        }
        if key.weights.is_some() {
            let checked = parts.checked_for_shares();
            checked.map_err(|error| error.of("rate_limit", settings.name))?;
            parts.active = Some(Arc::default());
        }
        let shared = (":shared", 1);
        let state = parts.state(values.dimensions, shared, None, tally.keyless());
        let state = state.map_err(|error| error.of("rate_limit", settings.name))?;
        let all = Arc::new(AllKeys(tally.clone(), settings, fleet.clone()));
        register(&all);
        watch(&parts.tallies, None);
        let shared = DimensionsGate {
            state,
            costs: costs.clone(),
            uses: uses.clone(),
        };
        let factory = DimensionsFactory {
            quotas: key.quotas,
            alike: Editions::new(values.dimensions),
            weights: key.weights,
            fleet: fleet.map(FleetOfKeys::new),
            parts,
            costs,
            uses,
            all,
        };
        let fallback = (
            values.keys.overflow.unwrap_or_default(),
            values.keys.missing.unwrap_or_default(),
        );
        let parts = KeyedParts::new(
            max_keys,
            (shared, tally),
            factory,
            fallback,
            settings.enabled,
        )
        .advertises(settings.advertise.is_on);
        Ok(GateLayer::with_protocol(
            Keyed::new(key.key, parts),
            protocol,
        ))
    }
}

impl<const N: usize, C: Clone, U: Settles + Clone> DimensionsBuilder<N, NotKeyed, Plain, C, U> {
    /// Builds a gate, to combine with others in [one layer](GateLayer::new), which has the
    /// protocol. A stack takes the builder itself.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<DimensionsGate<N, C, U>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<const N: usize, F, C, U> DimensionsBuilder<N, PerKeyDimensions<F, N>, Plain, C, U>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    /// Builds a gate, to combine with others in [one layer](GateLayer::new), which has the
    /// protocol. A stack takes the builder itself.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Keyed<F, DimensionsGate<N, C, U>>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<const N: usize> Values<N> {
    /// Makes the parts of one set of quotas, or those that all keys share.
    fn parts(&self) -> Result<(Parts<N>, Arc<Tally>), ConfigError> {
        let (mut settings, name, clock) = (self.settings, self.settings.name, Clock::start());
        let named = |error: ConfigError| error.of("rate_limit", name);
        settings.checked().map_err(named)?;
        names(&self.dimensions).map_err(named)?;
        let follows = |quotas: &[Dimension; N]| quotas.iter().find_map(|quota| quota.follow);
        // That anything is followed is all that is asked of it.
        settings.follow = follows(&self.dimensions).or(self.total.as_ref().and_then(follows));
        let fleet = self.fleet.start(&mut settings, clock).map_err(named)?;
        self.checked(fleet.is_some()).map_err(named)?;
        let total = self.total.map(|total| {
            names(&total).map_err(named)?;
            let total = Quotaed::of(total, fleet.as_ref(), ":total");
            Ok(Arc::new(total.map_err(named)?))
        });
        let total: Option<Arc<Quotaed<N>>> = total.transpose()?;
        let tally = Tally::new("rate_limit", settings.name);
        let tally = Arc::new(tally.with_durations(LIMIT_WAIT, &[["", ""]]));
        let tallies = std::array::from_fn(|place| {
            let dimension = self.dimensions[place].name;
            let name = settings.name.map(|name| format!("{name}.{dimension}"));
            let name = name.map(|name| Name::from(name).as_str());
            Arc::new(ObservedDimension {
                tally: Tally::new("rate_limit", name),
                place,
                state: OnceLock::new(),
            })
        });
        let parts = Parts {
            total,
            active: None,
            fleet,
            settings,
            clock,
            tallies: Arc::new(Tallies(tallies)),
        };
        Ok((parts, tally))
    }

    fn checked(&self, is_shared: bool) -> Result<(), ConfigError> {
        let total = self.total.iter().flatten();
        let set = |dimension: &Dimension| dimension.outage;
        match self.dimensions.iter().chain(total).find_map(set) {
            Some(outage) if !is_shared && outage != Outage::Closed => {
                let fix = "name a store with `fleet`, or leave it";
                Err(ConfigError::new("while_down", outage, fix))
            }
            _ => Ok(()),
        }
    }
}

impl<const N: usize> Parts<N> {
    fn checked_for_shares(&self) -> Result<(), ConfigError> {
        let refused = |fix| Err(ConfigError::new("shares", "set", fix));
        match (&self.total, &self.fleet) {
            (None, _) => refused("say what is shared, with `within`, or leave it"),
            (_, Some(_)) => {
                refused("leave it: a store grants units to the process that asks first")
            }
            _ => Ok(()),
        }
    }
}

/// Registers each dimension under its own name.
fn watch<const N: usize>(tallies: &Tallies<N>, state: Option<&Arc<State<N>>>) {
    for seen in &tallies.0 {
        if let Some(state) = state {
            // This is the only place that sets it.
            let _ = seen.state.set(Arc::downgrade(state));
        }
        register(seen);
    }
}

fn names<const N: usize>(dimensions: &[Dimension; N]) -> Result<(), ConfigError> {
    if N == 0 {
        return Err(ConfigError::new("dimensions", 0, "give at least one"));
    }
    for (at, dimension) in dimensions.iter().enumerate() {
        let mut before = dimensions[..at].iter();
        if before.any(|other| other.name == dimension.name) {
            let fix = "give each dimension a name of its own";
            return Err(ConfigError::new("dimensions", dimension.name, fix));
        }
    }
    Ok(())
}
