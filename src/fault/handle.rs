//! The handle.

use std::time::Duration;

use crate::{
    Changed, ConfigError,
    fault::{
        FaultPolicy, Snapshot,
        state::{State, start},
    },
    sync::Striped,
};

/// Starts, stops and watches faults. Cheap to clone. It keeps the state alive, not the services,
/// and faults go on when it is dropped.
#[derive(Debug)]
pub struct FaultHandle {
    state: Striped<State>,
}

impl FaultHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// Injects faults from now on, for so long. Ends a run that is under way. Counts requests from
    /// 0 again, so that a run of the same requests has the same fates. Returns whether it has
    /// started: not while the layer is switched off, nor for no time at all.
    ///
    /// Within a runtime it spawns a task that notices the end. Outside of one, the next call does,
    /// or the next look.
    pub fn start_for(&self, lasting: Duration) -> bool {
        start(&self.state, lasting)
    }

    /// Ends the run, if there is one. Calls that wait go on at once, and what was to befall them
    /// does not.
    pub fn stop(&self) {
        self.state.stop();
    }

    /// Returns whether faults run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.run().is_some()
    }

    /// The layer as it is now. Costs a few loads for each fault.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// The switches, to change one and [update](Self::update).
    #[must_use]
    pub fn policy(&self) -> FaultPolicy {
        self.state.policy()
    }

    /// Changes the switches. What is switched off stops at once, and is not started again by
    /// switching it on. Shadow mode is for calls that come from now on.
    ///
    /// # Errors
    /// A bound of no calls.
    pub fn update(&self, policy: FaultPolicy) -> Result<Changed, ConfigError> {
        self.state.update(policy)
    }
}

impl Clone for FaultHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}
