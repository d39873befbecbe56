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
    rate_limit::fleet::{Outage, entry::Entry},
    store::{AnyStore, StoreError},
};

/// Which store, under which name, and what to do without it.
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
    pub(super) outage: Outage,
    pub(super) clock: Clock,
    /// Drawn at random: debts bear it.
    pub(super) process: u64,
    pub(super) circuit: Breaker,
    /// Keys that the asking task is to take over.
    pub(super) newcomers: Mutex<Vec<Arc<Entry>>>,
    pub(super) task: Task,
    pub(super) counts: Counts,
    last_error: Mutex<Option<StoreError>>,
}

/// The asking task, as calls see it.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) wake: Arc<Notify>,
    /// True from a call's wish on until the task has taken it up. It keeps many calls from waking
    /// it each. `AcqRel`: what the call has noted before is seen by the task that takes the flag
    /// down.
    pub(super) is_wanted: AtomicBool,
    /// When it was first wanted since it last ran, or 0 if it was not. Relaxed: an estimate.
    pub(super) wanted_at: AtomicU64,
    /// The number of the task that is to run, even if none does. `AcqRel`: the thread that changes
    /// it starts one.
    pub(super) number: AtomicU64,
}

/// Counts for the handle and the metrics. Relaxed: statistics, but for `down_since`, which a call
/// may learn a moment late.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) leased: AtomicU64,
    pub(super) unspent: AtomicU64,
    pub(super) exchanges: AtomicU64,
    pub(super) failures: AtomicU64,
    /// In nanoseconds, or 0 if there was none.
    pub(super) round_trip: AtomicU64,
    /// The moment of the first failure since the last answer, 0 if there was none.
    pub(super) down_since: AtomicU64,
    /// When the store is asked again, while it is down.
    pub(super) due: AtomicU64,
}

impl Fleet {
    pub(in crate::rate_limit) fn new(
        settings: &FleetSettings,
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
            outage,
            clock,
            process: chance::word(),
            circuit: Breaker::new(&circuit, 1, chance::word())?,
            newcomers: Mutex::default(),
            task: Task::default(),
            counts: Counts::default(),
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

    /// When the store is asked again, if it is down.
    pub(super) fn due(&self) -> u64 {
        self.counts.due.load(Ordering::Relaxed)
    }

    /// The mean of the last answers, in nanoseconds. A guess before the first.
    pub(super) fn round_trip(&self) -> u64 {
        match self.counts.round_trip.load(Ordering::Relaxed) {
            0 => UNKNOWN_ROUND_TRIP,
            known => known,
        }
    }

    /// As the metrics see it.
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

    /// Counts units that nobody can spend any more.
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
        // The task finds that the layer is gone, and ends.
        self.task.wake.notify_one();
    }
}

const UNKNOWN_ROUND_TRIP: u64 = 5_000_000;
