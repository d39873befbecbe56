//! Where the settings in force came from: the builder, a file that is followed, or somebody's hand.
//!
//! Kept by layer and name, because an update may be of many gates at once, and only of layers that
//! have a name, of which there are few. Written by updates, never by calls.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Changed, ambient::clock::since_start};

/// The last change of the settings of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "page"),
    allow(dead_code, reason = "only the page tells")
)]
pub(crate) struct Origin {
    /// The file that the layer follows, as far as that has changed it.
    pub(crate) file: Option<&'static str>,
    /// If true, the last change was that file's.
    pub(crate) by_file: bool,
    /// When, in nanoseconds of the process's clock.
    pub(crate) moment: u64,
    /// The settings that were changed.
    pub(crate) what: String,
}

/// Remembers an update.
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
        moment: since_start(),
        what,
    };
    origins.insert((layer, name), origin);
}

/// Returns the last change since the layer was built.
#[cfg(feature = "page")]
pub(crate) fn of(layer: &'static str, name: &'static str) -> Option<Origin> {
    lock().get(&(layer, name)).cloned()
}

/// Runs what changes settings because a file of this name says so.
#[cfg(feature = "watch")]
pub(crate) fn by_file<R>(name: Option<&'static str>, change: impl FnOnce() -> R) -> R {
    /// Also if it panics.
    struct Before(Option<&'static str>);

    impl Drop for Before {
        fn drop(&mut self) {
            FILE.set(self.0);
        }
    }

    let _before = Before(FILE.replace(name));
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
