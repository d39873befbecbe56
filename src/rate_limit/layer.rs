//! The layers and gates that a builder makes.

use std::{hash::Hash, sync::Arc};

use crate::{
    ConfigError,
    algorithm::{KeyedBuckets, Limit, MAX_BURST, Rate, TokenBucket},
    ambient::clock::Clock,
    gate::{Asking, Chain, Controlled, Gate, GateLayer, Keyed, KeyedParts},
    keyed::{HasKey, NotKeyed},
    observe::{GateTally, LIMIT_WAIT, Tally, register},
    protocol::Plain,
    rate_limit::{
        InTable, KeyedRateLimitHandle, KeyedRateLimitLayer, LimitGate, PerKey, PerKeyGate,
        PerKeyRateLimitHandle, PerKeyRateLimitLayer, RateLimitBuilder, RateLimitHandle,
        RateLimitLayer, TableGate, WithTotal,
        any_limit::AnyLimit,
        builder::{Algorithm, RateLimitValues},
        fleet::{Fleet, FleetLimit, Keys, Quotas},
        key_hash::KeyHash,
        keyed::{AllKeys, Buckets, FleetOfKeys, LimitFactory, Table},
        settings::Settings,
    },
};

impl Controlled for LimitGate {
    type Handle = RateLimitHandle;

    fn control(&self) -> RateLimitHandle {
        self.handle()
    }

    fn is_on(&self) -> bool {
        self.state.is_enabled()
    }
}

impl<F: HasKey> Controlled for WithTotal<TableGate<F>> {
    type Handle = KeyedRateLimitHandle<F::Key>;

    fn control(&self) -> KeyedRateLimitHandle<F::Key> {
        let total = self.second.as_ref().map(LimitGate::handle);
        KeyedRateLimitHandle::new(self.first.table().clone(), total)
    }
}

impl<F: HasKey<Key: Hash + Eq + Clone>> Controlled for WithTotal<Keyed<F, LimitGate>> {
    type Handle = PerKeyRateLimitHandle<F::Key>;

    fn control(&self) -> PerKeyRateLimitHandle<F::Key> {
        self.first.handle()
    }
}

impl<P, A> RateLimitBuilder<NotKeyed, P, A> {
    /// Builds the layer, with a full burst.
    ///
    /// # Errors
    /// - A zero rate or period.
    /// - A `burst` of 0, or one that refills in over a year.
    /// - A `burst` beside a limit that has its own.
    /// - `max_waiting` without `max_wait`.
    /// - A setting that needs a key.
    /// - For a [fleet](Self::fleet), a burst that refills in less than 400 ms.
    pub fn build(self) -> Result<RateLimitLayer<P, A>, ConfigError> {
        let (name, clock) = (self.values.settings.name, Clock::start());
        let limit = self.values.only_limit(clock);
        let (limit, settings) = limit.map_err(|error| error.of("rate_limit", name))?;
        let limit = LimitGate::new(limit, settings, clock, tally(name).all());
        register(&limit.state);
        let gate = Asking {
            gate: limit,
            asks: self.asks,
        };
        Ok(GateLayer::with_protocol(gate, self.protocol))
    }
}

impl<F, P, A> RateLimitBuilder<InTable<F>, P, A> {
    /// Builds the layer, with a full burst for every key.
    ///
    /// # Errors
    /// - A zero rate or period.
    /// - A `burst` of 0, or one that refills in over a year.
    /// - No room for any key.
    /// - `max_waiting` without `max_wait`.
    /// - A limit given to [`with`](RateLimitLayer::with), which is a single limit and not one per
    ///   key.
    /// - A quota to follow.
    pub fn build(self) -> Result<KeyedRateLimitLayer<F, P, A>, ConfigError> {
        let Self {
            mut values,
            key,
            asks,
            protocol,
        } = self;
        let clock = Clock::start();
        let buckets = values.buckets(clock);
        let buckets = buckets.map_err(|error| error.of("rate_limit", values.settings.name))?;
        let RateLimitValues {
            settings,
            keys,
            total,
            ..
        } = values;
        let (tally, missing) = (tally(settings.name), keys.missing.unwrap_or_default());
        let max_keys = keys.max_keys.unwrap_or(MAX_KEYS);
        let table = Table::new(buckets, settings, clock, (missing, max_keys), tally.all());
        let table = TableGate::new(key.0, table);
        register(table.table());
        let gate = with_total(table, total, settings, clock, tally.all());
        Ok(GateLayer::with_protocol(Asking { gate, asks }, protocol))
    }
}

impl<F, P, A> RateLimitBuilder<PerKey<F>, P, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Builds the layer, with no limits but the shared one. A key whose limit cannot be made is
    /// treated as one that found no room.
    ///
    /// # Errors
    /// A shared limit that cannot work, a `max_keys` of 0, or `max_waiting` without `max_wait`.
    pub fn build(self) -> Result<PerKeyRateLimitLayer<F, P, A>, ConfigError> {
        let Self {
            mut values,
            key,
            asks,
            protocol,
        } = self;
        let clock = Clock::start();
        let name = values.settings.name;
        let fleet = values
            .settings
            .checked()
            .and_then(|()| values.shared(clock));
        let fleet = fleet.map_err(|error| error.of("rate_limit", name))?;
        let RateLimitValues {
            limit,
            settings,
            keys,
            total,
            ..
        } = values;
        let checked = keys.max_keys(1024).and_then(|max_keys| {
            let shared = limit.limit()?;
            let shared = match &fleet {
                Some(fleet) => fleet.shared_limit(&shared)?,
                None => shared,
            };
            Ok((max_keys, shared))
        });
        let (max_keys, shared) = checked.map_err(|error| error.of("rate_limit", name))?;
        let tally = tally(settings.name);
        let shared = LimitGate::new(shared, settings, clock, tally.keyless());
        let all = Arc::new(AllKeys {
            tally: tally.clone(),
            settings,
            fleet: fleet.clone(),
        });
        register(&all);
        let factory = LimitFactory {
            limit: key.limit,
            clock,
            settings,
            fleet: fleet.map(FleetOfKeys::new),
            all,
        };
        let fallback = (
            keys.overflow.unwrap_or_default(),
            keys.missing.unwrap_or_default(),
        );
        let shared = (shared, tally.clone());
        let parts = KeyedParts::new(max_keys, shared, factory, fallback, settings.enabled)
            .advertises(settings.advertise.is_on);
        let keyed = Keyed::new(key.key, parts);
        let gate = with_total(keyed, total, settings, clock, tally.all());
        Ok(GateLayer::with_protocol(Asking { gate, asks }, protocol))
    }
}

impl<A: Clone> RateLimitBuilder<NotKeyed, Plain, A> {
    /// Builds a gate, to combine with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Asking<LimitGate, A>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<F: Clone, A: Clone> RateLimitBuilder<InTable<F>, Plain, A> {
    /// Builds a gate, to combine with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Asking<WithTotal<TableGate<F>>, A>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<F, A> RateLimitBuilder<PerKey<F>, Plain, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    A: Clone,
{
    /// Builds a gate, to combine with others in [one layer](GateLayer::new), which has the
    /// protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<PerKeyGate<F, A>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

/// Adds a limit that all keys stay within. A penalty of one key does not apply to others, so the
/// total honors none. Admitted calls are counted by the limit of their key.
fn with_total<G: Gate>(
    keyed: G,
    total: Option<Box<dyn Limit>>,
    settings: Settings,
    clock: Clock,
    tally: GateTally,
) -> WithTotal<G> {
    let settings = Settings {
        max_penalty: 0,
        follow: None,
        counts_admitted: false,
        advertise: settings.advertise.without_keys(),
        ..settings
    };
    let total = total.map(|total| LimitGate::new(AnyLimit::Other(total), settings, clock, tally));
    Chain::new(keyed, total)
}

fn tally(name: Option<&'static str>) -> Arc<Tally> {
    Arc::new(Tally::new("rate_limit", name).with_durations(LIMIT_WAIT, &[["", ""]]))
}

impl RateLimitValues {
    /// Creates the part that asks the store, if the limit is shared. Calls then wait a little for
    /// it by default. Without that, the first call of each key would be rejected.
    fn shared(&mut self, clock: Clock) -> Result<Option<Arc<Fleet>>, ConfigError> {
        self.fleet.start(&mut self.settings, clock)
    }

    /// Builds the limit of a layer without keys.
    fn only_limit(mut self, clock: Clock) -> Result<(AnyLimit, Settings), ConfigError> {
        self.settings.checked()?;
        self.keys.unset()?;
        let fleet = self.shared(clock)?;
        let limit = match fleet {
            None => self.limit.limit()?,
            Some(fleet) => fleet.only_limit(self.limit.quota()?)?,
        };
        Ok((limit, self.settings))
    }

    /// Builds the limits of all keys.
    fn buckets(&mut self, clock: Clock) -> Result<Buckets, ConfigError> {
        self.settings.checked()?;
        self.settings.unfollowed()?;
        let (rate, burst) = self.limit.quota()?;
        let (keys, overflow) = (
            self.keys.max_keys(MAX_KEYS)?,
            self.keys.overflow.unwrap_or_default(),
        );
        match self.shared(clock)? {
            None => KeyedBuckets::new(rate, burst, keys, overflow).map(Buckets::Own),
            Some(fleet) => {
                let quotas = Quotas::new(rate, burst)?;
                Keys::new(fleet, quotas, keys, overflow).map(Buckets::Fleet)
            }
        }
    }
}

impl Fleet {
    /// Builds a fleet's only limit. The store knows it by the fleet's name alone.
    fn only_limit(self: &Arc<Self>, (rate, burst): (Rate, u32)) -> Result<AnyLimit, ConfigError> {
        self.limit(self.name.into(), rate, burst)
    }

    /// Builds the limit that keys past the bound share, in all processes.
    fn shared_limit(self: &Arc<Self>, own: &AnyLimit) -> Result<AnyLimit, ConfigError> {
        let (rate, burst) = own.quota();
        self.limit(format!("{}:shared", self.name).into(), rate, burst)
    }

    /// Builds the limit of a key, by its name in the store.
    pub(super) fn limit(
        self: &Arc<Self>,
        key: Arc<str>,
        rate: Rate,
        burst: u32,
    ) -> Result<AnyLimit, ConfigError> {
        let quotas = Arc::new(Quotas::new(rate, burst)?);
        FleetLimit::new(self, key, KeyHash::default(), quotas)
            .map(|limit| AnyLimit::Fleet(Box::new(limit)))
    }
}

impl Settings {
    fn unfollowed(&self) -> Result<(), ConfigError> {
        let Some(follow) = self.follow else {
            return Ok(());
        };
        let fix = "give each key a limit of its own, with `per_key`, or leave it";
        Err(ConfigError::new("follow", follow.quota(), fix))
    }

    pub(super) fn checked(&self) -> Result<(), ConfigError> {
        match self.max_waiting {
            Some(calls) if self.max_wait.is_none() && !self.deadlines => {
                let fix = "say how long they may wait with `max_wait`, or leave it";
                Err(ConfigError::new("max_waiting", calls, fix))
            }
            _ => Ok(()),
        }
    }
}

impl Algorithm {
    /// Returns the rate and burst of a token bucket.
    fn quota(&self) -> Result<(Rate, u32), ConfigError> {
        match self {
            Self::TokenBucket { rate, burst } => {
                Ok((*rate, burst.unwrap_or_else(|| one_second_of(*rate))))
            }
            Self::Given { limit, .. } => {
                let fix = "start from `RateLimitLayer::builder(rate)`, or give each key a limit of \
                           its kind with `per_key`";
                Err(ConfigError::new("limit", limit.rate(), fix))
            }
        }
    }

    fn limit(self) -> Result<AnyLimit, ConfigError> {
        match self {
            Self::Given {
                burst: Some(burst), ..
            } => {
                let fix = "leave it: only a token bucket takes one, all others have their own";
                Err(ConfigError::new("burst", burst, fix))
            }
            Self::Given { limit, burst: None } => Ok(AnyLimit::Other(limit)),
            Self::TokenBucket { .. } => {
                let (rate, burst) = self.quota()?;
                Ok(AnyLimit::Bucket(TokenBucket::new(rate, burst)?))
            }
        }
    }
}

/// Returns the units of one second of a rate, at least 1.
pub(crate) fn one_second_of(rate: Rate) -> u32 {
    let seconds = u128::from(rate.count()) * 1_000_000_000;
    let burst = seconds.checked_div(rate.per().as_nanos()).unwrap_or(1);
    u32::try_from(burst.max(1))
        .unwrap_or(u32::MAX)
        .min(MAX_BURST)
}

/// The default of `max_keys` for a table of keys.
const MAX_KEYS: usize = 100_000;
