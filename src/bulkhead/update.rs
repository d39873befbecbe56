//! Changes of a bulkhead's settings.

use std::{
    fmt,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use crate::{
    Changed, ConfigError,
    bulkhead::{
        BulkheadConfig,
        limits::Shares,
        settings::{changed_reclaim, checked, duration},
        state::State,
    },
    config::Edition,
    observe::trace,
};

/// A limit, formatted for a report of changes.
#[derive(PartialEq)]
struct CallCount(usize);

/// The nanoseconds that a permit may be held, formatted for a report of changes.
#[derive(PartialEq)]
struct HoldTime(u64);

impl State {
    pub(super) fn config(&self) -> BulkheadConfig {
        let held = self.permits.held();
        BulkheadConfig {
            limit: self.max(),
            reclaim_after: held.and_then(|held| duration(held.after())),
        }
    }

    /// Takes settings for this bulkhead alone.
    pub(super) fn update(&self, config: BulkheadConfig) -> Result<Changed, ConfigError> {
        let BulkheadConfig {
            limit,
            reclaim_after,
        } = config;
        let limit = checked(limit, self.permits.tally.name)?;
        let is_built = self.permits.held().is_some();
        let reclaim_after = changed_reclaim(reclaim_after, is_built, self.permits.tally.name)?;
        Ok(self.take_own(limit, reclaim_after))
    }

    /// Takes a limit for this bulkhead alone.
    pub(super) fn set_limit(&self, limit: usize) -> Result<Changed, ConfigError> {
        let limit = checked(limit, self.permits.tally.name)?;
        Ok(self.take_own(limit, None))
    }

    fn take_own(&self, limit: usize, reclaim_after: Option<u64>) -> Changed {
        let edition = self.lock_edition();
        self.has_own_limit.store(true, Ordering::Relaxed);
        let changed = self.change(edition, Some(limit), reclaim_after);
        trace::updated(
            (self.permits.tally.layer, self.permits.tally.name),
            &changed,
        );
        changed
    }

    /// Takes the settings of all keys, unless it has later ones. A limit that the builder gave this
    /// key stays.
    pub(super) fn take(&self, shares: Edition<Shares>) -> Changed {
        let mut edition = self.lock_edition();
        if !shares.overtakes(&mut edition) {
            return Changed::default();
        }
        let limit = (!self.has_fixed_limit).then_some(shares.settings.limit);
        if limit.is_some() {
            self.has_own_limit.store(false, Ordering::Relaxed);
        }
        self.change(edition, limit, shares.settings.reclaim_after)
    }

    fn change(
        &self,
        edition: MutexGuard<'_, u64>,
        limit: Option<usize>,
        reclaim_after: Option<u64>,
    ) -> Changed {
        let before = self.max();
        let limit = limit.unwrap_or(before);
        match self.learner() {
            Some(learner) => learner.set_max(limit, &self.permits.in_flight),
            None => self.permits.in_flight.set_limit(limit),
        }
        let reclaim_after = reclaim_after.map(|after| (self.permits.reclaim_after(after), after));
        drop(edition);
        // Without the lock, because it wakes waiters.
        self.permits.notify();
        let layer = self.permits.tally.layer;
        let changed =
            Changed::default().note(layer, "limit", (CallCount(before), CallCount(limit)));
        let Some((before, after)) = reclaim_after else {
            return changed;
        };
        changed.note(layer, "reclaim_after", (HoldTime(before), HoldTime(after)))
    }

    fn lock_edition(&self) -> MutexGuard<'_, u64> {
        self.edition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CallCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            usize::MAX => f.write_str("any number"),
            calls => calls.fmt(f),
        }
    }
}

impl fmt::Debug for HoldTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match duration(self.0) {
            None => f.write_str("never"),
            Some(after) => after.fmt(f),
        }
    }
}
