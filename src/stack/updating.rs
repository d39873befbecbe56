//! Simultaneous updates of a stack.
//!
//! Each is valid by itself, but together they could contradict each other. A lock around them would
//! prevent that, but an update runs user code: a custom limit, the wakers of queued calls, a
//! `tracing` subscriber. Under a lock it could wait for another update, which waits for the lock.
//!
//! So an update is checked under a lock, against the current parts and the updates under way, and
//! is made without the lock. Simultaneous updates may overtake each other on their way through the
//! parts. So an update that ends and finds that another has begun meanwhile applies the changes of
//! all of them again. The last one to end has seen all of them, so every part ends with the change
//! that was checked last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::changes::Changes;
use crate::ConfigError;

/// The updates of a stack. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Updating(Arc<Mutex<UnderWay>>);

#[derive(Debug, Default)]
struct UnderWay {
    /// The number of updates under way.
    updates: usize,
    /// The number of updates begun so far.
    begun: u64,
    /// Their changes together.
    changes: Changes,
}

/// An update under way, until drop.
struct Update<'a>(&'a Updating);

impl Updating {
    /// Checks whether an update could be made now.
    pub(super) fn check(
        &self,
        changes: &Changes,
        check: impl Fn(&Changes) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        check(&self.lock().changes.then(changes))
    }

    /// Makes an update. `check` runs under a lock. `make` is called with the changes, and then with
    /// those of all updates under way until no new one has begun.
    pub(super) fn make<T>(
        &self,
        changes: &Changes,
        check: impl Fn(&Changes) -> Result<(), ConfigError>,
        make: impl Fn(&Changes) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let (update, mut begun) = self.begin(changes, check)?;
        let made = make(changes)?;
        while let Some((all, later)) = self.later_than(begun) {
            begun = later;
            make(&all)?;
        }
        drop(update);
        Ok(made)
    }

    fn begin(
        &self,
        changes: &Changes,
        check: impl Fn(&Changes) -> Result<(), ConfigError>,
    ) -> Result<(Update<'_>, u64), ConfigError> {
        let mut under_way = self.lock();
        let all = under_way.changes.then(changes);
        check(&all)?;
        under_way.changes = all;
        under_way.updates += 1;
        under_way.begun += 1;
        Ok((Update(self), under_way.begun))
    }

    /// Returns the changes to apply again, if an update has begun since.
    fn later_than(&self, begun: u64) -> Option<(Changes, u64)> {
        let under_way = self.lock();
        (under_way.begun != begun).then_some((under_way.changes, under_way.begun))
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Update<'_> {
    /// Ends the update, also after a panic.
    fn drop(&mut self) {
        let mut under_way = self.0.lock();
        under_way.updates -= 1;
        if under_way.updates == 0 {
            // From now on the parts themselves have the settings.
            under_way.changes = Changes::new();
        }
    }
}
