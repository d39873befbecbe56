//! The handle.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    Changed, ConfigError,
    bulkhead::{BulkheadConfig, BulkheadGate, adaptive::Learner, state::State},
    gate::Controlled,
    keyed::partitions::Hold,
    observe::Totals,
};

/// Watches and changes a bulkhead from outside. Cheap to clone; it keeps the bulkhead's state
/// alive, not its services.
#[derive(Debug, Clone)]
pub struct BulkheadHandle {
    state: Arc<State>,
    /// `None` if it came with a list of all keys.
    _hold: Option<Hold>,
}

/// A bulkhead at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Calls that run now.
    pub in_flight: usize,
    /// How many may: as set, or as learned.
    pub limit: usize,
    /// How long calls took on average in the last window of an
    /// [adaptive](crate::bulkhead::BulkheadBuilder::adaptive) limit.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub rtt: Option<Duration>,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// Calls that have joined the queue so far, whatever became of them; of keys, of this one.
    pub waited: u64,
    /// What it has counted so far.
    pub totals: Totals,
}

impl BulkheadGate {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> BulkheadHandle {
        BulkheadHandle::new(self.state.clone())
    }
}

impl Controlled for BulkheadGate {
    type Handle = BulkheadHandle;

    fn control(&self) -> BulkheadHandle {
        self.handle()
    }
}

impl BulkheadHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        let hold = Some(state.hold.clone());
        Self { state, _hold: hold }
    }

    /// One that does not keep the key's place.
    pub(super) fn watching(state: Arc<State>) -> Self {
        Self { state, _hold: None }
    }

    /// The bulkhead as it is now. Costs some twenty loads a core.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let State {
            permits, waited, ..
        } = &*self.state;
        Snapshot {
            in_flight: permits.in_flight.count(),
            limit: permits.in_flight.limit(),
            rtt: self.state.learner().and_then(Learner::rtt),
            waiting: permits.queue.waiting(),
            waited: waited.load(Ordering::Relaxed),
            totals: permits.tally.totals(),
        }
    }

    /// The settings that [`update`](Self::update) changes.
    #[must_use]
    pub fn config(&self) -> BulkheadConfig {
        self.state.config()
    }

    /// Changes settings at once, without blocking: start from [`config`](Self::config). After a cut
    /// of the limit, nothing is admitted until enough calls have ended. After a raise, those that
    /// wait come in.
    ///
    /// Of one key the limit may be above the total of all keys: a change by hand is taken at its
    /// word.
    ///
    /// # Errors
    /// A limit of 0, or a `reclaim_after` of no time, or of a bulkhead that was built without.
    pub fn update(&self, config: BulkheadConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Changes just the limit, as [`update`](Self::update) does.
    ///
    /// # Errors
    /// A limit of 0.
    pub fn set_limit(&self, limit: usize) -> Result<Changed, ConfigError> {
        self.state.set_limit(limit)
    }

    /// Returns whether [`set_limit`](Self::set_limit) would accept it.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, limit: usize) -> Result<(), ConfigError> {
        let name = self.state.permits.tally.name;
        crate::bulkhead::settings::checked(limit, name).map(drop)
    }
}
