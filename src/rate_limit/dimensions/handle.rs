//! The handle of several quotas.

use std::{sync::Arc, time::Duration};

use super::{gate::DimensionsGate, state::State};
use crate::{
    Changed, ConfigError,
    algorithm::Rate,
    call::Left,
    gate::Controlled,
    keyed::partitions::Hold,
    observe::{Totals, trace},
};

/// Watches and changes a limit of several quotas from outside. Cheap to clone. It keeps the limit's
/// state alive, not its services.
#[derive(Debug, Clone)]
pub struct DimensionsHandle<const N: usize> {
    state: Arc<State<N>>,
    /// `None` if it came with a list of all keys.
    _hold: Option<Hold>,
}

/// A limit of several quotas at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DimensionsSnapshot<const N: usize> {
    /// The quotas, in their order.
    pub dimensions: [DimensionSnapshot; N],
    /// The calls that wait for their turn.
    pub waiting: usize,
    /// The counts so far.
    pub totals: Totals,
}

/// One quota at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DimensionSnapshot {
    /// Its name.
    pub name: &'static str,
    /// The units that would be admitted at once.
    pub available: u64,
    /// The units that come in a time.
    pub rate: Rate,
    /// The units that are admitted at once at most.
    pub burst: u64,
    /// The time until one unit would be admitted: zero if one is there, long for a quota in debt.
    pub next_unit: Duration,
}

impl<const N: usize> DimensionsHandle<N> {
    pub(super) fn new(state: Arc<State<N>>) -> Self {
        let hold = Some(state.hold.clone());
        Self { state, _hold: hold }
    }

    /// One that does not keep the key's place.
    pub(super) fn watching(state: Arc<State<N>>) -> Self {
        Self { state, _hold: None }
    }

    /// The quotas as they are now: of a key its own, without those of all keys.
    #[must_use]
    pub fn snapshot(&self) -> DimensionsSnapshot<N> {
        let (state, now) = (&*self.state, self.state.clock.now());
        let own = &state.own;
        DimensionsSnapshot {
            dimensions: std::array::from_fn(|at| {
                let quotas = &own.limits.quotas()[at];
                DimensionSnapshot {
                    name: own.dimensions[at].name,
                    available: quotas.available(now),
                    rate: quotas.own().rate(),
                    burst: quotas.burst(),
                    next_unit: Duration::from_nanos(quotas.wait(1, 0, now)),
                }
            }),
            waiting: state.queue.waiting(),
            totals: state.tally.totals(),
        }
    }

    /// Lists what is left of each quota, those of all keys together included.
    #[must_use]
    pub fn left(&self) -> Vec<Left> {
        self.state.left(self.state.clock.now())
    }

    /// Corrects what a call has taken of each quota to what it turns out to have used: at the end
    /// of a stream, say. What was taken too much is refunded. What was taken too little becomes a
    /// debt of that quota.
    pub fn settle(&self, taken: [u64; N], used: [u64; N]) {
        self.state.settle(&taken, &used, self.state.clock.now());
    }

    /// Takes units that were used past the layer.
    pub fn charge(&self, units: [u64; N]) {
        self.state.charge(&units, self.state.clock.now());
    }

    /// Gives back units that were taken and not used.
    pub fn refund(&self, units: [u64; N]) {
        self.state.give_back(&units, self.state.clock.now());
    }

    /// Admits nothing for so long: the upstream has said so by other means than a response.
    pub fn close_for(&self, duration: Duration) {
        self.state.close_for(duration, self.state.clock.now());
    }

    /// Forgets what was used and what is owed of each quota, but of those of all keys.
    pub fn reset(&self) {
        self.state.reset(self.state.clock.now());
    }

    /// Changes rate and burst of one quota. What was used stays used, as the time that it takes to
    /// pay off. A key whose quotas were changed keeps its place.
    ///
    /// # Errors
    /// What `build` would reject, and a name that no quota has.
    pub fn update(&self, dimension: &str, rate: Rate, burst: u64) -> Result<Changed, ConfigError> {
        let state = &*self.state;
        let named = |error: ConfigError| error.of("rate_limit", state.settings.name);
        let at = state
            .own
            .dimensions
            .iter()
            .position(|own| own.name == dimension);
        let fix = "use one of the names that the dimensions were made with";
        let at = at.ok_or_else(|| named(ConfigError::new("dimension", dimension, fix)))?;
        let bucket = state.own.limits.quotas()[at].own();
        let before = (bucket.rate(), bucket.burst());
        bucket.update(rate, burst).map_err(named)?;
        state.set_changed();
        let changed = Changed::default()
            .note("rate_limit", "rate", (before.0, rate))
            .note("rate_limit", "burst", (before.1, burst));
        trace::updated((state.tally.layer, state.tally.name), &changed);
        state.notify(state.clock.now());
        Ok(changed)
    }
}

impl<const N: usize, C, U> Controlled for DimensionsGate<N, C, U> {
    type Handle = DimensionsHandle<N>;

    fn control(&self) -> DimensionsHandle<N> {
        DimensionsHandle::new(self.state.clone())
    }
}
