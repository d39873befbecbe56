//! A limit, as callers are told of it.

use std::time::Duration;

use crate::algorithm::Rate;

/// A rate limit as its callers may know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// The instance, as given to `.name(..)`.
    pub name: Option<&'static str>,
    /// Which of the instance's limits it is, counted from 0, if that is made of
    /// [several](crate::algorithm::All).
    pub part: usize,
    /// How much in how long.
    pub rate: Rate,
    /// The most that is ever admitted at once.
    pub burst: u32,
    /// What would be admitted now.
    pub available: u32,
    /// How long until the whole burst would be admitted; if nothing is available now, until
    /// anything would.
    pub reset: Duration,
}
