//! The handle of the part of a limit that asks the store.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{observe::FleetCounts, rate_limit::fleet::Fleet, store::StoreError};

/// Watches the part of a rate limit that asks the store. Cheap to clone.
///
/// To forget what a key has used, in all processes, call `reset` of the limit's own handle. The
/// store receives the reset with the next ask.
#[derive(Debug, Clone)]
pub struct FleetHandle {
    fleet: Arc<Fleet>,
}

/// Leases and the store at one moment, as this process knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetSnapshot {
    /// Units that the store has granted to this process, so far.
    pub leased: u64,
    /// Units of these that ended before a call spent them, so far. No other process could use them.
    pub unspent: u64,
    /// Batches of asks sent so far.
    pub exchanges: u64,
    /// Batches without any answer so far.
    pub failures: u64,
    /// Mean time of the last answers, or `None` before the first.
    pub round_trip: Option<Duration>,
    /// Time for which the store has not answered, or `None` if the last batch was answered.
    pub down_since: Option<Duration>,
}

impl FleetHandle {
    pub(in crate::rate_limit) fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet }
    }

    /// Returns the current state. Costs a clock read and a few loads.
    #[must_use]
    pub fn snapshot(&self) -> FleetSnapshot {
        let counts = &self.fleet.counts;
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let some = |nanos: u64| (nanos > 0).then_some(nanos);
        let now = self.fleet.clock.now();
        FleetSnapshot {
            leased: of(&counts.leased),
            unspent: of(&counts.unspent),
            exchanges: of(&counts.exchanges),
            failures: of(&counts.failures),
            round_trip: some(of(&counts.round_trip)).map(Duration::from_nanos),
            down_since: some(of(&counts.down_since))
                .map(|since| Duration::from_nanos(now.saturating_sub(since))),
        }
    }

    pub(in crate::rate_limit) fn counts(&self) -> FleetCounts {
        self.fleet.counts()
    }

    /// Returns the store's last failure, if there was one, for all keys or for one.
    #[must_use]
    pub fn last_error(&self) -> Option<StoreError> {
        self.fleet.last_error().clone()
    }
}
