//! Settings shared by many gates: after two simultaneous changes all of them have the same.

use std::sync::{Mutex, PoisonError};

/// The settings of all keys of a layer.
///
/// A change reaches the gates one after another, and so do two simultaneous changes, each in its
/// own order. So each change has a number, and a gate that has taken one takes no earlier one. A
/// lock over all gates would do as well, but the wakers and subscribers of a change are user code.
#[derive(Debug)]
pub(crate) struct Editions<T>(Mutex<Edition<T>>);

/// Settings, and the number of the change that they come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edition<T> {
    pub(crate) number: u64,
    pub(crate) settings: T,
}

impl<T> Edition<T> {
    /// Returns whether this edition is later than `number`, which it then replaces.
    pub(crate) fn overtakes(&self, number: &mut u64) -> bool {
        let later = self.number > *number;
        *number = self.number.max(*number);
        later
    }
}

impl<T: Copy> Editions<T> {
    pub(crate) fn new(settings: T) -> Self {
        Self(Mutex::new(Edition {
            number: 0,
            settings,
        }))
    }

    pub(crate) fn latest(&self) -> Edition<T> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the settings in force.
    pub(crate) fn settings(&self) -> T {
        self.latest().settings
    }

    /// Makes the next edition from the latest one. Gates created from now on start with it.
    pub(crate) fn change<E>(
        &self,
        change: impl FnOnce(T) -> Result<T, E>,
    ) -> Result<Edition<T>, E> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = change(latest.settings)?;
        let number = latest.number + 1;
        *latest = Edition { number, settings };
        Ok(*latest)
    }
}
