//! The settings that can change while a timeout runs.

use std::time::Duration;

/// The time of a call.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::timeout::TimeoutLayer;
///
/// let handle = TimeoutLayer::builder(Duration::from_secs(1)).build()?.handle();
/// let mut config = handle.config();
/// config.duration = Duration::from_secs(2);
/// let changed = handle.update(config)?;
/// assert_eq!(changed.to_string(), "timeout: `duration` from 1s to 2s");
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// The longest time of a call.
    pub duration: Duration,
}
