//! How a bulkhead takes another limit.

use std::{
    fmt,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use crate::{
    Changed, ConfigError,
    bulkhead::{limits::Shares, settings::checked, state::State},
    config::Edition,
    observe::trace,
};

/// A limit in words.
#[derive(PartialEq)]
struct Calls(usize);

impl State {
    /// Takes a limit of its own.
    pub(super) fn update(&self, limit: usize) -> Result<Changed, ConfigError> {
        let limit = checked(limit, self.tally.name)?;
        let changed = self.change(self.lock_edition(), limit, true);
        trace::updated((self.tally.layer, self.tally.name), &changed);
        Ok(changed)
    }

    /// Takes the limit of all keys, unless it has a later one, or one of its own from the start.
    pub(super) fn take(&self, shares: Edition<Shares>) -> Changed {
        let mut edition = self.lock_edition();
        if self.has_fixed_limit || !shares.overtakes(&mut edition) {
            return Changed::default();
        }
        self.change(edition, shares.settings.limit, false)
    }

    fn change(&self, edition: MutexGuard<'_, u64>, limit: usize, own: bool) -> Changed {
        self.has_own_limit.store(own, Ordering::Relaxed);
        let before = self.max();
        match &self.learner {
            Some(learner) => learner.set_max(limit, &self.permits.in_flight),
            None => self.permits.in_flight.set_limit(limit),
        }
        drop(edition);
        // Without the lock, because it wakes those that wait.
        self.permits.notify();
        Changed::default().note(self.tally.layer, "limit", (Calls(before), Calls(limit)))
    }

    fn lock_edition(&self) -> MutexGuard<'_, u64> {
        self.edition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            usize::MAX => f.write_str("any number"),
            calls => calls.fmt(f),
        }
    }
}
