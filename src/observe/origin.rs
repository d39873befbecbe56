//! The origin of the settings in force: the builder, a file that is watched, or a manual update.
//!
//! Kept by layer and name, because one update may concern many gates. Only layers with a name are
//! here, of which there are few. Written by updates, never by calls.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Changed, ambient::clock::common_now};

/// The last change of the settings of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "page"),
    allow(dead_code, reason = "only the page tells")
)]
pub(crate) struct Origin {
    /// The file that the layer follows, once it has changed a setting.
    pub(crate) file: Option<&'static str>,
    /// If true, that file made the last change.
    pub(crate) by_file: bool,
    /// The time of the change, in nanoseconds of the process's clock.
    pub(crate) moment: u64,
    /// The settings that were changed.
    pub(crate) what: String,
}

/// Records an update.
pub(super) fn note((layer, name): (&'static str, Option<&'static str>), changed: &Changed) {
    let (Some(name), false) = (name, changed.is_empty()) else {
        return;
    };
    let (file, what) = (FILE.get(), changed.to_string());
    let mut origins = lock();
    let before = origins.get(&(layer, name)).and_then(|origin| origin.file);
    let origin = Origin {
        file: file.or(before),
        by_file: file.is_some(),
        moment: common_now(),
        what,
    };
    origins.insert((layer, name), origin);
}

/// Returns the last change since the layer was built.
#[cfg(feature = "page")]
pub(crate) fn of(layer: &'static str, name: &'static str) -> Option<Origin> {
    lock().get(&(layer, name)).cloned()
}

/// Runs a change of settings that a file of this name has caused.
#[cfg(feature = "watch")]
pub(crate) fn by_file<R>(name: Option<&'static str>, change: impl FnOnce() -> R) -> R {
    /// Restores the name before, also after a panic.
    struct RestoreName(Option<&'static str>);

    impl Drop for RestoreName {
        fn drop(&mut self) {
            FILE.set(self.0);
        }
    }

    let _before = RestoreName(FILE.replace(name));
    change()
}

fn lock() -> MutexGuard<'static, BTreeMap<(&'static str, &'static str), Origin>> {
    static ORIGINS: Mutex<BTreeMap<(&'static str, &'static str), Origin>> =
        Mutex::new(BTreeMap::new());
    ORIGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The file that changes settings on this thread.
    static FILE: Cell<Option<&'static str>> = const { Cell::new(None) };
}
