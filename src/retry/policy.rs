//! What can be changed while a retry runs.

use std::time::Duration;

use crate::{Changed, ConfigError, algorithm::Backoff};

/// How often, and after how long, a call is sent again.
///
/// ```
/// use tower_keep::{protocol::Plain, retry::RetryLayer};
///
/// let retry = RetryLayer::builder().protocol(Plain::new().idempotent()).build()?;
/// let handle = retry.handle();
/// let changed = handle.update(handle.policy().attempts(5))?;
/// assert_eq!(changed.to_string(), "retry: `attempts` from 3 to 5");
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) max_retry_after: Duration,
}

impl Policy {
    /// The largest number of times that a call is sent, the first time included. Default 3: more
    /// rarely helps, and multiplies load.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// How long to wait between attempts. Default: from 100 ms, doubling up to 10 s, jittered.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest `Retry-After` that is waited for; beyond it the response is returned. Default 10
    /// s.
    #[must_use]
    pub fn max_retry_after(mut self, duration: Duration) -> Self {
        self.max_retry_after = duration;
        self
    }

    /// What [`attempts`](Self::attempts) set.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.attempts
    }

    /// What [`max_retry_after`](Self::max_retry_after) set.
    #[must_use]
    pub fn longest_hint(&self) -> Duration {
        self.max_retry_after
    }

    /// How long the second attempt waits at least, if there is one. A full jitter may be no wait.
    #[cfg(feature = "http")]
    pub(crate) fn least_wait(&self) -> Option<Duration> {
        let least = self.backoff.delay(0, Duration::ZERO, 0);
        (self.attempts > 1).then_some(least)
    }

    /// What is not as it was before.
    pub(super) fn since(&self, before: &Self) -> Changed {
        let hints = (before.max_retry_after, self.max_retry_after);
        Changed::default()
            .note("retry", "attempts", (before.attempts, self.attempts))
            .note("retry", "backoff", (before.backoff, self.backoff))
            .note("retry", "max_retry_after", hints)
    }

    /// # Errors
    /// No attempts.
    pub(super) fn check(self, name: Option<&'static str>) -> Result<Self, ConfigError> {
        if self.attempts == 0 {
            let fix = "send each call at least once; 3 is the default";
            return Err(ConfigError::new("attempts", 0, fix).of("retry", name));
        }
        Ok(self)
    }
}

/// Three attempts with that backoff.
impl From<Backoff> for Policy {
    fn from(backoff: Backoff) -> Self {
        Self::default().backoff(backoff)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(10),
        }
    }
}
