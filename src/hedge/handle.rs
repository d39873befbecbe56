//! The handle.

use std::sync::Arc;

use crate::{
    Changed, ConfigError,
    hedge::{
        HedgeConfig,
        state::{Snapshot, State},
    },
};

/// Watches and changes a hedge from outside. Cheap to clone; it keeps the hedge's state alive, not
/// its services.
#[derive(Debug, Clone)]
pub struct HedgeHandle {
    state: Arc<State>,
}

impl HedgeHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    #[inline]
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The hedge as it is now. Costs a load for each of its numbers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// When, and how often, calls are hedged.
    #[must_use]
    pub fn config(&self) -> HedgeConfig {
        self.state.config()
    }

    /// Changes that at once, for hedges that are not due yet: start from
    /// [`config`](Self::config).
    ///
    /// # Errors
    /// What [`build`](super::HedgeBuilder::build) would reject. Nothing has changed then.
    pub fn update(&self, config: HedgeConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Whether an update to these settings would be accepted.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, config: HedgeConfig) -> Result<(), ConfigError> {
        self.state.check(config).map(drop)
    }

    /// How long a hedge waits at least, after a change to other settings.
    #[cfg(feature = "http")]
    pub(crate) fn delay_after(&self, config: Option<HedgeConfig>) -> Option<std::time::Duration> {
        let config = config.unwrap_or_else(|| self.config());
        self.state.is_enabled().then_some(config.delay)
    }
}
