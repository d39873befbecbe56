//! The limits of all keys, and one of them as a limit like any other.

use std::{
    hash::RandomState,
    sync::{Mutex, TryLockError},
    time::Duration,
};

use crate::{
    ConfigError, RejectedKind,
    algorithm::{Denied, KeyedBuckets, Limit, Rate},
    rate_limit::{Key, Missing, keyed::top::Top, lines::Lines},
    time::Clock,
};

#[derive(Debug)]
pub(in crate::rate_limit) struct Table {
    pub(super) buckets: KeyedBuckets,
    /// What all keys together stay within.
    pub(super) total: Option<Box<dyn Limit>>,
    pub(super) seed: RandomState,
    pub(super) missing: Missing,
    /// Locked for rejections of watched keys, only if nobody waits, and to read.
    pub(super) top: Mutex<Top>,
    pub(in crate::rate_limit) lines: Lines,
}

/// The limit of one key. What it takes it takes of the total too, or of neither.
#[derive(Debug)]
pub(in crate::rate_limit) struct OfKey<'a> {
    table: &'a Table,
    key: u64,
}

impl Table {
    /// The hash that a request is counted under; `None` if it has no limit.
    pub(in crate::rate_limit) fn key<Req>(&self, key: &impl Key<Req>, request: &Req) -> Result<Option<u64>, RejectedKind> {
        match (key.hash(request, &self.seed), self.missing) {
            (Some(hash), _) => Ok(Some(hash)),
            (None, Missing::Allow) => Ok(None),
            (None, Missing::Reject) => Err(RejectedKind::MissingKey),
            // Any hash that all of them share, and that a key has only by chance.
            (None, Missing::Share) => Ok(Some(u64::MAX)),
        }
    }

    pub(in crate::rate_limit) fn of(&self, key: u64) -> OfKey<'_> {
        OfKey { table: self, key }
    }

    /// Counts a rejection, if the key is watched.
    pub(in crate::rate_limit) fn count<Req>(&self, hash: u64, key: &impl Key<Req>, request: &Req, clock: &Clock) {
        if !key.is_watched() {
            return;
        }
        let mut top = match self.top.try_lock() {
            Ok(top) => top,
            // By a closure that panicked before anything was changed.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A count is not worth a wait.
            Err(TryLockError::WouldBlock) => return,
        };
        top.count(hash, || key.label(request), clock.now());
    }

    /// Tells those who wait for a key that its limit has changed; if it changed the total's, those of all keys.
    pub(in crate::rate_limit) fn look_again(&self, key: u64) {
        match &self.total {
            Some(_) => self.lines.look_again(),
            None => self.lines.find(key).into_iter().for_each(|line| line.look_again()),
        }
    }
}

impl OfKey<'_> {
    /// Takes the key's units and, by `acquire`, the total's, or neither.
    #[inline]
    fn acquire_at(
        &self,
        cost: u32,
        due: u64,
        now: u64,
        acquire: impl Fn(&dyn Limit) -> Result<(), Denied>,
    ) -> Result<(), Denied> {
        let Table { buckets, total: Some(total), .. } = self.table else {
            return self.table.buckets.acquire_late(self.key, cost, due, now);
        };
        if cost > self.largest_cost() {
            return Err(Denied::CostAboveBurst);
        }
        // Not the decision, which is each limit's own; but so a denied call takes nothing, unless it races another.
        let wait = self.wait_for(cost, 0, now);
        if !wait.is_zero() {
            return Err(Denied::Until { wait });
        }
        buckets.acquire_late(self.key, cost, due, now)?;
        acquire(&**total).inspect_err(|_| buckets.refund(self.key, cost, now))
    }
}

impl Limit for OfKey<'_> {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), Denied> {
        self.acquire_at(cost, now, now, |total| total.acquire(cost, now))
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), Denied> {
        self.acquire_at(cost, due, now, |total| total.acquire_late(cost, due, now))
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        let total = self.table.total.as_ref().map(|total| total.wait(units, now));
        self.table.buckets.wait(self.key, units, now).max(total.unwrap_or_default())
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        let total = self.table.total.as_ref().map(|total| total.wait_for(cost, before, now));
        let units = before.saturating_add(u64::from(cost));
        self.table.buckets.wait(self.key, units, now).max(total.unwrap_or_default())
    }

    fn refund(&self, cost: u32, now: u64) {
        self.table.buckets.refund(self.key, cost, now);
        self.table.total.iter().for_each(|total| total.refund(cost, now));
    }

    fn charge(&self, cost: u32, now: u64) {
        self.table.buckets.charge(self.key, cost, now);
        self.table.total.iter().for_each(|total| total.charge(cost, now));
    }

    /// Closes the key's own alone: a penalty is nobody else's.
    fn close_until(&self, until: u64, now: u64) {
        self.table.buckets.close_until(self.key, until, now);
    }

    fn available(&self, now: u64) -> u32 {
        let total = self.table.total.as_ref().map(|total| total.available(now));
        self.table.buckets.available(self.key, now).min(total.unwrap_or(u32::MAX))
    }

    fn burst(&self) -> u32 {
        let total = self.table.total.as_ref().map(|total| total.burst());
        self.table.buckets.burst().min(total.unwrap_or(u32::MAX))
    }

    fn largest_cost(&self) -> u32 {
        let total = self.table.total.as_ref().map(|total| total.largest_cost());
        self.table.buckets.burst().min(total.unwrap_or(u32::MAX))
    }

    fn rate(&self) -> Rate {
        self.table.buckets.rate()
    }

    /// Changes the rate and the burst of each key.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.table.buckets.update(rate, burst)
    }
}
