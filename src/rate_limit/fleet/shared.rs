//! The part that all keys of a layer share: the store, and the task that asks it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    ConfigError,
    algorithm::{Breaker, BreakerConfig},
    ambient::{chance, clock::Clock},
    observe::FleetCounts,
    rate_limit::{
        fleet::{Outage, entry::Entry},
        key_hash::FleetSecret,
    },
    store::{AnyStore, StoreError},
};

/// The store, and the name of the limit in it.
#[derive(Debug, Clone)]
pub(in crate::rate_limit) struct FleetSettings {
    pub(in crate::rate_limit) store: Arc<dyn AnyStore>,
    pub(in crate::rate_limit) name: &'static str,
}

/// The part of a layer that asks the store.
#[derive(Debug)]
pub(in crate::rate_limit) struct Fleet {
    pub(super) store: Arc<dyn AnyStore>,
    pub(in crate::rate_limit) name: &'static str,
    /// Keys are hashed with it.
    pub(in crate::rate_limit) secret: FleetSecret,
    /// The choice of limits without one of their own.
    pub(in crate::rate_limit) outage: Outage,
    pub(super) clock: Clock,
    /// Drawn at random, and part of each debt's identity.
    pub(super) process: u64,
    pub(super) circuit: Breaker,
    /// Keys that the asking task has to take over.
    pub(super) newcomers: Mutex<Vec<Arc<Entry>>>,
    pub(super) task: Task,
    pub(super) counts: StoreCounts,
    last_error: Mutex<Option<StoreError>>,
}

/// The asking task, as calls see it.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) wake: Arc<Notify>,
    /// True from a call's request until the task starts on it. It saves each of many calls from
    /// waking the task. `AcqRel`: the task that clears the flag sees what the call has recorded
    /// before it set the flag.
    pub(super) is_wanted: AtomicBool,
    /// The time of the first request since the task last ran, or 0 if there was none. Relaxed: an
    /// estimate.
    pub(super) wanted_at: AtomicU64,
    /// The number of the task that has to run, odd while one runs. `AcqRel`: the thread that
    /// changes it to an odd number starts the task.
    pub(super) number: AtomicU64,
}

/// Counts for the handle and the metrics. Relaxed: they are statistics, except `down_since`, which
/// a call may see a moment late.
#[derive(Debug, Default)]
pub(super) struct StoreCounts {
    pub(super) leased: AtomicU64,
    pub(super) unspent: AtomicU64,
    pub(super) exchanges: AtomicU64,
    pub(super) failures: AtomicU64,
    /// In nanoseconds, or 0 if there was none.
    pub(super) round_trip: AtomicU64,
    /// The time of the first failure since the last answer, 0 if there was none.
    pub(super) down_since: AtomicU64,
    /// The time of the next ask, while the store is down.
    pub(super) due: AtomicU64,
}

impl Fleet {
    pub(in crate::rate_limit) fn new(
        settings: &FleetSettings,
        secret: FleetSecret,
        outage: Outage,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        let circuit = BreakerConfig {
            failure_rate: None,
            consecutive_failures: Some(3),
            open_for: Duration::from_millis(500),
            growing: true,
            max_open: Some(Duration::from_secs(5)),
            probes: 1,
            ..BreakerConfig::default()
        };
        Ok(Self {
            store: settings.store.clone(),
            name: settings.name,
            secret,
            outage,
            clock,
            process: chance::word(),
            circuit: Breaker::new(&circuit, 1, chance::word())?,
            newcomers: Mutex::default(),
            task: Task::default(),
            counts: StoreCounts::default(),
            last_error: Mutex::default(),
        })
    }

    pub(super) fn newcomers(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_down(&self) -> bool {
        self.counts.down_since.load(Ordering::Relaxed) > 0
    }

    /// Returns the time of the next ask, if the store is down.
    pub(super) fn due(&self) -> u64 {
        self.counts.due.load(Ordering::Relaxed)
    }

    /// Returns the mean time of the last answers, in nanoseconds. Before the first, a guess.
    pub(super) fn round_trip(&self) -> u64 {
        match self.counts.round_trip.load(Ordering::Relaxed) {
            0 => UNKNOWN_ROUND_TRIP,
            known => known,
        }
    }

    /// Returns the counts for the metrics.
    pub(in crate::rate_limit) fn counts(&self) -> FleetCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        let failed = of(&counts.failures);
        let round_trip = of(&counts.round_trip);
        FleetCounts {
            leased: of(&counts.leased),
            unspent: of(&counts.unspent),
            answered: of(&counts.exchanges).saturating_sub(failed),
            failed,
            is_down: self.is_down(),
            round_trip: (round_trip > 0).then(|| Duration::from_nanos(round_trip).as_secs_f64()),
        }
    }

    /// Counts units that can no longer be spent.
    pub(super) fn lost(&self, units: u32) {
        self.counts
            .unspent
            .fetch_add(u64::from(units), Ordering::Relaxed);
    }

    pub(super) fn last_error(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The task then finds that the layer is dropped, and ends.
        self.task.wake.notify_one();
    }
}

const UNKNOWN_ROUND_TRIP: u64 = 5_000_000;
