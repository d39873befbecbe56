//! What the layer, its services and its handles share.

use std::time::Duration;

use crate::{
    ConfigError, Outcome, Rejected, RejectedKind,
    algorithm::InFlight,
    bulkhead::layer::checked,
    protocol::Settle,
    striped::{Held, Striped},
};

/// Watches and changes a bulkhead from outside. Cheap to clone; it keeps the bulkhead's state
/// alive, not its services.
#[derive(Debug)]
pub struct BulkheadHandle {
    state: Striped<State>,
}

/// A bulkhead at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Calls that run now.
    pub in_flight: usize,
    /// The most that may.
    pub limit: usize,
}

/// A place in a bulkhead, from admission until it is dropped.
#[derive(Debug)]
pub struct Permit {
    /// `None` while the bulkhead is not enabled.
    state: Option<Held<State>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) in_flight: InFlight,
    pub(super) enabled: bool,
    pub(super) name: Option<&'static str>,
}

impl BulkheadHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The bulkhead as it is now. Costs two loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            in_flight: self.state.in_flight.count(),
            limit: self.state.in_flight.limit(),
        }
    }

    /// Changes the limit at once, without blocking. After a cut, nothing is admitted until enough
    /// calls have ended.
    ///
    /// # Errors
    /// A limit of 0.
    pub fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        self.state
            .in_flight
            .set_limit(checked(limit, self.state.name)?);
        Ok(())
    }
}

impl Clone for BulkheadHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

impl Settle for Permit {
    #[inline]
    fn settle(self, _: Outcome, _: Option<Duration>) {}
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            state.in_flight.leave();
        }
    }
}

#[inline]
pub(super) fn enter(state: &Held<State>) -> Result<Permit, Rejected> {
    if !state.enabled {
        return Ok(Permit { state: None });
    }
    if state.in_flight.enter() {
        return Ok(Permit {
            state: Some(state.for_call()),
        });
    }
    Err(Rejected {
        kind: RejectedKind::BulkheadFull,
        layer: "bulkhead",
        name: state.name,
        retry_after: None,
    })
}
