//! The limit of one key of a table.

use std::time::Duration;

use crate::{
    ConfigError,
    algorithm::{KeyedBuckets, Limit, OverLimit, Rate},
};

/// The limit of one key, as one like any other.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfKey<'a> {
    pub(super) buckets: &'a KeyedBuckets,
    pub(super) hash: u64,
}

impl Limit for OfKey<'_> {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.buckets.acquire(self.hash, cost, now)
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        self.buckets.acquire_late(self.hash, cost, due, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.buckets.wait(self.hash, units, now)
    }

    fn refund(&self, cost: u32, now: u64) {
        self.buckets.refund(self.hash, cost, now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.buckets.charge(self.hash, cost, now);
    }

    fn close_until(&self, until: u64, now: u64) {
        self.buckets.close_until(self.hash, until, now);
    }

    fn reset(&self, now: u64) {
        self.buckets.reset(self.hash, now);
    }

    fn available(&self, now: u64) -> u32 {
        self.buckets.available(self.hash, now)
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
