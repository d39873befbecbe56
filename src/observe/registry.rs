//! The registry of all named instances.

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

/// A registry of the layers that were given a name, for as long as they live.
///
/// [`Registry::global`] registers each of them when it is built, unless it is built
/// [with](Self::with) another registry. It holds them weakly: a layer of which no service, call or
/// handle is left disappears.
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
    /// If true, it also registers layers without a name.
    knows_unnamed: bool,
    #[cfg(feature = "metrics")]
    pub(super) published: Mutex<crate::observe::series::Published>,
    #[cfg(feature = "metrics")]
    pub(super) told: Mutex<crate::observe::increases::Exported>,
}

impl Registry {
    /// Makes an empty registry of your own: for a part of a process that is published separately,
    /// or for a test.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes a registry that also registers layers without a name. Their name is then empty.
    #[cfg(feature = "drill")]
    pub(crate) fn of_all() -> Arc<Self> {
        Arc::new(Self {
            knows_unnamed: true,
            ..Self::default()
        })
    }

    /// Returns the registry of the process. It registers every named layer that is not built
    /// [with](Self::with) another.
    #[must_use]
    pub fn global() -> &'static Self {
        static GLOBAL: LazyLock<Registry> = LazyLock::new(Registry::default);
        &GLOBAL
    }

    /// Builds layers that this registry registers instead of the global one. This applies to this
    /// thread only, so do not spawn or await within it. Another registry may be used inside it.
    pub fn with<R>(self: &Arc<Self>, build: impl FnOnce() -> R) -> R {
        /// Restores the registry before, also if `build` panics.
        struct RestoreRegistry(Option<Arc<Registry>>);

        impl Drop for RestoreRegistry {
            fn drop(&mut self) {
                OWN.set(self.0.take());
            }
        }

        let _before = RestoreRegistry(OWN.replace(Some(self.clone())));
        build()
    }

    /// Returns each instance's numbers now, in the order in which they were built. Costs as much as
    /// their snapshots. Calls are not delayed.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Instance> {
        let living = self.living().into_iter();
        living.map(|(_, observed)| observed.observe()).collect()
    }

    /// Returns which of its layers are unhealthy. Costs a few loads for each layer, and for each
    /// key of keyed circuits. Calls are not delayed.
    #[must_use]
    pub fn health(&self) -> Health {
        let living = self.living().into_iter();
        living.filter_map(|(_, one)| one.unwell()).collect()
    }

    /// Compares the settings with the traffic. Returns the thresholds that do not fit, each with a
    /// better value, the reason, and the price. The [guide](crate::guide::tuning) has the recipes
    /// that it follows.
    ///
    /// It uses all data since each layer was built. Layers of one name are examined together: a
    /// timeout knows how long the calls of its bulkhead take. Costs as much as
    /// [`snapshot`](Self::snapshot), and delays no call.
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

    /// Returns each instance's number, and each instance with its age in seconds.
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

    /// Logs the [advice](Self::advice), one event of level `WARN` and target `tower_keep` for each
    /// piece, and returns it. Call it once an hour, say: it logs as many events as there are
    /// mistakes. Without the feature `tracing` nothing is logged.
    pub fn log_advice(&self) -> Vec<Advice> {
        let advice = self.advice();
        advice.iter().for_each(trace::advice);
        advice
    }

    /// Returns the living instances, each with its number.
    pub(super) fn living(&self) -> Vec<(u64, Arc<dyn Observed>)> {
        let mut instances = self.lock();
        let mut living = Vec::with_capacity(instances.list.len());
        instances.list.retain(|(id, _, one)| {
            let one = one.upgrade();
            let is_living = one.is_some();
            living.extend(one.map(|one| (*id, one)));
            is_living
        });
        // Unlocked first: the last reference to a layer may be dropped here.
        drop(instances);
        living.retain(|(_, one)| one.is_there());
        living
    }

    fn add(&self, observed: Weak<dyn Observed>) {
        let mut instances = self.lock();
        let list = &mut instances.list;
        // Removes dead instances, so that they take no more room than living ones.
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

/// The instances, each with a unique number and the time at which it was built.
#[derive(Default)]
struct Instances {
    last: u64,
    list: Vec<(u64, u64, Weak<dyn Observed>)>,
}

thread_local! {
    /// The registry for layers that are built on this thread, if not the global one.
    static OWN: RefCell<Option<Arc<Registry>>> = const { RefCell::new(None) };
}

/// Registers a layer. One without a name only in a registry that accepts those.
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
