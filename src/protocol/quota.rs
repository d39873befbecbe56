//! A limit, as callers are told of it.

use std::time::Duration;

use crate::algorithm::Rate;

/// A limit as its callers may know it: a rate, or a bound on what is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// The instance, as given to `.name(..)`.
    pub name: Option<&'static str>,
    /// Which of the instance's limits it is, counted from 0, if that is made of
    /// [several](crate::algorithm::All).
    pub part: usize,
    /// Its name among those of the instance, if it is one of several
    /// [dimensions](crate::rate_limit::RateLimitLayer::dimensions).
    pub dimension: Option<&'static str>,
    /// What is counted, if not requests.
    pub unit: Option<&'static str>,
    /// How much in how long; `None` of a bound on what is in flight.
    pub rate: Option<Rate>,
    /// The most that is ever admitted at once.
    pub burst: u64,
    /// What would be admitted now.
    pub available: u64,
    /// How long until the whole burst would be admitted; if nothing is available now, until
    /// anything would. `None` if time alone does not tell.
    pub reset: Option<Duration>,
    /// A number that stands for the key, if the limit is keyed and tells.
    pub partition: Option<u64>,
}

impl Quota {
    /// The unit of a bound on what is in flight.
    pub(crate) const CONCURRENT_REQUESTS: &'static str = "concurrent-requests";
}
