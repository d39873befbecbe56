//! What becomes of a builder: a layer, or a gate.

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
        bucket::Settings,
        builder::{Algorithm, RateLimitValues},
        keyed::{AllKeys, LimitFactory, Table},
        state::AnyLimit,
    },
};

impl Controlled for LimitGate {
    type Handle = RateLimitHandle;

    fn control(&self) -> RateLimitHandle {
        self.handle()
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
    /// Starts with a full burst.
    ///
    /// # Errors
    /// If rate or period is zero, if `burst` is 0, refills in over a year, or stands beside a limit
    /// that has its own, if `max_waiting` is set without `max_wait`, or if what needs a key is set.
    pub fn build(self) -> Result<RateLimitLayer<P, A>, ConfigError> {
        let name = self.values.settings.name;
        let limit = self.values.settings.checked().and_then(|()| {
            self.values.keys.unset()?;
            if let Some(total) = &self.values.total {
                let fix = "set a key too, with `keyed_by` or `per_key`, or use `algorithm::All`";
                return Err(ConfigError::new("within", total.rate(), fix));
            }
            self.values.limit.limit()
        });
        let limit = limit.map_err(|error| error.of("rate_limit", name))?;
        let limit = LimitGate::new(
            limit,
            Clock::start(),
            self.values.settings,
            tally(name).all(),
        );
        register(&limit.state);
        let gate = Asking {
            gate: limit,
            asks: self.asks,
        };
        Ok(GateLayer::with_protocol(gate, self.protocol))
    }
}

impl<F, P, A> RateLimitBuilder<InTable<F>, P, A> {
    /// Starts with a full burst for every key.
    ///
    /// # Errors
    /// If rate or period is zero, if `burst` is 0 or refills in over a year, if there is room for
    /// no key, if `max_waiting` is set without `max_wait`, or if the builder was made
    /// [`with`](RateLimitLayer::with) a limit, which is one and not one for each key.
    pub fn build(self) -> Result<KeyedRateLimitLayer<F, P, A>, ConfigError> {
        let Self {
            values,
            key,
            asks,
            protocol,
        } = self;
        let RateLimitValues {
            limit,
            settings,
            keys,
            total,
        } = values;
        let overflow = keys.overflow.unwrap_or_default();
        let buckets = settings.checked().and_then(|()| {
            let (rate, burst) = limit.quota()?;
            KeyedBuckets::new(rate, burst, keys.max_keys(100_000)?, overflow)
        });
        let buckets = buckets.map_err(|error| error.of("rate_limit", settings.name))?;
        let clock = Clock::start();
        let (tally, missing) = (tally(settings.name), keys.missing.unwrap_or_default());
        let table = TableGate::new(
            key.0,
            Table::new(buckets, clock, settings, missing, tally.all()),
        );
        register(table.table());
        let gate = with_total(table, total, clock, settings, tally.all());
        Ok(GateLayer::with_protocol(Asking { gate, asks }, protocol))
    }
}

impl<F, P, A> RateLimitBuilder<PerKey<F>, P, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static>,
{
    /// Starts with no limits but the shared one. A key whose limit cannot be made is treated as one
    /// that found no place.
    ///
    /// # Errors
    /// A shared limit that cannot work; no keys; `max_waiting` without `max_wait`.
    pub fn build(self) -> Result<PerKeyRateLimitLayer<F, P, A>, ConfigError> {
        let Self {
            values,
            key,
            asks,
            protocol,
        } = self;
        let RateLimitValues {
            limit,
            settings,
            keys,
            total,
        } = values;
        let checked = settings
            .checked()
            .and_then(|()| Ok((keys.max_keys(1024)?, limit.limit()?)));
        let (max_keys, shared) = checked.map_err(|error| error.of("rate_limit", settings.name))?;
        let clock = Clock::start();
        let tally = tally(settings.name);
        let shared = LimitGate::new(shared, clock, settings, tally.keyless());
        let all = Arc::new(AllKeys(tally.clone()));
        register(&all);
        let factory = LimitFactory {
            limit: key.limit,
            clock,
            settings,
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
        let gate = with_total(keyed, total, clock, settings, tally.all());
        Ok(GateLayer::with_protocol(Asking { gate, asks }, protocol))
    }
}

impl<A: Clone> RateLimitBuilder<NotKeyed, Plain, A> {
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<Asking<LimitGate, A>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

impl<F: Clone, A: Clone> RateLimitBuilder<InTable<F>, Plain, A> {
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
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
    /// A gate, to stand with others in [one layer](GateLayer::new), which has the protocol.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn gate(self) -> Result<PerKeyGate<F, A>, ConfigError> {
        self.build().map(|layer| layer.gate().clone())
    }
}

/// With a limit that all keys stay within. A penalty of one key is not the others', so the total
/// honors none. What is admitted counts for its key.
fn with_total<G: Gate>(
    keyed: G,
    total: Option<Box<dyn Limit>>,
    clock: Clock,
    settings: Settings,
    tally: GateTally,
) -> WithTotal<G> {
    let settings = Settings {
        max_penalty: 0,
        counts_admitted: false,
        advertise: settings.advertise.without_keys(),
        ..settings
    };
    let total = total.map(|total| LimitGate::new(AnyLimit::Other(total), clock, settings, tally));
    Chain::new(keyed, total)
}

fn tally(name: Option<&'static str>) -> Arc<Tally> {
    Arc::new(Tally::new("rate_limit", name).with_durations(LIMIT_WAIT, &[["", ""]]))
}

impl Settings {
    fn checked(&self) -> Result<(), ConfigError> {
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
    /// The rate and burst of a token bucket.
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

/// What comes in one second of a rate, and at least 1.
pub(crate) fn one_second_of(rate: Rate) -> u32 {
    let seconds = u128::from(rate.count()) * 1_000_000_000;
    let burst = seconds.checked_div(rate.per().as_nanos()).unwrap_or(1);
    u32::try_from(burst.max(1))
        .unwrap_or(u32::MAX)
        .min(MAX_BURST)
}
