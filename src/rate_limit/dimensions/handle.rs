//! The handle of several quotas.

use std::{borrow::Borrow, hash::Hash, sync::Arc, time::Duration};

use super::{
    closures::Settles,
    dimension::Dimension,
    gate::DimensionsGate,
    state::{Quotaed, State},
};
use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    call::Left,
    gate::{Controlled, KeyedHandle},
    keyed::partitions::Hold,
    observe::Totals,
    rate_limit::FleetHandle,
};

/// Watches and changes a limit of several quotas from outside. Cheap to clone. Keeps the limit's
/// state alive, not its services.
#[derive(Debug, Clone)]
pub struct DimensionsHandle<const N: usize> {
    state: Arc<State<N>>,
    /// `None` for a handle from a list of all keys.
    _hold: Option<Hold>,
}

/// A limit of several quotas at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DimensionsSnapshot<const N: usize> {
    /// The quotas, in their order.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_list"))]
    pub dimensions: [DimensionSnapshot; N],
    /// Calls in the wait queue.
    pub waiting: usize,
    /// The counts so far.
    pub totals: Totals,
}

/// One quota at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DimensionSnapshot {
    /// The quota's name.
    pub name: &'static str,
    /// The units that would be admitted at once.
    pub available: u64,
    /// Units per period.
    pub rate: Rate,
    /// The most units admitted at once.
    pub burst: u64,
    /// Time until one unit would be admitted: zero if one is available, long for a quota in debt.
    pub next_unit: Duration,
}

impl<const N: usize> DimensionsHandle<N> {
    pub(super) fn new(state: Arc<State<N>>) -> Self {
        let hold = Some(state.hold.clone());
        Self { state, _hold: hold }
    }

    /// Creates a handle that does not protect its key from eviction.
    pub(super) fn watching(state: Arc<State<N>>) -> Self {
        Self { state, _hold: None }
    }

    /// Returns the current state of the quotas. For a key, those of the key, without those of all
    /// keys.
    #[must_use]
    pub fn snapshot(&self) -> DimensionsSnapshot<N> {
        let (state, now) = (&*self.state, self.state.clock.now());
        DimensionsSnapshot {
            dimensions: state.own.snapshot(now),
            waiting: state.queue.waiting(),
            totals: state.tally.totals(),
        }
    }

    /// Leases and the store, if the quotas are shared by a
    /// [fleet](crate::rate_limit::DimensionsBuilder::fleet): of all quotas and keys together.
    #[must_use]
    pub fn fleet(&self) -> Option<FleetHandle> {
        let fleet = self.state.own.limits.fleet();
        fleet.map(|fleet| FleetHandle::new(fleet.clone()))
    }

    /// Lists what is left of each quota, those of all keys together included.
    #[must_use]
    pub fn left(&self) -> Vec<Left> {
        self.state.left(self.state.clock.now())
    }

    /// Returns the key's part of the quotas of all keys, from 0 to 1, if keys have
    /// [shares](crate::rate_limit::DimensionsBuilder::shares).
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let of_total = self.state.share.as_ref()?;
        let now = self.state.clock.now();
        Some(of_total.active.part(&of_total.share, now))
    }

    /// Corrects the units that a call has taken of each quota to those that it has used, for
    /// example at the end of a stream. Units taken in excess are refunded. Units taken short become
    /// a debt of that quota.
    pub fn settle(&self, taken: [u64; N], used: [u64; N]) {
        self.state.settle(&taken, &used, self.state.clock.now());
    }

    /// Takes units that were used outside the layer.
    pub fn charge(&self, units: [u64; N]) {
        self.state.charge(&units, self.state.clock.now());
    }

    /// Gives back units that were taken and not used.
    pub fn refund(&self, units: [u64; N]) {
        self.state.give_back(&units, self.state.clock.now());
    }

    /// Admits nothing for this duration. Use it if the upstream asks for that by other means than a
    /// response.
    pub fn close_for(&self, duration: Duration) {
        self.state.close_for(duration, self.state.clock.now());
    }

    /// Forgets used units, debts and penalties of each quota, but not of the quotas of all keys.
    pub fn reset(&self) {
        self.state.reset(self.state.clock.now());
    }

    /// Changes rate and burst of one quota. Units already used stay used, as the time that it takes
    /// to pay them off. A key whose quotas were changed is not evicted.
    ///
    /// # Errors
    /// The errors of `build`, and a name that no quota has.
    pub fn update(&self, dimension: &str, rate: Rate, burst: u64) -> Result<Changed, ConfigError> {
        let state = &*self.state;
        let changed = state.own.update(state, (dimension, rate, burst))?;
        state.set_changed();
        state.notify(state.clock.now());
        Ok(changed)
    }
}

/// The quotas of all keys together, set by
/// [`within`](crate::rate_limit::DimensionsBuilder::within). Cheap to clone.
#[derive(Debug, Clone)]
pub struct DimensionsTotal<const N: usize> {
    /// A state that has the total too.
    state: Arc<State<N>>,
    total: Arc<Quotaed<N>>,
}

impl<const N: usize> DimensionsTotal<N> {
    /// Returns the current state of the quotas.
    #[must_use]
    pub fn snapshot(&self) -> [DimensionSnapshot; N] {
        self.total.snapshot(self.state.clock.now())
    }

    /// Forgets used units, debts and penalties of each quota.
    pub fn reset(&self) {
        self.total.limits.reset(self.state.clock.now());
    }

    /// Changes rate and burst of one quota. Units already used stay used, as the time that it takes
    /// to pay them off. Calls that wait notice it within 100 ms.
    ///
    /// # Errors
    /// The errors of `build`, and a name that no quota has.
    pub fn update(&self, dimension: &str, rate: Rate, burst: u64) -> Result<Changed, ConfigError> {
        self.total.update(&self.state, (dimension, rate, burst))
    }
}

impl<const N: usize> Quotaed<N> {
    fn snapshot(&self, now: u64) -> [DimensionSnapshot; N] {
        std::array::from_fn(|at| {
            let (rate, burst) = self.limits.quota(at);
            DimensionSnapshot {
                name: self.dimensions[at].name,
                available: self.limits.available(at, now),
                rate,
                burst,
                next_unit: Duration::from_nanos(self.limits.wait(at, 1, now)),
            }
        })
    }

    fn place_of(&self, dimension: &str) -> Result<usize, ConfigError> {
        let mut dimensions = self.dimensions.iter();
        let at = dimensions.position(|own| own.name == dimension);
        let fix = "use one of the names that the dimensions were made with";
        at.ok_or_else(|| ConfigError::new("dimension", dimension, fix))
    }

    fn update(
        &self,
        state: &State<N>,
        (dimension, rate, burst): (&str, Rate, u64),
    ) -> Result<Changed, ConfigError> {
        let named = |error: ConfigError| error.of("rate_limit", state.settings.name);
        let at = self.place_of(dimension).map_err(named)?;
        let before = self.limits.quota(at);
        self.limits.update(at, rate, burst).map_err(named)?;
        Ok(state.noted(before, (rate, burst)))
    }
}

impl<K, const N: usize, C, U> KeyedHandle<K, DimensionsGate<N, C, U>>
where
    K: Hash + Eq + Clone,
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    /// Corrects the units that a call of this key has taken to those that it has used, as
    /// [`DimensionsHandle::settle`] does. If the key has no quotas of its own, settles with the
    /// [shared](Self::shared) ones, from which its calls take.
    pub fn settle<Q>(&self, key: &Q, taken: [u64; N], used: [u64; N])
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let own = self.key(key);
        own.unwrap_or_else(|| self.shared()).settle(taken, used);
    }

    /// Changes rate and burst of one quota for all keys, present and future, and of the shared one.
    /// Units already used stay used, as the time that it takes to pay them off. A key whose quotas
    /// were changed by its own handle gets those of all keys again.
    ///
    /// # Errors
    /// The errors of `build`, and a name that no quota has. Keys whose quotas a closure makes:
    /// change each by its [handle](Self::key).
    pub fn update(&self, dimension: &str, rate: Rate, burst: u64) -> Result<Changed, ConfigError> {
        let factory = &self.parts.factory;
        let shared = self.shared().state;
        let named = |error: ConfigError| error.of("rate_limit", shared.settings.name);
        if factory.quotas.is_some() {
            let fix = "change each key by its handle: `per_key` makes its quotas";
            return Err(named(ConfigError::new("dimension", dimension, fix)));
        }
        let at = shared.own.place_of(dimension).map_err(named)?;
        let before = shared.own.limits.quota(at);
        let change = |mut quotas: [Dimension; N]| {
            quotas[at] = quotas[at].with(rate, burst);
            // What a new quota and the shared one accept, all do.
            quotas[at].quotas()?;
            shared.own.limits.update(at, rate, burst)?;
            Ok(quotas)
        };
        let take = |gate: &DimensionsGate<N, C, U>, quotas| gate.state.take_edition(quotas);
        let updated = self.parts.update_all(&factory.alike, change, take);
        updated.map_err(named)?;
        Ok(shared.noted(before, (rate, burst)))
    }

    /// Returns the quotas of all keys together, if there are any.
    #[must_use]
    pub fn total(&self) -> Option<DimensionsTotal<N>> {
        let state = self.shared().state;
        let total = state.total.clone()?;
        Some(DimensionsTotal { state, total })
    }
}

impl<const N: usize, C, U> DimensionsGate<N, C, U> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> DimensionsHandle<N> {
        self.control()
    }
}

impl<const N: usize, C, U> Controlled for DimensionsGate<N, C, U> {
    type Handle = DimensionsHandle<N>;

    fn control(&self) -> DimensionsHandle<N> {
        DimensionsHandle::new(self.state.clone())
    }
}

/// Serializes an array of any length, which serde does not do by itself.
#[cfg(feature = "serde")]
fn as_list<S: serde::Serializer, const N: usize>(
    dimensions: &[DimensionSnapshot; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(dimensions)
}
