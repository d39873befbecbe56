//! All named instances.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::{
    ambient::clock::Clock,
    observe::{Advice, Health, Instance, rules, state::Observed, trace},
};

/// Knows the layers that were given a name, for as long as they live.
///
/// [`Registry::global`] learns of each of them when it is built, unless that is done
/// [with](Self::with) another. It holds them weakly: a layer of which no service, call or handle is
/// left disappears.
///
/// ```
/// use tower_keep::{bulkhead::BulkheadLayer, observe::Registry};
///
/// let own = Registry::new();
/// let layer = own.with(|| BulkheadLayer::builder(10).name("search").build())?;
/// assert_eq!(own.snapshot().len(), 1);
/// drop(layer);
/// assert!(own.snapshot().is_empty());
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Default)]
pub struct Registry {
    instances: Mutex<Instances>,
    /// Whether it knows layers without a name too.
    knows_unnamed: bool,
    #[cfg(feature = "metrics")]
    pub(super) published: Mutex<crate::observe::series::Published>,
    #[cfg(feature = "metrics")]
    pub(super) told: Mutex<crate::observe::increases::Exported>,
}

impl Registry {
    /// One of one's own, which knows of nothing yet: for a part of a process that is published
    /// apart, or for a test.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// One that knows layers without a name too, whose name is then empty.
    #[cfg(feature = "drill")]
    pub(crate) fn of_all() -> Arc<Self> {
        Arc::new(Self {
            knows_unnamed: true,
            ..Self::default()
        })
    }

    /// The registry of the process: it learns of every named layer that is not built
    /// [with](Self::with) another.
    #[must_use]
    pub fn global() -> &'static Self {
        static GLOBAL: LazyLock<Registry> = LazyLock::new(Registry::default);
        &GLOBAL
    }

    /// Builds layers that this registry knows, and not the global one. On this thread only, so do
    /// not spawn or await in there; within it, another registry may take over.
    pub fn with<R>(self: &Arc<Self>, build: impl FnOnce() -> R) -> R {
        /// Restores the registry before, also if `build` panics.
        struct Before(Option<Arc<Registry>>);

        impl Drop for Before {
            fn drop(&mut self) {
                OWN.set(self.0.take());
            }
        }

        let _before = Before(OWN.replace(Some(self.clone())));
        build()
    }

    /// Each instance as it is now, in the order in which they were built. Costs what their
    /// snapshots cost; calls are not held up.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Instance> {
        let living = self.living().into_iter();
        living.map(|(_, observed)| observed.observe()).collect()
    }

    /// Returns what is not well of the layers that it knows. Costs a few loads for each layer, and
    /// of keyed circuits for each key. Calls are not held up.
    #[must_use]
    pub fn health(&self) -> Health {
        let living = self.living().into_iter();
        living.filter_map(|(_, one)| one.unwell()).collect()
    }

    /// What is set against what the traffic asks for: the thresholds that do not fit, with a better
    /// value, the reason, and what it costs. The [guide](crate::guide::tuning) has the recipes that
    /// it follows.
    ///
    /// It looks at everything since each layer was built. Layers of one name are looked at
    /// together: a timeout knows how long the calls of its bulkhead take. Costs what
    /// [`snapshot`](Self::snapshot) costs, and holds no call up.
    ///
    /// ```
    /// use tower_keep::{bulkhead::BulkheadLayer, observe::Registry};
    ///
    /// let own = Registry::new();
    /// let layer = own.with(|| BulkheadLayer::builder(10).name("search").build())?;
    /// for advice in own.advice() {
    ///     println!("{advice}");
    /// }
    /// # drop(layer);
    /// # Ok::<_, tower_keep::ConfigError>(())
    /// ```
    #[must_use]
    pub fn advice(&self) -> Vec<Advice> {
        rules::advise(&self.aged().1)
    }

    /// Each instance's number, and each with its age in seconds.
    pub(super) fn aged(&self) -> (Vec<u64>, Vec<(Instance, f64)>) {
        let now = Clock::common().now();
        let born: HashMap<_, _> = {
            let instances = self.lock();
            let list = instances.list.iter();
            list.map(|(id, born, _)| (*id, *born)).collect()
        };
        let living = self.living().into_iter();
        living
            .map(|(id, observed)| {
                let age = now.saturating_sub(born.get(&id).copied().unwrap_or(now));
                (id, (observed.observe(), age as f64 / 1e9))
            })
            .unzip()
    }

    /// Writes the [advice](Self::advice) to the log, an event of level `WARN` for each, of target
    /// `tower_keep`. Returns it. Ask for it once in an hour, say: it is as long as the mistakes are
    /// many. Without the feature `tracing` nothing is written.
    pub fn log_advice(&self) -> Vec<Advice> {
        let advice = self.advice();
        advice.iter().for_each(trace::advice);
        advice
    }

    /// Each with its number.
    pub(super) fn living(&self) -> Vec<(u64, Arc<dyn Observed>)> {
        let mut instances = self.lock();
        instances.list.retain(|(.., one)| one.strong_count() > 0);
        let list = instances.list.iter();
        list.filter_map(|(id, _, one)| Some((*id, one.upgrade()?)))
            .filter(|(_, one)| one.is_there())
            .collect()
    }

    fn add(&self, observed: Weak<dyn Observed>) {
        let mut instances = self.lock();
        let list = &mut instances.list;
        // So that those which are gone take no more room than those which are there.
        if list.len() == list.capacity() {
            list.retain(|(.., one)| one.strong_count() > 0);
        }
        instances.last += 1;
        let id = instances.last;
        let born = Clock::common().now();
        instances.list.push((id, born, observed));
    }

    fn lock(&self) -> MutexGuard<'_, Instances> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each instance has a number that none had before, and the time at which it was built.
#[derive(Default)]
struct Instances {
    last: u64,
    list: Vec<(u64, u64, Weak<dyn Observed>)>,
}

thread_local! {
    /// Where layers are made known that are built on this thread, if not to the global registry.
    static OWN: RefCell<Option<Arc<Registry>>> = const { RefCell::new(None) };
}

/// Makes a layer known: one without a name only to a registry that asks for such.
pub(crate) fn register<T: Observed + 'static>(observed: &Arc<T>) {
    let own = OWN.with_borrow(Option::clone);
    let registry = own.as_deref().unwrap_or_else(|| Registry::global());
    if registry.knows_unnamed || observed.name().is_some() {
        let observed: Arc<dyn Observed> = observed.clone();
        registry.add(Arc::downgrade(&observed));
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let living = self.living();
        f.debug_list()
            .entries(living.iter().map(|(_, one)| (one.layer(), one.name())))
            .finish()
    }
}
