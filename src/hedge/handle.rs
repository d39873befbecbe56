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

    /// Switches the hedge on or off. Off, no call is sent once more, not even one that has begun.
    /// Hedges that are under way go on.
    pub fn set_enabled(&self, enabled: bool) -> Changed {
        self.state.set_enabled(enabled)
    }

    /// Returns whether the hedge is on: as it was built, or as it was
    /// [switched](Self::set_enabled) since.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state.is_enabled()
    }

    /// Whether an update to these settings would be accepted.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, config: HedgeConfig) -> Result<(), ConfigError> {
        self.state.check(config).map(drop)
    }

    /// How long a hedge waits at least, after a change to other settings, or to none.
    #[cfg(feature = "http")]
    pub(crate) fn delay_after(
        &self,
        change: Option<Option<HedgeConfig>>,
    ) -> Option<std::time::Duration> {
        let now = || self.state.is_enabled().then(|| self.config());
        change.unwrap_or_else(now).map(|config| config.delay)
    }
}
