//! The handle of a timeout.

use std::time::Duration;

use crate::{
    Changed, ConfigError,
    observe::Totals,
    sync::Striped,
    timeout::{TimeoutConfig, state::State},
};

/// A handle to watch and change a timeout. Cheap to clone. It keeps the timeout's state alive, not
/// its services.
#[derive(Debug)]
pub struct TimeoutHandle {
    state: Striped<State>,
}

/// The numbers of a timeout at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The longest time of a call.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::of")
    )]
    pub duration: Duration,
    /// Calls so far that took longer, or that were rejected before they were sent.
    pub expired: u64,
    /// The same by kind. A timeout does not count how other calls end.
    pub totals: Totals,
}

impl TimeoutHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// Returns the timeout's numbers now. Costs some twenty loads per core.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let totals = self.state.totals();
        Snapshot {
            duration: self.state.duration(),
            expired: totals.rejected.iter().map(|(_, count)| count).sum(),
            totals,
        }
    }

    /// Returns the settings in force, to change and pass to [`update`](Self::update).
    #[must_use]
    pub fn config(&self) -> TimeoutConfig {
        TimeoutConfig {
            duration: self.state.duration(),
        }
    }

    /// Changes the settings of calls that start from now on.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn update(&self, config: TimeoutConfig) -> Result<Changed, ConfigError> {
        self.state.update(config.duration)
    }

    /// Changes the longest time of calls that start from now on.
    ///
    /// # Errors
    /// `duration` is zero.
    pub fn set_duration(&self, duration: Duration) -> Result<Changed, ConfigError> {
        self.update(TimeoutConfig { duration })
    }

    /// Returns whether [`update`](Self::update) would accept it.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, duration: Duration) -> Result<(), ConfigError> {
        self.state.check(duration).map(drop)
    }
}

impl Clone for TimeoutHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}
