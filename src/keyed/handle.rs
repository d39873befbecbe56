//! What the layer, its services and its handles share.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::{Denied, KeyedBuckets, Rate},
    keyed::Missing,
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
    pub(super) missing: Missing,
    pub(super) clock: Clock,
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
        Self::new(self.state.anchored())
    }
}

impl State {
    pub(super) fn acquire(&self, key: impl FnOnce(&RandomState) -> Option<u64>, cost: u32) -> Result<(), Rejected> {
        if !self.enabled {
            return Ok(());
        }
        let hash = match (key(&self.seed), self.missing) {
            (Some(hash), _) => hash,
            (None, Missing::Allow) => return Ok(()),
            (None, Missing::Reject) => return Err(self.rejected(RejectedKind::RateLimited, None)),
            // Any hash that all of them share, and that a key has only by chance.
            (None, Missing::Share) => u64::MAX,
        };
        self.buckets.acquire(hash, cost, self.clock.now()).map_err(|denied| match denied {
            Denied::Until { wait } => self.rejected(RejectedKind::RateLimited, Some(wait)),
            Denied::CostAboveBurst => self.rejected(RejectedKind::CostTooHigh, None),
        })
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
