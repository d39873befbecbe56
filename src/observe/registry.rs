//! All named instances.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::observe::{Instance, state::Observed};

/// Knows the layers that were given a name, for as long as they live.
///
/// [`Registry::global`] learns of each of them when it is built. It holds them weakly: a layer of
/// which no service, call or handle is left disappears.
pub struct Registry {
    instances: Mutex<Instances>,
    #[cfg(feature = "metrics")]
    pub(super) published: Mutex<crate::observe::series::Published>,
    #[cfg(feature = "metrics")]
    pub(super) told: Mutex<crate::observe::increases::Told>,
}

impl Registry {
    /// The registry of the process: it learns of every named layer.
    #[must_use]
    pub fn global() -> &'static Self {
        static GLOBAL: std::sync::LazyLock<Registry> = std::sync::LazyLock::new(|| Registry {
            instances: Mutex::default(),
            #[cfg(feature = "metrics")]
            published: Mutex::default(),
            #[cfg(feature = "metrics")]
            told: Mutex::default(),
        });
        &GLOBAL
    }

    /// Each instance as it is now, in the order in which they were built. Costs what their
    /// snapshots cost; calls are not held up.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Instance> {
        let living = self.living().into_iter();
        living.map(|(_, observed)| observed.observe()).collect()
    }

    /// Each with its number.
    pub(super) fn living(&self) -> Vec<(u64, Arc<dyn Observed>)> {
        let mut instances = self.lock();
        instances.list.retain(|(_, one)| one.strong_count() > 0);
        let list = instances.list.iter();
        list.filter_map(|(id, one)| Some((*id, one.upgrade()?)))
            .collect()
    }

    fn add(&self, observed: Weak<dyn Observed>) {
        let mut instances = self.lock();
        let list = &mut instances.list;
        // So that those which are gone take no more room than those which are there.
        if list.len() == list.capacity() {
            list.retain(|(_, one)| one.strong_count() > 0);
        }
        instances.last += 1;
        let id = instances.last;
        instances.list.push((id, observed));
    }

    fn lock(&self) -> MutexGuard<'_, Instances> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each instance has a number that none had before.
#[derive(Default)]
struct Instances {
    last: u64,
    list: Vec<(u64, Weak<dyn Observed>)>,
}

/// Makes a named layer known. Those without a name are not.
pub(crate) fn register<T: Observed + 'static>(observed: &Arc<T>) {
    if observed.name().is_some() {
        let observed: Arc<dyn Observed> = observed.clone();
        Registry::global().add(Arc::downgrade(&observed));
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
