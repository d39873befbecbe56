//! The limits of all keys: of this process, or shared with others.

use std::sync::Weak;

use crate::{
    ConfigError, RejectedKind,
    algorithm::{KeyedBuckets, OverLimit, Rate},
    ambient::{chance::Hashing, clock::Clock},
    rate_limit::{
        fleet::{FleetHandle, Granted, Keys},
        key_hash::{KeyHash, KeyHashing},
    },
};

#[derive(Debug)]
pub(in crate::rate_limit) enum Buckets {
    Own(KeyedBuckets),
    Fleet(Keys),
}

impl Buckets {
    /// Returns the hasher of keys. A fleet's hashes keys alike in all its processes.
    pub(super) fn hashing(&self) -> KeyHashing {
        match self {
            Self::Own(_) => KeyHashing::Own(Hashing::new()),
            Self::Fleet(keys) => keys.hashing(),
        }
    }

    #[inline(always)]
    pub(super) fn acquire(&self, hash: KeyHash, cost: u32, now: u64) -> Result<(), OverLimit> {
        match self {
            Self::Own(buckets) => buckets.acquire(hash.index(), cost, now),
            Self::Fleet(keys) => keys.acquire(hash, cost, now),
        }
    }

    pub(super) fn on_grant(&self, granted: Weak<dyn Granted>) {
        if let Self::Fleet(keys) = self {
            keys.on_grant(granted);
        }
    }

    pub(super) fn fleet(&self) -> Option<FleetHandle> {
        match self {
            Self::Own(_) => None,
            Self::Fleet(keys) => Some(FleetHandle::new(keys.fleet().clone())),
        }
    }

    pub(super) fn rate(&self) -> Rate {
        match self {
            Self::Own(buckets) => buckets.rate(),
            Self::Fleet(keys) => keys.rate(),
        }
    }

    pub(super) fn burst(&self) -> u32 {
        match self {
            Self::Own(buckets) => buckets.burst(),
            Self::Fleet(keys) => keys.burst(),
        }
    }

    pub(super) fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        match self {
            Self::Own(buckets) => buckets.update(rate, burst),
            Self::Fleet(keys) => keys.update(rate, burst),
        }
    }

    /// Counts the keys that have used some of their burst. In a fleet, those that hold or owe
    /// units.
    pub(super) fn active(&self, clock: &Clock) -> usize {
        match self {
            Self::Own(buckets) => buckets.indebted(clock.now()),
            Self::Fleet(keys) => keys.active(clock.now()),
        }
    }

    pub(super) fn evictions(&self) -> u64 {
        match self {
            Self::Own(buckets) => buckets.evictions(),
            Self::Fleet(keys) => keys.evictions(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Own(buckets) => buckets.bytes(),
            Self::Fleet(keys) => keys.bytes(),
        }
    }

    /// Returns the kind of a rejection that would otherwise be `kind`: a fleet's store may be down.
    pub(super) fn kind(&self, hash: KeyHash, kind: RejectedKind, now: u64) -> RejectedKind {
        match self {
            Self::Own(_) => kind,
            Self::Fleet(keys) => keys
                .with(hash, now, |limit| limit.kind(kind))
                .unwrap_or(kind),
        }
    }
}
