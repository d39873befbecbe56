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

/// A handle that watches and changes a bulkhead. Cheap to clone. It keeps the bulkhead's state
/// alive, not its services.
#[derive(Debug, Clone)]
pub struct BulkheadHandle {
    state: Arc<State>,
    /// `None` if the handle came with a list of all keys.
    _hold: Option<Hold>,
}

/// The state of a bulkhead at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The calls in flight.
    pub in_flight: usize,
    /// The limit, as set or as learned.
    pub limit: usize,
    /// The average time of calls in the last window of an
    /// [adaptive](crate::bulkhead::BulkheadBuilder::adaptive) limit.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub rtt: Option<Duration>,
    /// The calls that wait for a permit.
    pub waiting: usize,
    /// The calls that have joined the queue so far, whatever became of them. For a key, those of
    /// that key.
    pub waited: u64,
    /// The counts so far.
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

    /// Creates a handle that does not protect the key from eviction.
    pub(super) fn watching(state: Arc<State>) -> Self {
        Self { state, _hold: None }
    }

    /// Returns the bulkhead's present state. Costs some twenty loads per core.
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

    /// Returns the settings that [`update`](Self::update) changes.
    #[must_use]
    pub fn config(&self) -> BulkheadConfig {
        self.state.config()
    }

    /// Changes settings at once, without blocking. Start from [`config`](Self::config). After the
    /// limit is lowered, no call is admitted until enough calls have ended. After it is raised,
    /// waiters are admitted.
    ///
    /// The limit of a single key may be above the total of all keys: a change by hand is not
    /// checked against it.
    ///
    /// # Errors
    /// The limit is 0, or `reclaim_after` is zero, or the bulkhead was built without it.
    pub fn update(&self, config: BulkheadConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Changes only the limit, as [`update`](Self::update) does.
    ///
    /// # Errors
    /// The limit is 0.
    pub fn set_limit(&self, limit: usize) -> Result<Changed, ConfigError> {
        self.state.set_limit(limit)
    }

    /// Returns an error if [`set_limit`](Self::set_limit) would reject this limit.
    #[cfg(feature = "http")]
    pub(crate) fn check(&self, limit: usize) -> Result<(), ConfigError> {
        let name = self.state.permits.tally.name;
        crate::bulkhead::settings::checked(limit, name).map(drop)
    }
}
