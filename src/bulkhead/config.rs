//! The settings that can change while a bulkhead runs.

use std::time::Duration;

/// The number of calls that may run, and how long a call holds its permit while others need it.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::bulkhead::BulkheadLayer;
///
/// let bulkhead = BulkheadLayer::builder(10).reclaim_after(Duration::from_secs(60)).build()?;
/// let handle = bulkhead.handle();
/// let mut config = handle.config();
/// config.limit = 20;
/// config.reclaim_after = Some(Duration::from_secs(30));
/// let changed = handle.update(config)?;
/// assert_eq!(changed.to_string(), "bulkhead: `limit` from 10 to 20, \
///     bulkhead: `reclaim_after` from 60s to 30s");
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// The maximum number of calls in flight. For an
    /// [adaptive](crate::bulkhead::BulkheadBuilder::adaptive) limit, the maximum that it may reach.
    pub limit: usize,
    /// The time after which a call may [lose its
    /// permit](crate::bulkhead::BulkheadBuilder::reclaim_after). Can be set only if the bulkhead
    /// was built with one. Calls that run already keep theirs. `None`: never.
    pub reclaim_after: Option<Duration>,
}
