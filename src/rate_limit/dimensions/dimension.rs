//! One quota of several.

use crate::{
    ConfigError, Name,
    algorithm::{Quotas, Rate, WideBucket},
    rate_limit::{Follow, Outage},
};

/// One quota of [several](super::super::RateLimitLayer::dimensions): a name, a rate and a burst,
/// all with 64 bits.
///
/// ```
/// use tower_keep::rate_limit::{Dimension, Rate};
///
/// // Ten dollars a day, counted in millionths, of which any part may come at once.
/// let money = Dimension::money("micro_dollars", Rate::per_day(10_000_000)).burst(10_000_000);
/// # let _ = money;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Dimension {
    pub(super) name: &'static str,
    pub(super) rate: Rate,
    burst: Option<u64>,
    pub(super) follow: Option<Follow>,
    /// `None` if it does as the others do.
    pub(super) outage: Option<Outage>,
}

impl Dimension {
    /// Creates a quota. Errors, fields and metrics use its name. Default burst: the units of one
    /// period of the rate, for example of a minute with `Rate::per_minute`. Providers mean the same
    /// by a quota per minute.
    #[must_use]
    pub fn new(name: impl Into<Name>, rate: Rate) -> Self {
        Self {
            name: name.into().as_str(),
            rate,
            burst: None,
            follow: None,
            outage: None,
        }
    }

    /// A quota of money. It is the same as [`new`](Self::new), but for a [fleet] whose store is
    /// down: then it admits nothing, whatever [`while_down`] says of the other quotas. What was
    /// spent without being counted does not come back.
    ///
    /// [fleet]: crate::rate_limit::DimensionsBuilder::fleet
    /// [`while_down`]: crate::rate_limit::DimensionsBuilder::while_down
    #[must_use]
    pub fn money(name: impl Into<Name>, rate: Rate) -> Self {
        Self::new(name, rate).while_down(Outage::Closed)
    }

    /// Sets how many units are admitted at once after a pause.
    #[must_use]
    pub fn burst(mut self, units: u64) -> Self {
        self.burst = Some(units);
        self
    }

    /// Follows one of the upstream's quotas, as
    /// [`RateLimitBuilder::follow`](crate::rate_limit::RateLimitBuilder::follow) does.
    #[must_use]
    pub fn follow(mut self, quota: Follow) -> Self {
        self.follow = Some(quota);
        self
    }

    /// Sets what becomes of calls that cost something of this quota while the store of a fleet does
    /// not answer. Default: as [the limit's](crate::rate_limit::DimensionsBuilder::while_down).
    #[must_use]
    pub fn while_down(mut self, outage: Outage) -> Self {
        self.outage = Some(outage);
        self
    }

    /// Checks rate and burst.
    #[cfg(feature = "serde")]
    pub(crate) fn checked(&self) -> Result<(), ConfigError> {
        self.quotas().map(|_| ())
    }

    pub(super) fn with(self, rate: Rate, burst: u64) -> Self {
        let burst = Some(burst);
        Self {
            rate,
            burst,
            ..self
        }
    }

    /// The burst that was set, or the units of one period.
    pub(crate) fn units(&self) -> u64 {
        self.burst.unwrap_or_else(|| self.rate.count().max(1))
    }

    pub(super) fn quotas(&self) -> Result<Quotas, ConfigError> {
        let own = WideBucket::new(self.rate, self.units());
        let own = own.map_err(|error| error.of("rate_limit", Some(self.name)))?;
        Ok(Quotas::new(own, self.follow.is_some()))
    }
}
