//! What both stacks are put together from.

use std::{hash::Hash, time::Duration};

use super::defaults::MAX_IN_FLIGHT;
use crate::{
    ConfigError,
    algorithm::BreakerConfig,
    bulkhead::{BulkheadBuilder, BulkheadGate, BulkheadLayer, LimitByKey},
    gate::{Asking, Keyed},
    keyed::{HasKey, NotKeyed},
    protocol::Plain,
    rate_limit::{
        InTable, LimitGate, PerKey, PerKeyGate, Rate, RateLimitBuilder, RateLimitLayer, TableGate,
        WithTotal,
    },
};

/// A builder's state: this part is made of the stack's own settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own;

/// What a server's rate limit is made of: the stack's own settings, or a builder, keyed or not.
#[doc(hidden)]
pub trait LimitPart {
    /// The gate.
    type Gate;

    /// Makes it; `own` is what the stack's own settings say.
    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError>;
}

/// What a server's bulkhead is made of: the stack's own settings, or a builder, keyed or not.
#[doc(hidden)]
pub trait BulkheadPart {
    /// The gate.
    type Gate;

    /// Makes it; `own` is what the stack's own settings say.
    fn bulkhead(
        self,
        own: CallsPart,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError>;
}

/// A part, and whether it is there.
#[derive(Debug)]
pub(super) struct Part<B> {
    pub(super) builder: B,
    pub(super) enabled: bool,
}

/// A limit on the calls in flight, or a whole builder in its place.
#[doc(hidden)]
#[derive(Debug)]
pub struct CallsPart {
    /// The value of `max_in_flight`.
    pub(super) set: Option<usize>,
    /// The value that follows from other settings, or the default.
    otherwise: Option<usize>,
    /// The time that as many calls again may wait, if nothing was set.
    max_wait: Option<Duration>,
    pub(super) builder: Option<BulkheadBuilder>,
}

/// A rate, or a whole builder in its place.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct RatePart {
    pub(super) rate: Option<Rate>,
    pub(super) burst: Option<u32>,
    pub(super) builder: Option<RateLimitBuilder>,
}

impl<B> Part<B> {
    pub(super) fn new(builder: B) -> Self {
        Self {
            builder,
            enabled: true,
        }
    }
}

impl RatePart {
    /// The gate, if there is to be one.
    fn gate(self, name: Option<&'static str>) -> Result<Option<Asking<LimitGate>>, ConfigError> {
        let builder = self.builder(name)?;
        builder.map(|builder| builder.gate()).transpose()
    }

    /// The limit's settings, if there is to be one.
    pub(super) fn builder(
        mut self,
        name: Option<&'static str>,
    ) -> Result<Option<RateLimitBuilder>, ConfigError> {
        let builder = match (self.builder.take(), self.rate, self.burst) {
            (Some(builder), ..) => {
                self.unset(name)?;
                builder
            }
            (None, Some(rate), None) => RateLimitLayer::builder(rate),
            (None, Some(rate), Some(burst)) => RateLimitLayer::builder(rate).burst(burst),
            (None, None, None) => return Ok(None),
            (None, None, Some(burst)) => {
                let fix = "set a `rate` too";
                return Err(ConfigError::new("burst", burst, fix).of("stack", name));
            }
        };
        Ok(Some(named(builder, name, RateLimitBuilder::name)))
    }

    /// Fails if the hint of one host would close the limit for all hosts.
    pub(super) fn for_all_hosts(&self, name: Option<&'static str>) -> Result<(), ConfigError> {
        match self.builder.as_ref().and_then(RateLimitBuilder::honored) {
            Some(max) => {
                let fix = "leave it: the hint of one host would close the limit for all hosts; for \
                           a single upstream, make the stack one of `one_peer`";
                Err(ConfigError::new("honor_retry_after", max, fix).of("stack", name))
            }
            None => Ok(()),
        }
    }

    /// Fails if there is a rate beside a builder that has one of its own.
    fn unset(&self, name: Option<&'static str>) -> Result<(), ConfigError> {
        let fix = "leave it: `rate_limit` was given a limit with its own";
        let rejected = |field, value: &dyn std::fmt::Debug| {
            Err(ConfigError::new(field, value, fix).of("stack", name))
        };
        match (self.rate, self.burst) {
            (Some(rate), _) => rejected("rate", &rate),
            (None, Some(burst)) => rejected("burst", &burst),
            (None, None) => Ok(()),
        }
    }
}

impl CallsPart {
    pub(super) fn new(set: Option<usize>, otherwise: Option<usize>) -> Self {
        Self {
            set,
            otherwise,
            max_wait: None,
            builder: None,
        }
    }

    /// Lets as many calls as may be in flight wait before that, unless the limit was set.
    pub(super) fn waiting(mut self, max_wait: Option<Duration>) -> Self {
        self.max_wait = max_wait.filter(|_| self.set.is_none());
        self
    }

    /// Returns the builder of a server's bulkhead.
    fn builder_of_calls(self, name: Option<&'static str>) -> Result<BulkheadBuilder, ConfigError> {
        let calls = self.calls(name)?;
        let builder = BulkheadLayer::builder(calls);
        Ok(match self.max_wait {
            Some(max_wait) => builder.max_wait(max_wait).max_waiting(calls),
            None => builder,
        })
    }

    /// Returns the builder of a client's bulkhead, of one that is off if nothing limits the calls.
    pub(super) fn builder_or_off(
        mut self,
        name: Option<&'static str>,
    ) -> Result<BulkheadBuilder, ConfigError> {
        match self.builder.take() {
            Some(builder) => self.unset(name).map(|()| builder),
            None if self.set.or(self.otherwise).is_none() => {
                Ok(BulkheadLayer::builder(MAX_IN_FLIGHT).enabled(false))
            }
            None => self.calls(name).map(BulkheadLayer::builder),
        }
    }

    /// The limit, which is there and can work.
    fn calls(&self, name: Option<&'static str>) -> Result<usize, ConfigError> {
        match self.set.or(self.otherwise) {
            Some(0) => {
                let fix = "allow at least 1 call at once";
                Err(ConfigError::new("max_in_flight", 0, fix).of("bulkhead", name))
            }
            Some(calls) => Ok(calls),
            None => {
                let fix = "say how many calls may run at once, or give a `rate` and a `timeout`";
                Err(ConfigError::new("max_in_flight", self.set, fix).of("stack", name))
            }
        }
    }

    /// Fails if there is a limit beside a builder that has one of its own.
    fn unset(&self, name: Option<&'static str>) -> Result<(), ConfigError> {
        let fix = "leave it: `bulkhead` was given one with a limit of its own";
        self.set.map_or(Ok(()), |calls| {
            Err(ConfigError::new("max_in_flight", calls, fix).of("stack", name))
        })
    }
}

impl LimitPart for Own {
    type Gate = Option<Asking<LimitGate>>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.gate(name)
    }
}

impl<A: Clone> LimitPart for RateLimitBuilder<NotKeyed, Plain, A> {
    type Gate = Option<Asking<LimitGate, A>>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate().map(Some)
    }
}

impl<F: Clone, A: Clone> LimitPart for RateLimitBuilder<InTable<F>, Plain, A> {
    type Gate = Asking<WithTotal<TableGate<F>>, A>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

impl<F, A> LimitPart for RateLimitBuilder<PerKey<F>, Plain, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    A: Clone,
{
    type Gate = PerKeyGate<F, A>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

impl LimitPart for Option<RateLimitBuilder> {
    type Gate = Option<Asking<LimitGate>>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        match self {
            Some(builder) => builder.limit(own, name),
            None => Own.limit(own, name),
        }
    }
}

impl BulkheadPart for Option<BulkheadBuilder> {
    type Gate = Asking<BulkheadGate>;

    fn bulkhead(
        self,
        own: CallsPart,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        match self {
            Some(builder) => builder.bulkhead(own, name),
            None => Own.bulkhead(own, name),
        }
    }
}

impl BulkheadPart for Own {
    type Gate = Asking<BulkheadGate>;

    fn bulkhead(
        self,
        own: CallsPart,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        let builder = own.builder_of_calls(name)?;
        named(builder, name, BulkheadBuilder::name).gate()
    }
}

impl<A: Clone> BulkheadPart for BulkheadBuilder<NotKeyed, Plain, A> {
    type Gate = Asking<BulkheadGate, A>;

    fn bulkhead(
        self,
        own: CallsPart,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

impl<F, A> BulkheadPart for BulkheadBuilder<LimitByKey<F>, Plain, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    A: Clone,
{
    type Gate = Asking<Keyed<F, BulkheadGate>, A>;

    fn bulkhead(
        self,
        own: CallsPart,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

pub(super) fn named<B>(
    builder: B,
    name: Option<&'static str>,
    set: impl FnOnce(B, &'static str) -> B,
) -> B {
    match name {
        Some(name) => set(builder, name),
        None => builder,
    }
}

/// The circuit breaker of a stack opens for half a second, and for up to one when the probe fails,
/// and needs few calls to judge by. An upstream is mostly back soon, and a circuit that is open for
/// long after that is an outage of its own: `cargo bench --bench simulation` has the table. One
/// probe, because of a thousand clients that call once a second three each are most of the load.
/// Few calls for a judgement, because such clients need ten seconds for ten.
pub(crate) fn circuit_breaker_config() -> BreakerConfig {
    BreakerConfig {
        open_for: Duration::from_millis(500),
        growing: true,
        max_open: Some(Duration::from_secs(1)),
        probes: 1,
        min_calls: 8,
        consecutive_failures: Some(10),
        ..BreakerConfig::default()
    }
}
