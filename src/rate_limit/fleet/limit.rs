//! A limit that processes share, with the interface of any other limit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    ConfigError, RejectedKind,
    algorithm::{Limit, OverLimit, Rate},
    rate_limit::{
        fleet::{Fleet, Outage, Quotas, entry::Entry},
        key_hash::KeyHash,
    },
};

/// The limit of one key of a fleet, or a fleet's only limit.
///
/// A refund returns units to a live lease, where they may be spent again while it lives. As with a
/// limit of one process, they add to the bound of the window in which they return.
#[derive(Debug)]
pub(in crate::rate_limit) struct FleetLimit {
    pub(in crate::rate_limit) fleet: Arc<Fleet>,
    pub(in crate::rate_limit) entry: Arc<Entry>,
}

impl FleetLimit {
    /// Creates the limit of a key, by the key's name in the store.
    pub(in crate::rate_limit) fn new(
        fleet: &Arc<Fleet>,
        key: Arc<str>,
        hash: KeyHash,
        quotas: Arc<Quotas>,
    ) -> Result<Self, ConfigError> {
        let now = fleet.clock.now();
        let entry = Entry::new(key, hash, quotas, fleet.outage, now)?;
        if fleet.is_down() {
            entry.quiet_until.store(fleet.due(), Ordering::Relaxed);
        }
        Ok(Self {
            fleet: fleet.clone(),
            entry: Arc::new(entry),
        })
    }

    /// Spends units of the lease, with one compare-and-swap.
    #[inline(always)]
    pub(in crate::rate_limit) fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        if self.entry.lease.spend(cost, now) {
            return Ok(());
        }
        self.without_lease(cost, cost, now)
    }

    /// Returns the kind of a rejection that would otherwise be `kind`: the store may be down.
    pub(in crate::rate_limit) fn kind(&self, kind: RejectedKind) -> RejectedKind {
        match kind {
            RejectedKind::RateLimited if self.fleet.outage == Outage::Closed && self.is_down() => {
                RejectedKind::StoreDown
            }
            kind => kind,
        }
    }

    fn is_down(&self) -> bool {
        self.fleet.is_down() || self.entry.is_down.load(Ordering::Relaxed)
    }

    /// Decides about a call that the lease has too few units for. `blocked` are the units of a call
    /// that has just arrived.
    #[cold]
    fn without_lease(&self, cost: u32, blocked: u32, now: u64) -> Result<(), OverLimit> {
        let (entry, fleet) = (&self.entry, &self.fleet);
        if cost > self.burst() {
            return Err(OverLimit::CostAboveBurst);
        }
        let closed_until = entry.closed_until.load(Ordering::Relaxed);
        if closed_until > now {
            return Err(OverLimit::until(closed_until - now));
        }
        entry.lacks(blocked, 0, cost);
        fleet.wants(entry, now);
        if self.is_down() {
            match (fleet.outage, &entry.local) {
                (Outage::Open, _) => {
                    self.owe(cost);
                    return Ok(());
                }
                (Outage::Local { .. }, Some(local)) => return local.acquire(cost, now),
                _ => {}
            }
        }
        Err(OverLimit::until(self.forecast(u64::from(cost), now)))
    }

    fn owe(&self, units: u32) {
        self.entry
            .debt
            .fetch_add(u64::from(units), Ordering::SeqCst);
    }

    /// Estimates when that many units will be available, in nanoseconds. That is after an answer.
    /// If the store has too little room, it is after their time at the rate, as if no other process
    /// asked.
    fn forecast(&self, units: u64, now: u64) -> u64 {
        let (entry, quota) = (&self.entry, self.entry.quotas.get());
        let answer = entry
            .quiet_until
            .load(Ordering::Relaxed)
            .saturating_sub(now)
            .saturating_add(self.fleet.round_trip());
        let here = u64::from(entry.lease.units(now)) + u64::from(entry.room(&quota, now));
        answer.max(quota.span(units.saturating_sub(here)))
    }
}

impl Limit for FleetLimit {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.acquire(cost, now)
    }

    fn acquire_late(&self, cost: u32, _: u64, now: u64) -> Result<(), OverLimit> {
        if self.entry.lease.spend(cost, now) {
            return Ok(());
        }
        // The call was counted when it arrived.
        self.without_lease(cost, 0, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        if units <= u64::from(self.entry.lease.units(now)) {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.forecast(units, now))
    }

    /// Returns the wait, and records the units as needed: the caller is about to wait.
    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        let units = before.saturating_add(u64::from(cost));
        if cost == 0 || units <= u64::from(self.entry.lease.units(now)) {
            return Duration::ZERO;
        }
        let closed_until = self.entry.closed_until.load(Ordering::Relaxed);
        if closed_until > now {
            return Duration::from_nanos(closed_until - now);
        }
        if self.is_down() {
            match (self.fleet.outage, &self.entry.local) {
                (Outage::Open, _) => return Duration::ZERO,
                (Outage::Local { .. }, Some(local)) => return local.wait_for(cost, before, now),
                _ => {}
            }
        }
        self.entry.lacks(0, units, cost);
        self.fleet.wants(&self.entry, now);
        Duration::from_nanos(self.forecast(units, now))
    }

    /// Reduces the debt first.
    fn refund(&self, cost: u32, now: u64) {
        let mut left = u64::from(cost);
        let owed = self
            .entry
            .debt
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |debt| {
                Some(debt.saturating_sub(left))
            });
        left = left.saturating_sub(owed.unwrap_or_default());
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        if left > 0 {
            self.entry.lease.give_back(left, now);
        }
    }

    /// Takes units of the lease first, which the store has counted. The rest becomes a debt, which
    /// the store receives.
    fn charge(&self, cost: u32, now: u64) {
        let rest = cost - self.entry.lease.drain(cost, now);
        if rest > 0 {
            self.owe(rest);
            self.fleet.wants(&self.entry, now);
        }
    }

    /// Closes the limit in this process. Its lease is lost, and it asks for nothing until then.
    fn close_until(&self, until: u64, now: u64) {
        self.entry.closed_until.fetch_max(until, Ordering::Relaxed);
        let lost = self.entry.lease.drain(u32::MAX, now);
        self.fleet.lost(lost);
    }

    /// Resets the limit in all processes: with the next ask, the store forgets what was used.
    fn reset(&self, now: u64) {
        self.entry.closed_until.store(0, Ordering::Relaxed);
        self.entry.debt.store(0, Ordering::SeqCst);
        self.entry.quiet_until.store(0, Ordering::Relaxed);
        if let Some(local) = &self.entry.local {
            local.reset(now);
        }
        self.entry.reset.store(true, Ordering::SeqCst);
        self.fleet.wants(&self.entry, now);
    }

    /// Returns the leased units, and those that the store had left at its last answer.
    fn available(&self, now: u64) -> u32 {
        if self.entry.closed_until.load(Ordering::Relaxed) > now {
            return 0;
        }
        let leased = self.entry.lease.units(now);
        if self.is_down() {
            return match (self.fleet.outage, &self.entry.local) {
                (Outage::Open, _) => self.burst(),
                (_, Some(local)) => leased.max(local.available(now)),
                _ => leased,
            };
        }
        let quota = self.entry.quotas.get();
        leased
            .saturating_add(self.entry.room(&quota, now))
            .min(quota.burst)
    }

    fn burst(&self) -> u32 {
        self.entry.quotas.get().burst
    }

    fn rate(&self) -> Rate {
        self.entry.quotas.get().rate
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.entry.is_idle(now)
    }

    /// Changes the terms that this process asks with. While another process asks with the old
    /// terms, the larger ones hold until its last lease ends.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.fleet.outage.local(rate, burst)?;
        self.entry.quotas.set(rate, burst)?;
        self.follow(rate, burst)
    }
}

impl FleetLimit {
    /// Applies a rate and burst that its quota has already to the local limit.
    pub(super) fn follow(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        let Outage::Local { share } = self.fleet.outage else {
            return Ok(());
        };
        let (rate, burst) = super::outage::part(share, rate, burst)?;
        match &self.entry.local {
            Some(local) => local.update(rate, burst),
            None => Ok(()),
        }
    }
}
