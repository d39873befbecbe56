//! What the layer, its services and its handles share.

use std::{fmt, hash::RandomState};

use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::{Denied, KeyedBuckets, Rate},
    keyed::Missing,
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

    /// Changes rate and burst for all keys in one step. What they have used stays used.
    ///
    /// # Errors
    /// What `build` would refuse.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.state.buckets.update(rate, burst).map_err(|error| error.of("rate_limit", self.state.name))
    }
}

impl Clone for KeyedRateLimitHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

impl State {
    /// The hash that a request is counted under; `None` if it has no limit.
    pub(super) fn hash(&self, key: impl FnOnce(&RandomState) -> Option<u64>) -> Result<Option<u64>, Rejected> {
        if !self.enabled {
            return Ok(None);
        }
        match (key(&self.seed), self.missing) {
            (Some(hash), _) => Ok(Some(hash)),
            (None, Missing::Allow) => Ok(None),
            (None, Missing::Reject) => Err(self.rejected(Denied::CostAboveBurst)),
            // Any hash that all of them share, and that a key has only by chance.
            (None, Missing::Share) => Ok(Some(u64::MAX)),
        }
    }

    pub(super) fn acquire(&self, hash: u64) -> Result<(), Rejected> {
        self.buckets.acquire(hash, 1, self.clock.now()).map_err(|denied| self.rejected(denied))
    }

    /// What callers of one key are told. The loads are not one step: a racing call may count in one and not in another.
    pub(super) fn quota(&self, hash: u64) -> Quota {
        let (buckets, now) = (&self.buckets, self.clock.now());
        let (burst, available) = (buckets.burst(), buckets.available(hash, now));
        let awaited = if available == 0 { 1 } else { u64::from(burst) };
        Quota { name: self.name, rate: buckets.rate(), burst, available, reset: buckets.wait(hash, awaited, now) }
    }

    fn rejected(&self, denied: Denied) -> Rejected {
        let retry_after = match denied {
            Denied::Until { wait } => Some(wait),
            Denied::CostAboveBurst => None,
        };
        Rejected { kind: RejectedKind::RateLimited, layer: "keyed_rate_limit", name: self.name, retry_after }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("name", &self.name).field("enabled", &self.enabled).finish_non_exhaustive()
    }
}
