//! One quota of several.

use crate::{
    ConfigError, Name,
    algorithm::{Quotas, Rate, WideBucket},
    rate_limit::Follow,
};

/// One quota of [several](super::super::RateLimitLayer::dimensions): a name, a rate and a burst,
/// all with 64 bits.
///
/// ```
/// use tower_keep::rate_limit::{Dimension, Rate};
///
/// // Ten dollars a day, counted in millionths, of which any part may come at once.
/// let money = Dimension::new("micro_dollars", Rate::per_day(10_000_000)).burst(10_000_000);
/// # let _ = money;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Dimension {
    pub(super) name: &'static str,
    rate: Rate,
    burst: Option<u64>,
    pub(super) follow: Option<Follow>,
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
        }
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

    pub(super) fn quotas(&self) -> Result<Quotas, ConfigError> {
        let burst = self.burst.unwrap_or_else(|| self.rate.count().max(1));
        let own = WideBucket::new(self.rate, burst);
        let own = own.map_err(|error| error.of("rate_limit", Some(self.name)))?;
        Ok(Quotas::new(own, self.follow.is_some()))
    }
}
