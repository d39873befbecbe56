//! The control surface.

use std::time::Duration;

use crate::{ConfigError, algorithm::Rate, rate_limit::state::State, striped::Striped};

/// Watches and changes a rate limit from outside. Cheap to clone; it keeps the limit's state alive, not its services.
#[derive(Debug)]
pub struct RateLimitHandle {
    state: Striped<State>,
}

/// A rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many calls of cost 1 would be admitted at once.
    pub available: u32,
    /// The most that ever are.
    pub burst: u32,
    /// How many calls wait for their turn.
    pub waiting: usize,
}

impl RateLimitHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The limit as it is now. Costs a clock read and a few loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.state.snapshot(WHOLE)
    }

    /// Changes rate and burst in one step. What was used stays used; those who wait are told.
    ///
    /// # Errors
    /// What `build` would refuse, and what this kind of limit cannot change: see its `update`.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.state.update(rate, burst)
    }

    /// Admits nothing for so long: a peer has said so by other means than a response.
    pub fn close_for(&self, duration: Duration) {
        self.state.close_for(WHOLE, duration);
    }

    /// Takes units that were used past the layer: by a batch, or by another process.
    pub fn charge(&self, units: u32) {
        self.state.charge(WHOLE, units);
    }

    /// Gives back units that were taken and not used.
    pub fn refund(&self, units: u32) {
        self.state.refund(WHOLE, units);
    }
}

impl Clone for RateLimitHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

/// The key of a limit that has none.
const WHOLE: u64 = 0;
