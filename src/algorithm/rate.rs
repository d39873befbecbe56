//! So many in so long.

use std::{fmt, time::Duration};

/// A number of units in a length of time: `Rate::per_second(100)` is a hundred each second.
///
/// No constructor takes an interval under a name that reads as a rate. Making one cannot fail; what
/// is built from it checks it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Rate {
    count: u64,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::of")
    )]
    per: Duration,
}

impl Rate {
    /// `count` units in each `per`.
    #[must_use]
    pub const fn new(count: u64, per: Duration) -> Self {
        Self { count, per }
    }

    /// `count` units each second.
    #[must_use]
    pub const fn per_second(count: u64) -> Self {
        Self::new(count, Duration::from_secs(1))
    }

    /// `count` units each minute.
    #[must_use]
    pub const fn per_minute(count: u64) -> Self {
        Self::new(count, Duration::from_secs(60))
    }

    /// `count` units each hour.
    #[must_use]
    pub const fn per_hour(count: u64) -> Self {
        Self::new(count, Duration::from_secs(60 * 60))
    }

    /// `count` units each day of 24 hours.
    #[must_use]
    pub const fn per_day(count: u64) -> Self {
        Self::new(count, Duration::from_secs(24 * 60 * 60))
    }

    /// How many units.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// In how long.
    #[must_use]
    pub const fn per(&self) -> Duration {
        self.per
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {:?}", self.count, self.per)
    }
}
