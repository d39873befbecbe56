//! What the layer, its services and its handles share.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, PoisonError, TryLockError},
    time::Duration,
};

use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::{Denied, KeyedBuckets, Rate},
    keyed::{
        Key, Missing,
        top::{Top, TopKey},
    },
    protocol::Quota,
    striped::Striped,
    time::Clock,
};

/// Watches and changes a keyed rate limit from outside. Cheap to clone; it keeps the limit's state alive, not its services.
#[derive(Debug)]
pub struct KeyedRateLimitHandle {
    state: Striped<State>,
}

/// A keyed rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many keys have used some of their burst.
    pub active: usize,
    /// What the table takes, from `build` on: it never grows.
    pub bytes: usize,
}

pub(super) struct State {
    pub(super) buckets: KeyedBuckets,
    pub(super) seed: RandomState,
    /// Locked for rejections of watched keys, only if nobody waits, and to read.
    pub(super) top: Mutex<Top>,
    pub(super) missing: Missing,
    pub(super) clock: Clock,
    pub(super) advertise: bool,
    pub(super) enabled: bool,
    pub(super) name: Option<&'static str>,
}

impl KeyedRateLimitHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The limit as it is now. Walks the whole table.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let buckets = &self.state.buckets;
        Snapshot { active: buckets.indebted(self.state.clock.now()), bytes: buckets.bytes() }
    }

    /// The keys that are rejected most, the worst first: at most `most`, and 128. None unless the layer was built with
    /// [`top_keys`](super::KeyedRateLimitBuilder::top_keys).
    ///
    /// Counts err to the high side, by what each of them tells; a key that has more than one in 128 of all rejections is
    /// never left out. What was not counted because two threads rejected at once is missing from all alike. Each minute
    /// halves what came before it. Takes the mutex that those rejections try, and copies the labels.
    #[must_use]
    pub fn top_keys(&self, most: usize) -> Vec<TopKey> {
        let mut top = self.state.top.lock().unwrap_or_else(PoisonError::into_inner);
        top.highest(most, self.state.clock.now())
    }

    /// Changes rate and burst for all keys in one step. What they have used stays used.
    ///
    /// # Errors
    /// What `build` would refuse.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.state.buckets.update(rate, burst).map_err(|error| error.of("rate_limit", self.state.name))
    }

    /// Takes units that a key has used past the layer, or beyond what its call has cost: its later calls wait for them.
    /// The key must hash as the one that the layer's closure finds; a key that overflows burdens the limit it shares.
    pub fn charge(&self, key: &(impl Hash + ?Sized), units: u32) {
        let State { buckets, seed, clock, .. } = &*self.state;
        buckets.charge(seed.hash_one(key), units, clock.now());
    }

    /// Gives back units that a key's calls have taken and not used. To a key that has overflowed, or that has no debt,
    /// nothing is given.
    pub fn refund(&self, key: &(impl Hash + ?Sized), units: u32) {
        let State { buckets, seed, clock, .. } = &*self.state;
        buckets.refund(seed.hash_one(key), units, clock.now());
    }

    /// Admits nothing of a key for so long, as a penalty. A key that overflows closes the limit it shares.
    pub fn close_for(&self, key: &(impl Hash + ?Sized), duration: Duration) {
        let State { buckets, seed, clock, .. } = &*self.state;
        let (now, nanos) = (clock.now(), u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        buckets.close_until(seed.hash_one(key), now.saturating_add(nanos), now);
    }
}

impl Clone for KeyedRateLimitHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

impl State {
    /// The hash that a request is counted under; `None` if it has no limit.
    pub(super) fn hash<Req>(&self, key: &impl Key<Req>, request: &Req) -> Result<Option<u64>, Rejected> {
        if !self.enabled {
            return Ok(None);
        }
        match (key.hash(request, &self.seed), self.missing) {
            (Some(hash), _) => Ok(Some(hash)),
            (None, Missing::Allow) => Ok(None),
            (None, Missing::Reject) => Err(self.rejected(RejectedKind::RateLimited, None)),
            // Any hash that all of them share, and that a key has only by chance.
            (None, Missing::Share) => Ok(Some(u64::MAX)),
        }
    }

    pub(super) fn acquire<Req>(&self, hash: u64, key: &impl Key<Req>, request: &Req) -> Result<(), Rejected> {
        let (cost, now) = (key.cost(request), self.clock.now());
        let Err(denied) = self.buckets.acquire(hash, cost, now) else { return Ok(()) };
        if key.is_watched() {
            self.count(hash, || key.label(request), now);
        }
        Err(match denied {
            Denied::Until { wait } => self.rejected(RejectedKind::RateLimited, Some(wait)),
            Denied::CostAboveBurst => self.rejected(RejectedKind::CostTooHigh, None),
        })
    }

    /// What callers of one key are told. The loads are not one step: a racing call may count in one and not in another.
    pub(super) fn quota(&self, hash: u64) -> Quota {
        let (buckets, now) = (&self.buckets, self.clock.now());
        let (burst, available) = (buckets.burst(), buckets.available(hash, now));
        let awaited = if available == 0 { 1 } else { u64::from(burst) };
        Quota { name: self.name, rate: buckets.rate(), burst, available, reset: buckets.wait(hash, awaited, now) }
    }

    fn count(&self, hash: u64, label: impl FnOnce() -> String, now: u64) {
        let mut top = match self.top.try_lock() {
            Ok(top) => top,
            // By a closure that panicked before anything was changed.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A count is not worth a wait.
            Err(TryLockError::WouldBlock) => return,
        };
        top.count(hash, label, now);
    }

    fn rejected(&self, kind: RejectedKind, retry_after: Option<Duration>) -> Rejected {
        Rejected { kind, layer: "keyed_rate_limit", name: self.name, retry_after }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("name", &self.name).field("enabled", &self.enabled).finish_non_exhaustive()
    }
}
