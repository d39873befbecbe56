//! The parts of both stacks.

mod dimensions;
mod others;

pub(super) use super::naming::named;
pub(super) use others::{Beside, ClientBulkheadPart, FallbackPart};
pub use others::{NoFallback, Untried};

use std::{hash::Hash, time::Duration};

use crate::{
    ConfigError,
    bulkhead::{BulkheadBuilder, BulkheadGate, BulkheadLayer, LimitByKey},
    gate::{Asking, Asks, Gate, Keyed},
    keyed::{HasKey, NotKeyed},
    protocol::Plain,
    rate_limit::{
        InTable, LimitGate, PerKey, PerKeyGate, Rate, RateLimitBuilder, RateLimitLayer, TableGate,
        WithTotal, one_second_of,
    },
    stack::hosts::Hosts,
};

/// A builder's state: this part uses the stack's own settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own;

/// The source of a rate limit: the stack's own settings, or a builder, keyed or not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no builder of a rate limit",
    note = "a stack builds its parts itself: give it `RateLimitLayer::builder(..)` without `.build()`"
)]
pub trait LimitPart {
    /// The gate.
    type Gate: Gate;

    /// Makes the gate. `own` are the stack's own settings.
    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError>;

    /// Returns how long a hint may close the limit for the calls to all hosts.
    fn closed_for_all(&self) -> Option<Duration> {
        None
    }
}

/// The source of a server's bulkhead: the stack's own settings, or a builder, keyed or not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no builder of a bulkhead",
    note = "a stack builds its parts itself: give it `BulkheadLayer::builder(..)` without `.build()`"
)]
pub trait BulkheadPart {
    /// The gate.
    type Gate: Gate;

    /// Makes the gate. `own` are the stack's own settings.
    fn bulkhead(
        self,
        own: CallsPart,
        name: Option<&'static str>,
    ) -> Result<Self::Gate, ConfigError>;
}

/// A part's builder, and a flag that leaves it out.
#[derive(Debug)]
pub(super) struct Part<B> {
    pub(super) builder: B,
    pub(super) enabled: bool,
}

/// A limit on the calls in flight, or a whole builder in its place.
#[derive(Debug, Default)]
pub struct CallsPart {
    /// The value of `max_in_flight`.
    pub(super) set: Option<usize>,
    /// The limit derived from other settings, or the default.
    otherwise: Option<usize>,
    /// The number of calls that may wait, and for how long, if no limit was set.
    waiting: Option<(usize, Duration)>,
    /// The time after which a permit may be reclaimed.
    reclaim_after: Option<Duration>,
    /// If true, there is no limit, whatever was set before.
    left_out: bool,
    /// The settings of a client's hosts, which have one bulkhead each.
    hosts: Hosts,
    /// If true, there is no limit until one is added, whatever follows from other settings.
    unbounded: bool,
}

/// A rate, unless a builder replaces it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RatePart {
    pub(super) rate: Option<Rate>,
    pub(super) burst: Option<u32>,
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
    /// Returns how many calls may arrive at once, by the stack's own settings.
    pub(super) fn burst(&self) -> usize {
        let burst = self.burst.or_else(|| self.rate.map(one_second_of));
        burst.map_or(0, |burst| usize::try_from(burst).unwrap_or(usize::MAX))
    }

    /// Makes the gate. Without a rate it is off, until one is added.
    fn gate(self, name: Option<&'static str>) -> Result<Option<Asking<LimitGate>>, ConfigError> {
        let builder = match (self.rate, self.burst) {
            (Some(rate), None) => RateLimitLayer::builder(rate),
            (Some(rate), Some(burst)) => RateLimitLayer::builder(rate).burst(burst),
            (None, None) => RateLimitLayer::builder(Rate::per_second(1)).enabled(false),
            (None, Some(burst)) => {
                let fix = "set a `rate` too";
                return Err(ConfigError::new("burst", burst, fix).of("stack", name));
            }
        };
        named(builder, name, RateLimitBuilder::name)
            .gate()
            .map(Some)
    }

    /// Fails if a rate is set together with a builder that has its own.
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
    pub(super) fn new(set: Option<usize>) -> Self {
        Self {
            set,
            ..Self::default()
        }
    }

    pub(super) fn reclaiming(self, reclaim_after: Option<Duration>) -> Self {
        Self {
            reclaim_after,
            ..self
        }
    }

    /// Sets the settings of hosts.
    pub(super) fn of_hosts(self, hosts: Hosts) -> Self {
        Self { hosts, ..self }
    }

    /// Takes a quarter of the calls that a rate admits within a timeout, unless a limit was set.
    pub(super) fn or_quarter_of(self, known: Option<(Rate, Duration)>) -> Self {
        self.or_share_of(known, (4, 0))
    }

    /// Takes half of the calls that a rate admits within a timeout, unless a limit was set. Lets as
    /// many wait, or a whole burst.
    pub(super) fn or_half_of(self, known: Option<(Rate, Duration)>, burst: usize) -> Self {
        self.or_share_of(known, (2, burst))
    }

    /// Takes one of `parts` parts, and lets as many wait, or `waiting` if that is more.
    fn or_share_of(
        mut self,
        known: Option<(Rate, Duration)>,
        (parts, waiting): (u128, usize),
    ) -> Self {
        if let Some((rate, timeout)) = known.filter(|_| self.set.is_none() && !self.unbounded) {
            let within = u128::from(rate.count()).saturating_mul(timeout.as_nanos());
            let share = within / rate.per().as_nanos().max(1) / parts;
            let share = usize::try_from(share).unwrap_or(usize::MAX).max(1);
            self.otherwise = Some(share);
            self.waiting = Some((waiting.max(share), timeout / 10 * 3));
        }
        self
    }

    /// Returns a builder with the stack's own limit.
    fn builder_of_calls(self, name: Option<&'static str>) -> Result<BulkheadBuilder, ConfigError> {
        let mut builder = BulkheadLayer::builder(self.calls(name)?);
        if let Some(after) = self.reclaim_after {
            builder = builder.reclaim_after(after);
        }
        Ok(match self.waiting {
            Some((calls, max_wait)) => builder.max_wait(max_wait).max_waiting(calls),
            None => builder,
        })
    }

    /// Returns the builder of a client's bulkhead. Without a limit it only counts, until one is
    /// set.
    fn builder_or_any(self, name: Option<&'static str>) -> Result<BulkheadBuilder, ConfigError> {
        let keys = self.hosts.keys;
        let builder = match self.set.or(self.otherwise) {
            _ if self.left_out => BulkheadLayer::builder(usize::MAX).enabled(false),
            None => BulkheadLayer::builder(usize::MAX),
            Some(_) => self.builder_of_calls(name)?,
        };
        Ok(builder.key_settings(keys))
    }

    /// Returns whether a limit can be changed: there is one, or could be.
    pub(super) fn is_there(&self) -> bool {
        !self.left_out
    }

    /// Makes a part without a limit, whatever was set before.
    pub(super) fn left_out() -> Self {
        Self {
            left_out: true,
            ..Self::default()
        }
    }

    /// Makes a part without a limit until one is added.
    #[cfg(feature = "serde")]
    pub(super) fn unbounded() -> Self {
        Self {
            unbounded: true,
            ..Self::default()
        }
    }

    /// Includes the part again after it was left out.
    pub(super) fn put_back(&mut self) {
        self.left_out = false;
    }

    /// Names a client's bulkhead that was set by its builder. It is off if the part was left out.
    fn given<K, P, A>(
        &self,
        builder: BulkheadBuilder<K, P, A>,
        name: Option<&'static str>,
    ) -> Result<BulkheadBuilder<K, P, A>, ConfigError> {
        self.unset(name)?;
        let builder = match self.left_out {
            true => builder.enabled(false),
            false => builder,
        };
        Ok(named(builder, name, BulkheadBuilder::name))
    }

    /// Returns the limit if there is one and it is valid.
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

    /// Fails if a limit is set together with a builder that has its own.
    fn unset(&self, name: Option<&'static str>) -> Result<(), ConfigError> {
        let fix = "leave it: `bulkhead` was given one with a limit of its own";
        match (self.set, self.reclaim_after) {
            (Some(calls), _) => Err(ConfigError::new("max_in_flight", calls, fix)),
            (None, Some(after)) => {
                let fix = "leave it: `bulkhead` was given one, whose builder has this too";
                Err(ConfigError::new("reclaim_after", after, fix))
            }
            (None, None) => Ok(()),
        }
        .map_err(|error| error.of("stack", name))
    }
}

impl LimitPart for Own {
    type Gate = Option<Asking<LimitGate>>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.gate(name)
    }
}

impl<A: Asks + Clone> LimitPart for RateLimitBuilder<NotKeyed, Plain, A> {
    type Gate = Option<Asking<LimitGate, A>>;

    fn closed_for_all(&self) -> Option<Duration> {
        self.honored()
    }

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate().map(Some)
    }
}

impl<F: Clone, A: Asks + Clone> LimitPart for RateLimitBuilder<InTable<F>, Plain, A> {
    type Gate = Asking<WithTotal<TableGate<F>>, A>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

impl<F, A> LimitPart for RateLimitBuilder<PerKey<F>, Plain, A>
where
    F: HasKey<Key: Hash + Eq + Clone + Send + Sync + 'static> + Clone,
    A: Asks + Clone,
{
    type Gate = PerKeyGate<F, A>;

    fn limit(self, own: RatePart, name: Option<&'static str>) -> Result<Self::Gate, ConfigError> {
        own.unset(name)?;
        named(self, name, Self::name).gate()
    }
}

impl LimitPart for Option<RateLimitBuilder> {
    type Gate = Option<Asking<LimitGate>>;

    fn closed_for_all(&self) -> Option<Duration> {
        self.as_ref().and_then(RateLimitBuilder::honored)
    }

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

impl<A: Asks + Clone> BulkheadPart for BulkheadBuilder<NotKeyed, Plain, A> {
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
    A: Asks + Clone,
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
