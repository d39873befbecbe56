//! The control surface.

use std::{
    hash::{BuildHasher, Hash},
    sync::PoisonError,
    time::Duration,
};

use crate::{
    ConfigError,
    algorithm::Rate,
    rate_limit::{Snapshot, TopKey, keyed::Table, limits::Limits, state::State},
    striped::Striped,
};

/// Watches and changes a keyed rate limit from outside. Cheap to clone; it keeps the limit's state
/// alive, not its services.
///
/// A key given to it must hash as the one that the layer's closure finds.
#[derive(Debug)]
pub struct KeyedRateLimitHandle {
    state: Striped<State>,
}

/// A keyed rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedSnapshot {
    /// How many keys have used some of their burst.
    pub active: usize,
    /// How many calls wait for their turn.
    pub waiting: usize,
    /// What the table takes, from `build` on: it never grows.
    pub bytes: usize,
}

impl KeyedRateLimitHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The limits as they are now. Walks the whole table.
    #[must_use]
    pub fn snapshot(&self) -> KeyedSnapshot {
        let Table { buckets, lines, .. } = self.table();
        KeyedSnapshot {
            active: buckets.indebted(self.state.clock.now()),
            waiting: lines.waiting(),
            bytes: buckets.bytes(),
        }
    }

    /// The limit of one key. Of a key that overflows, that which it shares.
    #[must_use]
    pub fn snapshot_of(&self, key: &(impl Hash + ?Sized)) -> Snapshot {
        self.state.snapshot(self.hash(key))
    }

    /// The keys that are rejected most, the worst first: at most `most`, and 128. None unless the
    /// layer was built with [`top_keys`](super::KeyedRateLimitBuilder::top_keys).
    ///
    /// Counts err to the high side, by what each of them tells; a key that has more than one in 128
    /// of all rejections is never left out. What was not counted because two threads rejected at
    /// once is missing from all alike. Each minute halves what came before it. Takes the mutex that
    /// those rejections try, and copies the labels.
    #[must_use]
    pub fn top_keys(&self, most: usize) -> Vec<TopKey> {
        let mut top = self
            .table()
            .top
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        top.highest(most, self.state.clock.now())
    }

    /// Changes rate and burst for all keys in one step, and tells those who wait. What they have
    /// used stays used, as the *time* that it takes to pay off: see
    /// [`RateLimitHandle::update`](crate::rate_limit::RateLimitHandle::update).
    ///
    /// # Errors
    /// What `build` would refuse.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.state.update(rate, burst)
    }

    /// Forgets what a key has used and owes, and its penalty, not what the total has counted of it.
    /// To a key that overflows nothing is given.
    pub fn reset(&self, key: &(impl Hash + ?Sized)) {
        self.state.reset(self.hash(key));
    }

    /// Corrects what a call of a key has taken to what it turns out to have used: at the end of a
    /// body, say.
    pub fn settle(&self, key: &(impl Hash + ?Sized), taken: u32, used: u32) {
        self.state.correct(self.hash(key), taken, Some(used));
    }

    /// Takes units that a key has used past the layer, or beyond what its call has cost: its later
    /// calls wait for them. A key that overflows burdens the limit it shares.
    pub fn charge(&self, key: &(impl Hash + ?Sized), units: u32) {
        self.state.charge(self.hash(key), units);
    }

    /// Gives back units that a key's calls have taken and not used. To a key that has overflowed,
    /// or that has no debt, nothing is given.
    pub fn refund(&self, key: &(impl Hash + ?Sized), units: u32) {
        self.state.refund(self.hash(key), units);
    }

    /// Admits nothing of a key for so long, as a penalty. A key that overflows closes the limit it
    /// shares.
    pub fn close_for(&self, key: &(impl Hash + ?Sized), duration: Duration) {
        self.state.close_for(self.hash(key), duration);
    }

    fn hash(&self, key: &(impl Hash + ?Sized)) -> u64 {
        self.table().seed.hash_one(key)
    }

    pub(super) fn table(&self) -> &Table {
        match &self.state.limits {
            Limits::Keyed(table) => table,
            Limits::Bucket { .. } | Limits::Other { .. } => {
                unreachable!("a keyed layer makes a table")
            }
        }
    }
}

impl Clone for KeyedRateLimitHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}
