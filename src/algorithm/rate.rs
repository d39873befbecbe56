//! A rate: a number of units in a length of time.

use std::{fmt, time::Duration};

/// A number of units in a length of time: `Rate::per_second(100)` is a hundred each second.
///
/// No constructor takes an interval under a name that reads as a rate. Constructors never fail. The
/// limit that is built from a rate checks it.
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

    /// Returns a rate at which no window of `per` ever holds more than `count` units, given the
    /// default burst of one second's worth. Use it for an upstream that counts in such windows and
    /// punishes a single unit too many.
    ///
    /// A token bucket admits up to `burst + rate * t` in any window of `t`. So this rate is `count`
    /// units in `per` plus a second, plus a timer's tick for calls that wait. With another burst,
    /// the promise does not hold.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::{algorithm::Rate, rate_limit::RateLimitLayer};
    ///
    /// // 98 at once, and 5900 a minute.
    /// let rate = Rate::never_above(6000, Duration::from_secs(60));
    /// let limit = RateLimitLayer::builder(rate).build()?;
    /// assert_eq!(limit.handle().snapshot().burst, 98);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn never_above(count: u64, per: Duration) -> Self {
        // A timer's tick is 2 ms.
        Self::new(count, per.saturating_add(Duration::from_millis(1002)))
    }

    /// Returns the number of units.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the length of time.
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
