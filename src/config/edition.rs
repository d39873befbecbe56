//! Settings that many share: after two changes at once all of them have the same.

use std::sync::{Mutex, PoisonError};

/// The settings of all keys of a layer.
///
/// A change reaches them one after the other, and so do two changes at once, each in its own order.
/// So each has a number, and whatever has taken one takes no earlier one. A lock over all of them
/// would do as well, but what a change wakes or reports to is user code.
#[derive(Debug)]
pub(crate) struct Editions<T>(Mutex<Edition<T>>);

/// Settings, and the number of the change that they come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edition<T> {
    pub(crate) number: u64,
    pub(crate) settings: T,
}

impl<T> Edition<T> {
    /// Returns whether this edition comes after the one of that number, which it replaces then.
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

    /// The settings in force.
    pub(crate) fn settings(&self) -> T {
        self.latest().settings
    }

    /// Makes the next edition of the latest one. What is made from now on begins with it.
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
