//! The handle of a hedge.

use std::sync::Arc;

use crate::{
    Changed, ConfigError,
    hedge::{
        HedgeConfig,
        state::{Snapshot, State},
    },
};

/// A handle to watch and change a hedge. Cheap to clone. It keeps the hedge's state alive, not its
/// services.
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

    /// Returns the hedge's numbers now. Costs a load for each of them.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// Returns when, and how often, calls are hedged.
    #[must_use]
    pub fn config(&self) -> HedgeConfig {
        self.state.config()
    }

    /// Changes the config at once, for hedges that are not due yet: start from
    /// [`config`](Self::config).
    ///
    /// # Errors
    /// The settings are such that [`build`](super::HedgeBuilder::build) would reject them. Nothing
    /// changes then.
    pub fn update(&self, config: HedgeConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Switches the hedge on or off. While it is off, no call gets another hedge, not even one that
    /// has begun. Hedges in flight continue.
    pub fn set_enabled(&self, enabled: bool) -> Changed {
        self.state.set_enabled(enabled)
    }

    /// Returns whether the hedge is on: as it was built, or as it was
    /// [switched](Self::set_enabled) since.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state.is_enabled()
    }

    /// Checks whether an update to these settings would be accepted.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, config: HedgeConfig) -> Result<(), ConfigError> {
        self.state.check(config).map(drop)
    }

    /// Returns the shortest delay of a hedge after a change: to other settings, or to off
    /// (`Some(None)`).
    #[cfg(feature = "http")]
    pub(crate) fn delay_after(
        &self,
        change: Option<Option<HedgeConfig>>,
    ) -> Option<std::time::Duration> {
        let now = || self.state.is_enabled().then(|| self.config());
        change.unwrap_or_else(now).map(|config| config.delay)
    }
}
