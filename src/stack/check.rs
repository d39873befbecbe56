//! Checks of the settings of one part against another's.

use std::{fmt::Debug, time::Duration};

use crate::ConfigError;

/// The settings of a client that depend on each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// `None` if a part is left out, here and below.
    pub(super) total: Option<Duration>,
    pub(super) attempt: Option<Duration>,
    /// The length of the circuit's window.
    pub(super) window: Option<Duration>,
    /// The longest `Retry-After` that a retry waits for.
    pub(super) max_retry_after: Option<Duration>,
    /// The shortest wait of a retry before the second attempt is sent.
    pub(super) backoff: Option<Duration>,
    /// The shortest delay of a hedge.
    pub(super) delay: Option<Duration>,
}

impl Times {
    /// Checks the times against each other.
    ///
    /// # Errors
    /// Two settings contradict each other. The error names the one to change.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Self {
            total,
            attempt,
            window,
            max_retry_after,
            backoff,
            delay,
        } = *self;
        // A timeout of zero is reported by its own layer, and not by the longer time.
        let [total, attempt] = [total, attempt].map(|time| time.filter(|time| !time.is_zero()));
        if let (Some(total), Some(attempt)) = (total, attempt) {
            let fix = "raise it to `attempt_timeout` or more: not even one attempt would end";
            reject(total < attempt, "total_timeout", total, fix)?;
        }
        if let (Some(window), Some(attempt)) = (window, attempt) {
            let fix = "raise it to twice `attempt_timeout` or more: calls that hang would leave the \
                       window as fast as they enter it, and never open the circuit";
            reject(window < attempt.saturating_mul(2), "window", window, fix)?;
        }
        if let (Some(hint), Some(total)) = (max_retry_after, total) {
            let fix =
                "lower it to `total_timeout` or less: a longer wait only ends in that timeout";
            reject(hint > total, "max_retry_after", hint, fix)?;
        }
        if let (Some(backoff), Some(total)) = (backoff, total) {
            let fix = "lower its base below `total_timeout`: no call would ever be sent again";
            reject(backoff >= total, "backoff", backoff, fix)?;
        }
        // An attempt that has timed out is a failure, and its hedge is sent at once.
        let longest = [total, attempt].into_iter().flatten().min();
        if let (Some(delay), Some(longest)) = (delay, longest) {
            let fix = "lower it below `attempt_timeout` and `total_timeout`: no call would be \
                       hedged for being slow";
            reject(delay >= longest, "delay", delay, fix)?;
        }
        Ok(())
    }
}

/// Checks a limit for all hosts.
///
/// # Errors
/// The limit honors hints: that of one host would close it for all hosts.
pub(super) fn fits_all_hosts(
    honored: Option<Duration>,
    stack: Option<&'static str>,
) -> Result<(), ConfigError> {
    let Some(max) = honored else {
        return Ok(());
    };
    let fix = "leave it: the hint of one host would close the limit for all hosts; give each a \
               limit with `per_host`, or make the stack one of `one_peer`";
    Err(ConfigError::new("honor_retry_after", max, fix).of("stack", stack))
}

fn reject(
    is_wrong: bool,
    field: &'static str,
    value: impl Debug,
    fix: &'static str,
) -> Result<(), ConfigError> {
    if is_wrong {
        Err(ConfigError::new(field, value, fix))
    } else {
        Ok(())
    }
}
