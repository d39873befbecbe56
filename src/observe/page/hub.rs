//! One snapshot a second, which all browsers that show a page share.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{model::model, others::Others, whose::PageRegistry};
use crate::ambient::clock::moment;

pub(super) struct Hub {
    registry: PageRegistry,
    title: Option<Arc<str>>,
    others: Others,
    /// The number of listeners to the events. Relaxed: a count that publishes nothing else.
    listeners: AtomicUsize,
    /// If true, a snapshot is being made. The Acquire of `enter` pairs with the Release of its
    /// drop, so that snapshots are made one after the other.
    is_busy: AtomicBool,
    /// If true, all events end. Relaxed: listeners check it once a second.
    has_ended: AtomicBool,
    latest: Mutex<Option<(Instant, Arc<Value>)>>,
}

impl Hub {
    pub(super) fn new(registry: PageRegistry, title: Option<Arc<str>>, others: Others) -> Self {
        Self {
            registry,
            title,
            others,
            listeners: AtomicUsize::new(0),
            is_busy: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            latest: Mutex::default(),
        }
    }

    /// Makes a snapshot for all listeners. If one is being made, returns the one before, if there
    /// is one. With `alone`, makes one without other processes, or returns `None` if one is being
    /// made.
    pub(super) fn look(&self, alone: bool) -> Option<Arc<Value>> {
        if alone {
            let _busy = Busy::enter(&self.is_busy)?;
            return Some(Arc::new(self.own()));
        }
        let Some(_busy) = Busy::enter(&self.is_busy) else {
            return self.lock().as_ref().map(|(_, model)| model.clone());
        };
        let mut model = self.own();
        self.others.add_to(&mut model);
        let model = Arc::new(model);
        // Locked only here, because a limit may be user code.
        let before = self.lock().replace((moment(), model.clone()));
        drop(before);
        Some(model)
    }

    /// Returns a snapshot that is less than 0.9 s old, shared by all listeners.
    pub(super) fn tick(&self) -> Option<Arc<Value>> {
        let fresh = |(made, _): &&(Instant, _)| moment().saturating_duration_since(*made) < FRESH;
        let latest = self.lock();
        let known = latest
            .as_ref()
            .filter(fresh)
            .map(|(_, model)| model.clone());
        drop(latest);
        known.or_else(|| self.look(false))
    }

    pub(super) fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    fn own(&self) -> Value {
        model(self.registry.registry(), self.title.as_deref())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Arc<Value>)>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener's slot, freed on drop.
pub(super) struct Listener(Arc<Hub>);

impl Listener {
    /// Takes a slot. `None` if all `max` are taken.
    pub(super) fn enter(hub: &Arc<Hub>, max: usize) -> Option<Self> {
        let more = |count| (count < max).then_some(count + 1);
        let entered = hub
            .listeners
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.ok().map(|_| Self(hub.clone()))
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let hub = &self.0;
        // After the last listener the snapshot is freed.
        if hub.listeners.fetch_sub(1, Ordering::Relaxed) == 1 {
            let latest = hub.lock().take();
            drop(latest);
        }
    }
}

/// The exclusive right to make a snapshot, until drop.
struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    fn enter(is_busy: &'a AtomicBool) -> Option<Self> {
        let before = is_busy.swap(true, Ordering::Acquire);
        (!before).then_some(Self(is_busy))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("listeners", &self.listeners())
            .finish_non_exhaustive()
    }
}

/// The age up to which a snapshot is shared. A little less than the second in which each listener
/// polls at its own moment.
const FRESH: Duration = Duration::from_millis(900);
