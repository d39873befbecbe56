//! The handle.

use std::time::Duration;

use crate::{Changed, ConfigError, observe::Totals, sync::Striped, timeout::state::State};

/// Watches and changes a timeout from outside. Cheap to clone; it keeps the timeout's state alive,
/// not its services.
#[derive(Debug)]
pub struct TimeoutHandle {
    state: Striped<State>,
}

/// A timeout at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// How long calls may take.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::of")
    )]
    pub duration: Duration,
    /// How many calls took longer, or came too late, so far.
    pub expired: u64,
    /// The same by kind. How other calls end a timeout does not ask.
    pub totals: Totals,
}

impl TimeoutHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The timeout as it is now. Costs some twenty loads a core.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let totals = self.state.totals();
        Snapshot {
            duration: self.state.duration(),
            expired: totals.rejected.iter().map(|(_, count)| count).sum(),
            totals,
        }
    }

    /// Changes how long calls may take, for those that start from now on.
    ///
    /// # Errors
    /// A duration of zero.
    pub fn update(&self, duration: Duration) -> Result<Changed, ConfigError> {
        self.state.update(duration)
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
