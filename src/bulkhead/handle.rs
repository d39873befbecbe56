//! The control surface.

use std::{sync::Arc, time::Duration};

use crate::{
    ConfigError,
    bulkhead::{
        BulkheadGate,
        state::{State, checked},
    },
};

/// Watches and changes a bulkhead from outside. Cheap to clone; it keeps the bulkhead's state
/// alive, not its services.
#[derive(Debug, Clone)]
pub struct BulkheadHandle {
    state: Arc<State>,
}

/// A bulkhead at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Calls that run now.
    pub in_flight: usize,
    /// How many may: as set, or as learned.
    pub limit: usize,
    /// How long calls took on average in the last window of an
    /// [adaptive](crate::bulkhead::BulkheadBuilder::adaptive) limit.
    pub rtt: Option<Duration>,
}

impl BulkheadGate {
    /// The control surface.
    #[must_use]
    pub fn handle(&self) -> BulkheadHandle {
        BulkheadHandle::new(self.state.clone())
    }
}

impl BulkheadHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// The bulkhead as it is now. Costs two loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let in_flight = &self.state.in_flight;
        Snapshot {
            in_flight: in_flight.count(),
            limit: in_flight.limit(),
            rtt: (self.state.learner.as_ref()).and_then(|learner| learner.rtt_of_late()),
        }
    }

    /// Changes the limit at once, without blocking; of an adaptive one, the most that it may
    /// become. After a cut, nothing is admitted until enough
    /// calls have ended.
    ///
    /// # Errors
    /// A limit of 0.
    pub fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        self.state.set_limit(checked(limit, self.state.name)?);
        Ok(())
    }
}
