//! What the layer, its services and its handles share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{ConfigError, config::nanos_within, striped::Striped};

/// Watches and changes a timeout from outside. Cheap to clone; it keeps the timeout's state alive,
/// not its services.
#[derive(Debug)]
pub struct TimeoutHandle {
    state: Striped<State>,
}

/// A timeout at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How long calls may take.
    pub duration: Duration,
    /// How many took longer, so far.
    pub expired: u64,
}

#[derive(Debug)]
pub(super) struct State {
    /// In nanoseconds. Relaxed: a call that races a change obeys one of the two.
    limit: AtomicU64,
    /// Relaxed: a statistic.
    expired: AtomicU64,
    enabled: bool,
    name: Option<&'static str>,
}

impl TimeoutHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The timeout as it is now. Costs two loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            duration: Duration::from_nanos(self.state.limit.load(Ordering::Relaxed)),
            expired: self.state.expired.load(Ordering::Relaxed),
        }
    }

    /// Changes how long calls may take, for those that start from now on.
    ///
    /// # Errors
    /// A duration of zero.
    pub fn set_duration(&self, duration: Duration) -> Result<(), ConfigError> {
        self.state
            .limit
            .store(checked(duration, self.state.name)?, Ordering::Relaxed);
        Ok(())
    }
}

impl Clone for TimeoutHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

impl State {
    pub(super) fn new(
        duration: Duration,
        enabled: bool,
        name: Option<&'static str>,
    ) -> Result<Self, ConfigError> {
        let limit = AtomicU64::new(checked(duration, name)?);
        Ok(Self {
            limit,
            expired: AtomicU64::new(0),
            enabled,
            name,
        })
    }

    #[inline]
    pub(super) fn limit(&self) -> Option<Duration> {
        self.enabled
            .then(|| Duration::from_nanos(self.limit.load(Ordering::Relaxed)))
    }

    pub(super) fn name(&self) -> Option<&'static str> {
        self.name
    }

    pub(super) fn count_expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }
}

/// Longer than 584 years is 584 years.
fn checked(duration: Duration, name: Option<&'static str>) -> Result<u64, ConfigError> {
    let longest = Duration::from_nanos(u64::MAX);
    nanos_within(
        "duration",
        duration.min(longest),
        Duration::from_nanos(1)..=longest,
        "give calls some time; 1s is a start",
    )
    .map_err(|error| error.of("timeout", name))
}
