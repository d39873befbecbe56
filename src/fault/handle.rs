//! The handle of a fault layer.

use std::time::Duration;

use crate::{
    Changed, ConfigError,
    fault::{
        FaultPolicy, Snapshot,
        state::{State, start},
    },
    sync::Striped,
};

/// A handle to start, stop and watch faults. Cheap to clone. It keeps the state alive, not the
/// services. Faults continue when it is dropped.
#[derive(Debug)]
pub struct FaultHandle {
    state: Striped<State>,
}

impl FaultHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// Injects faults from now on, for `lasting`. Ends a run that is under way. Counts requests
    /// from 0 again, so that a run of the same requests has the same fates. Returns whether it has
    /// started: not while the layer is switched off, nor for a time of zero.
    ///
    /// Within a runtime it spawns a task that notices the end. Outside of one, the next call
    /// notices it, or the next use of the handle.
    pub fn start_for(&self, lasting: Duration) -> bool {
        start(&self.state, lasting)
    }

    /// Ends the run, if there is one. Calls that wait continue at once, without their fault.
    pub fn stop(&self) {
        self.state.stop();
    }

    /// Returns whether faults run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.run().is_some()
    }

    /// Returns the layer's numbers now. Costs a few loads for each fault.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// Returns the switches: change one and [update](Self::update) them.
    #[must_use]
    pub fn policy(&self) -> FaultPolicy {
        self.state.policy()
    }

    /// Changes the switches. A run that is switched off stops at once, and does not restart when it
    /// is switched on again. Shadow mode applies to calls that arrive from now on.
    ///
    /// # Errors
    /// `max_active` is 0.
    pub fn update(&self, policy: FaultPolicy) -> Result<Changed, ConfigError> {
        self.state.update(policy)
    }
}

impl Clone for FaultHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}
