//! Several quotas for each key.

use std::{
    fmt,
    sync::{Arc, Weak, atomic::Ordering},
};

use super::{
    closures::Settles,
    gate::DimensionsGate,
    handle::DimensionsHandle,
    observed::seen,
    state::{Quotaed, ShareOfTotal, State, Tallies},
};
use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::{ActiveWeights, Share},
    ambient::clock::Clock,
    config::Editions,
    gate::{Keyable, MissingKey},
    keyed::partitions::{Evict, Factory},
    observe::{GateTally, Instance, Observed, Tally},
    rate_limit::{
        Dimension, bucket,
        fleet::{Fleet, Granted},
        keyed::FleetOfKeys,
        settings::Settings,
    },
};

/// Makes the quotas of keys.
pub struct DimensionsFactory<K, const N: usize, C, U> {
    /// `None` if all keys have the same.
    pub(super) quotas: Option<MakeQuotas<K, N>>,
    /// The quotas of each key, if all have the same.
    pub(super) alike: Editions<[Dimension; N]>,
    /// The weight of a key's share of the total, if keys have shares.
    pub(super) weights: Option<WeightOf<K>>,
    /// The fleet that the quotas are shared in, if they are.
    pub(super) fleet: Option<FleetOfKeys<K>>,
    pub(super) parts: Parts<N>,
    pub(super) costs: C,
    pub(super) uses: U,
    /// The counts of all keys together.
    pub(super) all: Arc<AllKeys>,
}

/// The quotas of all keys, as the registry sees them.
#[derive(Debug)]
pub(super) struct AllKeys(
    pub(super) Arc<Tally>,
    pub(super) Settings,
    pub(super) Option<Arc<Fleet>>,
);

/// Makes the quotas of a key.
pub(super) type MakeQuotas<K, const N: usize> =
    Arc<dyn Fn(&K) -> Result<[Dimension; N], ConfigError> + Send + Sync>;

/// Returns the weight of a key.
pub(super) type WeightOf<K> = Arc<dyn Fn(&K) -> u32 + Send + Sync>;

/// The parts that all keys share.
#[derive(Debug, Clone)]
pub(super) struct Parts<const N: usize> {
    pub(super) total: Option<Arc<Quotaed<N>>>,
    /// The keys that call, if they have shares of the total.
    pub(super) active: Option<Arc<ActiveWeights>>,
    /// The part that asks the store, if the quotas are shared.
    pub(super) fleet: Option<Arc<Fleet>>,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) tallies: Arc<Tallies<N>>,
}

impl<const N: usize> Parts<N> {
    /// `name`: of a fleet's quotas, what follows the name of a dimension in the store. `weight`: of
    /// the share of the total, if keys have shares.
    pub(super) fn state(
        &self,
        dimensions: [Dimension; N],
        (name, weight): (&str, u32),
        partition: Option<u64>,
        tally: GateTally,
    ) -> Result<Arc<State<N>>, ConfigError> {
        let own = Quotaed::of(dimensions, self.fleet.as_ref(), name)?;
        let settings = Settings {
            partition,
            ..self.settings
        };
        let state = Arc::new(State {
            own,
            total: self.total.clone(),
            share: self.active.clone().map(|active| ShareOfTotal {
                share: Share::new(weight),
                active,
            }),
            queue: Default::default(),
            settings,
            clock: self.clock,
            tallies: self.tallies.clone(),
            tally,
            hold: Default::default(),
            changed: Default::default(),
            edition: Default::default(),
        });
        if state.own.limits.fleet().is_some() {
            let weak: Weak<State<N>> = Arc::downgrade(&state);
            let weak: Weak<dyn Granted> = weak;
            state.own.limits.on_grant(&weak);
        }
        Ok(state)
    }
}

impl<K, const N: usize, C, U> Factory<K, DimensionsGate<N, C, U>> for DimensionsFactory<K, N, C, U>
where
    C: Clone,
    U: Clone,
{
    fn make(&self, key: &K) -> Result<DimensionsGate<N, C, U>, ConfigError> {
        let partition = self.parts.settings.advertise.new_partition();
        let of_key = |of_keys: &FleetOfKeys<K>| format!(":{}", of_keys.hash(key));
        let name = self.fleet.as_ref().map(of_key).unwrap_or_default();
        let tally = self.all.0.key();
        let quotas = match &self.quotas {
            Some(make) => make(key)?,
            None => self.alike.settings(),
        };
        let weight = self.weights.as_ref().map_or(1, |weight| weight(key));
        Ok(DimensionsGate {
            state: self
                .parts
                .state(quotas, (&name, weight), partition, tally)?,
            costs: self.costs.clone(),
            uses: self.uses.clone(),
        })
    }

    fn made(&self, gate: &DimensionsGate<N, C, U>) {
        if self.quotas.is_none() {
            // This cannot fail: the shared quotas have accepted the same.
            let _ = gate.state.take_edition(self.alike.latest());
        }
    }
}

impl Observed for AllKeys {
    fn layer(&self) -> &'static str {
        self.0.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.0.name
    }

    fn observe(&self) -> Instance {
        let fleet = self.2.as_ref().map(|fleet| fleet.counts());
        bucket::observe(
            (&self.0, Some(&self.1)),
            None::<(_, u64)>,
            seen(None, fleet),
        )
    }
}

impl<const N: usize, C, U> Keyable for DimensionsGate<N, C, U>
where
    C: Clone + Send + Sync + 'static,
    U: Settles + Clone + Send + Sync + 'static,
{
    type Factory<K> = DimensionsFactory<K, N, C, U>;

    fn watch(&self) -> DimensionsHandle<N> {
        DimensionsHandle::watching(self.state.clone())
    }
}

impl<const N: usize, C, U> Evict for DimensionsGate<N, C, U> {
    fn is_fresh(&self) -> bool {
        let (state, now) = (&*self.state, self.state.clock.now());
        let share = state.share.as_ref();
        !state.changed.load(Ordering::Relaxed)
            && state.queue.is_empty()
            && state.queue.is_unused()
            && state.own.limits.is_fresh(now)
            && share.is_none_or(|of_total| of_total.share.is_fresh(now))
    }

    fn is_held(&self) -> bool {
        self.state.hold.is_shared()
    }

    fn is_watched(&self) -> bool {
        // Handles hold the state, not the partition.
        Arc::strong_count(&self.state) > 1
    }
}

impl<const N: usize, C, U> MissingKey for DimensionsGate<N, C, U> {
    fn missing_key(&self) -> Box<Rejected> {
        self.state.tally.reject(RejectedKind::MissingKey, None)
    }

    /// Rejects a call whose key found no room. Without a hint: the key has no quotas of its own,
    /// and the shared ones are several.
    fn overflow(&self) -> Box<Rejected> {
        self.state.tally.reject(RejectedKind::RateLimited, None)
    }
}

impl<K, const N: usize, C, U> fmt::Debug for DimensionsFactory<K, N, C, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DimensionsFactory").finish_non_exhaustive()
    }
}
