//! The state of a watch.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    ambient::clock::RealClock,
    observe::{Instance, Observed, State, Tally},
};

/// A handle to observe a [`Watch`](super::Watch). Cheap to clone. It does not keep the watch alive.
#[derive(Clone)]
pub struct WatchHandle {
    status: Arc<Status>,
}

/// A [`Watch`](super::Watch) at one moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct WatchSnapshot {
    /// If true, the file is watched: until its [`Watch`](super::Watch) is dropped.
    pub alive: bool,
    /// If true, the current content of the file is not applied: it is unreadable or wrong.
    pub failing: bool,
    /// The time since the file was last read and found valid. An unchanged file is read every ten
    /// seconds.
    #[serde(serialize_with = "crate::config::seconds::if_any")]
    pub last_good: Option<Duration>,
    /// The last error, even if the file has been fixed since.
    pub last_error: Option<LastError>,
    /// The number of readings.
    pub reads: u64,
    /// The number of texts that changed something.
    pub changes: u64,
    /// The number of errors.
    pub errors: u64,
}

/// The last error of a [`Watch`](super::Watch).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// The time since it happened.
    #[serde(serialize_with = "crate::config::seconds::of")]
    pub ago: Duration,
    /// The text of the error.
    pub error: String,
}

impl WatchHandle {
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self { status }
    }

    /// Returns whether the file is watched.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.status.alive.load(Ordering::Relaxed)
    }

    /// Returns the watch's state now. Takes a lock that the watch takes at each check of its file.
    #[must_use]
    pub fn snapshot(&self) -> WatchSnapshot {
        self.status.read()
    }
}

impl fmt::Debug for WatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchHandle")
            .field(&self.snapshot())
            .finish()
    }
}

/// The state shared by a watch, its thread, its handles and the registry. Atomics are Relaxed:
/// statistics.
pub(super) struct Status {
    tally: Tally,
    clock: RealClock,
    alive: AtomicBool,
    reads: AtomicU64,
    changes: AtomicU64,
    errors: AtomicU64,
    /// Locked to change or to read it.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    failing: bool,
    /// The time at which the file was last good, by the clock.
    good: Option<u64>,
    error: Option<(u64, String)>,
}

impl Status {
    /// Makes the status of a newly watched file, with its name in metrics.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            tally: Tally::new("settings", Some(name)),
            clock: RealClock::start(),
            alive: AtomicBool::new(true),
            reads: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    /// Returns the name of the file.
    pub(super) fn file(&self) -> Option<&'static str> {
        self.tally.name
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(super) fn was_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a text that was read completely. `failing` is true if it was not applied.
    pub(super) fn was_taken(&self, failing: bool) {
        let now = self.now();
        let mut last = self.lock();
        last.failing = failing;
        if !failing {
            last.good = Some(now);
        }
    }

    /// Records that the file is unchanged.
    pub(super) fn is_unchanged(&self) {
        let failing = self.lock().failing;
        self.was_taken(failing);
    }

    pub(super) fn has_failed(&self, error: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        self.lock().error = Some((now, error));
    }

    pub(super) fn has_ended(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    fn read(&self) -> WatchSnapshot {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let last = self.lock();
        let now = self.now();
        let ago = |moment: u64| Duration::from_nanos(now.saturating_sub(moment));
        let error = last.error.as_ref();
        WatchSnapshot {
            alive: self.alive.load(Ordering::Relaxed),
            failing: last.failing,
            last_good: last.good.map(ago),
            last_error: error.map(|(moment, error)| LastError {
                ago: ago(*moment),
                error: error.clone(),
            }),
            reads: count(&self.reads),
            changes: count(&self.changes),
            errors: count(&self.errors),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observed for Status {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let snapshot = self.read();
        let state = State::Watch {
            alive: snapshot.alive,
            failing: snapshot.failing,
            last_good: snapshot.last_good.map(|ago| ago.as_secs_f64()),
            reads: snapshot.reads,
            changes: snapshot.changes,
            errors: snapshot.errors,
        };
        Instance::new(&self.tally, Vec::new(), state)
    }
}
