//! The checks that all sliding windows share.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    algorithm::Rate,
    config::{ConfigError, nanos_within},
};

/// Returns the count of a window's rate, which is also its burst.
pub(crate) fn count_of(rate: Rate, most: u32) -> Result<u32, ConfigError> {
    let fix = if most > MAX_COUNT {
        "count 1 to 4 294 967 295 units in a window; in larger units, if need be"
    } else {
        "count 1 to 16 777 215 units in a window; in larger units, if need be"
    };
    match u32::try_from(rate.count()) {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(ConfigError::new("rate", rate, fix)),
    }
}

/// Returns the length of a window in nanoseconds.
pub(crate) fn window_of(rate: Rate) -> Result<u64, ConfigError> {
    nanos_within("rate", rate.per(), WINDOWS, "use a window of 1ms to 1 year")
}

/// Returns the new count of a window that keeps its length.
pub(crate) fn changed_count(
    rate: Rate,
    burst: u32,
    window: u64,
    most: u32,
) -> Result<u32, ConfigError> {
    let count = count_of(rate, MAX_COUNT.max(most))?;
    if count > most {
        return Err(ConfigError::new(
            "rate",
            rate,
            "make the limit with the most that it will ever count, and lower it from there",
        ));
    }
    if window_of(rate)? != window {
        return Err(ConfigError::new(
            "rate",
            rate,
            "keep the window's length, and change its count",
        ));
    }
    if burst != count {
        return Err(ConfigError::new(
            "burst",
            burst,
            "give the count of the rate: a window admits all of it at once",
        ));
    }
    Ok(count)
}

/// The highest count that fits 24 bits: 16.7 million.
pub(crate) const MAX_COUNT: u32 = (1 << 24) - 1;
const WINDOWS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(366 * 86_400);
