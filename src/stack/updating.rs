//! Updates of a stack that come at once.
//!
//! Each is right by itself, and together they could contradict each other. A lock around them would
//! do, but an update runs user code: a limit of the user's own, the wakers of calls that wait, a
//! subscriber of traces. Under a lock it could wait for another update, and that for the lock.
//!
//! So an update is checked under a lock, against the parts as they are and against what the updates
//! under way will make of them, and is made without. Updates that are made at once may pass each
//! other on their way through the parts. So one that finds, when it is done, that another has begun
//! meanwhile makes the changes of all of them once more. The last to be done has seen all, so that
//! every part ends with the change that was checked last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::changes::Changes;
use crate::ConfigError;

/// The updates of a stack. Its clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Updating(Arc<Mutex<UnderWay>>);

#[derive(Debug, Default)]
struct UnderWay {
    /// How many updates.
    updates: usize,
    /// How many have begun so far.
    begun: u64,
    /// What they change together.
    changes: Changes,
}

/// An update, until it is made or given up.
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

    /// Makes an update. `check` is asked under a lock; `make` is called at least once with the
    /// changes, and then with those of all updates under way, until they are as checked.
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

    /// What is to be made once more, if an update has begun since.
    fn later_than(&self, begun: u64) -> Option<(Changes, u64)> {
        let under_way = self.lock();
        (under_way.begun != begun).then_some((under_way.changes, under_way.begun))
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Update<'_> {
    /// Also if a part panics.
    fn drop(&mut self) {
        let mut under_way = self.0.lock();
        under_way.updates -= 1;
        if under_way.updates == 0 {
            // From now on the parts tell.
            under_way.changes = Changes::new();
        }
    }
}
