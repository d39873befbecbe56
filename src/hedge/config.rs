//! The settings that can change while a hedge runs.

use std::time::Duration;

use crate::{Changed, ConfigError, config::nanos_within};

/// The settings for when, and how often, a call is sent again while its first attempt runs.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::{hedge::HedgeLayer, protocol::Plain};
///
/// let hedge = HedgeLayer::builder()
///     .protocol(Plain::new().idempotent())
///     .delay(Duration::from_millis(50))
///     .build()?;
/// let handle = hedge.handle();
/// let mut config = handle.config();
/// config.delay = Duration::from_millis(20);
/// let changed = handle.update(config)?;
/// assert_eq!(changed.to_string(), "hedge: `delay` from 50ms to 20ms");
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HedgeConfig {
    /// The delay before a call's next hedge. With a quantile, the shortest delay. Default 1 ms.
    pub delay: Duration,
    /// The most hedges of one call. Default 1: the second one gains little.
    pub max_hedges: usize,
}

impl HedgeConfig {
    /// Returns the settings that differ from `before`.
    pub(super) fn since(&self, before: &Self) -> Changed {
        let hedges = (before.max_hedges, self.max_hedges);
        Changed::default()
            .note("hedge", "delay", (before.delay, self.delay))
            .note("hedge", "max_hedges", hedges)
    }

    /// Packs both settings in one word. `timeout` is the longest time of a call, if known.
    pub(super) fn pack(self, timeout: Option<Duration>) -> Result<u64, ConfigError> {
        if !(1..=MAX_HEDGES).contains(&self.max_hedges) {
            let fix = "send 1 to 10; for none, set `enabled` to false";
            return Err(ConfigError::new("max_hedges", self.max_hedges, fix));
        }
        let nanos = nanos_within(
            "delay",
            self.delay,
            Duration::from_micros(100)..=Duration::from_secs(3600),
            "use the time in which nineteen of twenty answers come; 50ms is a start",
        )?;
        if timeout.is_some_and(|timeout| self.delay >= timeout) {
            let fix = "lower it below `timeout`: the call would be over before its first hedge";
            return Err(ConfigError::new("delay", self.delay, fix));
        }
        Ok(nanos | (self.max_hedges as u64) << HEDGES_SHIFT)
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self {
            delay: Duration::from_nanos(word & DELAY_MASK),
            max_hedges: (word >> HEDGES_SHIFT) as usize,
        }
    }
}

/// One hedge, after at least 1 ms. The minimum delay if a quantile is set.
impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            max_hedges: 1,
        }
    }
}

const MAX_HEDGES: usize = 10;
/// An hour of nanoseconds has 42 bits.
const HEDGES_SHIFT: u32 = 48;
const DELAY_MASK: u64 = (1 << HEDGES_SHIFT) - 1;
