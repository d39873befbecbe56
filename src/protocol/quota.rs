//! A limit as it is advertised to callers.

use std::time::Duration;

use crate::algorithm::Rate;

/// A limit as it is advertised to callers: a rate, or a bound on calls in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// The instance, as given to `.name(..)`.
    pub name: Option<&'static str>,
    /// The index of the limit, from 0, if the instance is made of [several](crate::algorithm::All).
    pub part: usize,
    /// The name of the quota, if it is one of several
    /// [dimensions](crate::rate_limit::RateLimitLayer::dimensions).
    pub dimension: Option<&'static str>,
    /// The unit, if it is not requests.
    pub unit: Option<&'static str>,
    /// Units per period, or `None` for a bound on calls in flight.
    pub rate: Option<Rate>,
    /// The most units ever admitted at once.
    pub burst: u64,
    /// Units that would be admitted now.
    pub available: u64,
    /// Time until the whole burst would be admitted, or until one unit would if nothing is
    /// available now. `None` if it does not depend on time alone.
    pub reset: Option<Duration>,
    /// A number that stands for the key, if the limit is keyed and advertises that.
    pub partition: Option<u64>,
}

impl Quota {
    /// The unit of a bound on calls in flight.
    pub(crate) const CONCURRENT_REQUESTS: &'static str = "concurrent-requests";
}
