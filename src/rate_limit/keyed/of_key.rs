//! The limit of one key of a table.

use std::time::Duration;

use crate::{
    ConfigError,
    algorithm::{KeyedBuckets, Limit, OverLimit, Rate},
    rate_limit::{key_hash::KeyHash, keyed::buckets::Buckets},
};

/// The limit of one key, with the interface of any other limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfKey<'a> {
    pub(super) buckets: &'a Buckets,
    pub(super) hash: KeyHash,
}

impl OfKey<'_> {
    /// Applies the operation to the key's limit, in this process's table or in the fleet.
    fn either<R>(
        &self,
        now: u64,
        own: impl FnOnce(&KeyedBuckets) -> R,
        fleet: impl FnOnce(&dyn Limit) -> R,
        crowded: impl FnOnce() -> R,
    ) -> R {
        match self.buckets {
            Buckets::Own(buckets) => own(buckets),
            Buckets::Fleet(keys) => keys
                .with(self.hash, now, |limit| fleet(limit))
                .unwrap_or_else(crowded),
        }
    }
}

impl Limit for OfKey<'_> {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.buckets.acquire(self.hash, cost, now)
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        self.either(
            now,
            |own| own.acquire_late(self.hash.index(), cost, due, now),
            |fleet| fleet.acquire_late(cost, due, now),
            || self.buckets.acquire(self.hash, cost, now),
        )
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.either(
            now,
            |own| own.wait(self.hash.index(), units, now),
            |fleet| fleet.wait(units, now),
            || Duration::ZERO,
        )
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        let units = before.saturating_add(u64::from(cost));
        self.either(
            now,
            |own| own.wait(self.hash.index(), if cost == 0 { 0 } else { units }, now),
            |fleet| fleet.wait_for(cost, before, now),
            || Duration::ZERO,
        )
    }

    fn refund(&self, cost: u32, now: u64) {
        self.either(
            now,
            |own| own.refund(self.hash.index(), cost, now),
            |fleet| fleet.refund(cost, now),
            || (),
        );
    }

    fn charge(&self, cost: u32, now: u64) {
        self.either(
            now,
            |own| own.charge(self.hash.index(), cost, now),
            |fleet| fleet.charge(cost, now),
            || (),
        );
    }

    fn close_until(&self, until: u64, now: u64) {
        self.either(
            now,
            |own| own.close_until(self.hash.index(), until, now),
            |fleet| fleet.close_until(until, now),
            || (),
        );
    }

    fn reset(&self, now: u64) {
        self.either(
            now,
            |own| own.reset(self.hash.index(), now),
            |fleet| fleet.reset(now),
            || (),
        );
    }

    fn available(&self, now: u64) -> u32 {
        self.either(
            now,
            |own| own.available(self.hash.index(), now),
            |fleet| fleet.available(now),
            || 0,
        )
    }

    fn burst(&self) -> u32 {
        self.buckets.burst()
    }

    fn rate(&self) -> Rate {
        self.buckets.rate()
    }

    /// Changes the rate and the burst of each key.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.buckets.update(rate, burst)
    }
}
