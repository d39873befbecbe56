//! The control surface.

use std::{sync::Arc, time::Duration};

use crate::{
    ConfigError,
    hedge::state::{Snapshot, State},
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

    /// The hedge as it is now. Costs a load for each of its numbers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// Changes the delay, for hedges that are not due yet; with a quantile, the least delay.
    ///
    /// # Errors
    /// A delay under 100 microseconds or over an hour.
    pub fn set_delay(&self, delay: Duration) -> Result<(), ConfigError> {
        self.state.set_delay(delay)
    }
}
