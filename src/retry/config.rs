//! The settings that can change while a retry runs.

use std::time::Duration;

use crate::{Changed, ConfigError, algorithm::Backoff};

/// The settings for how often, and after how long, a call is sent again.
///
/// ```
/// use tower_keep::{protocol::Plain, retry::RetryLayer};
///
/// let retry = RetryLayer::builder().protocol(Plain::new().idempotent()).build()?;
/// let handle = retry.handle();
/// let mut config = handle.config();
/// config.attempts = 5;
/// let changed = handle.update(config)?;
/// assert_eq!(changed.to_string(), "retry: `attempts` from 3 to 5");
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// The most times that a call is sent, the first time included. Default 3: more rarely helps,
    /// and multiplies load.
    pub attempts: u32,
    /// The waits between attempts. Default: from 100 ms, doubling up to 10 s, jittered.
    pub backoff: Backoff,
    /// The longest `Retry-After` to wait for. Beyond it the response is returned. Default 10 s.
    pub max_retry_after: Duration,
}

impl RetryConfig {
    /// Lowers the default of `max_retry_after` to what a stack's total timeout leaves room for. A
    /// value that was set stays.
    #[cfg(feature = "http")]
    pub(crate) fn cap_retry_after(&mut self, cap: Duration) {
        if self.max_retry_after == Self::default().max_retry_after {
            self.max_retry_after = self.max_retry_after.min(cap);
        }
    }

    /// Returns the shortest wait before the second attempt, if there is one. Full jitter may not
    /// wait at all.
    #[cfg(feature = "http")]
    pub(crate) fn least_wait(&self) -> Option<Duration> {
        let least = self.backoff.delay(0, Duration::ZERO, 0);
        (self.attempts > 1).then_some(least)
    }

    /// Returns the settings that differ from `before`.
    pub(super) fn since(&self, before: &Self) -> Changed {
        let hints = (before.max_retry_after, self.max_retry_after);
        Changed::default()
            .note("retry", "attempts", (before.attempts, self.attempts))
            .note("retry", "backoff", (before.backoff, self.backoff))
            .note("retry", "max_retry_after", hints)
    }

    /// Returns the config if it is valid.
    ///
    /// # Errors
    /// `attempts` is 0.
    pub(super) fn check(self, name: Option<&'static str>) -> Result<Self, ConfigError> {
        if self.attempts == 0 {
            let fix = "send each call at least once; 3 is the default";
            return Err(ConfigError::new("attempts", 0, fix).of("retry", name));
        }
        Ok(self)
    }
}

/// Three attempts with the given backoff.
impl From<Backoff> for RetryConfig {
    fn from(backoff: Backoff) -> Self {
        Self {
            backoff,
            ..Self::default()
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(10),
        }
    }
}
