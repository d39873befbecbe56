//! A limit that processes share, with the interface of any other limit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    ConfigError, RejectedKind,
    algorithm::{Limit, OverLimit, Rate, Taken},
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

/// The place that the units of a call came from.
#[derive(Debug)]
pub(super) enum Source {
    Lease(Taken),
    /// The limit of this process for itself, and its units.
    Local(u32),
    Owed(u32),
}

impl FleetLimit {
    /// Creates the limit of a key, by the key's name in the store.
    pub(in crate::rate_limit) fn new(
        fleet: &Arc<Fleet>,
        key: Arc<str>,
        hash: KeyHash,
        quotas: Arc<Quotas>,
    ) -> Result<Self, ConfigError> {
        Self::with_outage(fleet, fleet.outage, (key, hash), quotas)
    }

    /// Creates one with an outage of its own.
    pub(in crate::rate_limit) fn with_outage(
        fleet: &Arc<Fleet>,
        outage: Outage,
        (key, hash): (Arc<str>, KeyHash),
        quotas: Arc<Quotas>,
    ) -> Result<Self, ConfigError> {
        let now = fleet.clock.now();
        let entry = Entry::new(key, hash, quotas, outage, now)?;
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
            RejectedKind::RateLimited if self.entry.outage == Outage::Closed && self.is_down() => {
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
        self.lacks(cost, blocked, now)?;
        self.without_store(cost, now).map(|_| ())
    }

    /// Tells the asking task what is missing for a call.
    fn lacks(&self, cost: u32, blocked: u32, now: u64) -> Result<(), OverLimit> {
        if cost > self.burst() {
            return Err(OverLimit::CostAboveBurst);
        }
        let closed_until = self.entry.closed_until.load(Ordering::Relaxed);
        if closed_until > now {
            return Err(OverLimit::until(closed_until - now));
        }
        self.entry.lacks(cost, blocked, 0);
        self.fleet.wants(&self.entry, now);
        Ok(())
    }

    /// Takes units that the store has not granted, if it is down and that is allowed.
    fn without_store(&self, cost: u32, now: u64) -> Result<Source, OverLimit> {
        if self.is_down() {
            match (self.entry.outage, &self.entry.local) {
                (Outage::Open, _) => {
                    self.owe(cost.into());
                    return Ok(Source::Owed(cost));
                }
                (Outage::Local { .. }, Some(local)) => {
                    return local.acquire(cost, now).map(|()| Source::Local(cost));
                }
                _ => {}
            }
        }
        Err(OverLimit::until(self.forecast(u64::from(cost), now)))
    }

    /// Returns whether so many units are leased.
    pub(super) fn has(&self, units: u64, now: u64) -> bool {
        units <= u64::from(self.entry.lease.units(now))
    }

    /// Tells the asking task what is missing for one of several costs of a call: the units that
    /// calls which came just now lack, and those that waiters need.
    pub(super) fn needs(&self, (blocked, needed): (u32, u64), cost: u32, now: u64) {
        if self.entry.closed_until.load(Ordering::Relaxed) <= now {
            self.entry.lacks(cost, blocked, needed);
            self.fleet.wants(&self.entry, now);
        }
    }

    /// Takes units for one of several costs of a call, and says from where.
    pub(super) fn take(&self, cost: u32, now: u64) -> Result<Source, OverLimit> {
        match self.entry.lease.take(cost, now) {
            Some(taken) => Ok(Source::Lease(taken)),
            None => self.without_store(cost, now),
        }
    }

    /// Puts units back that were taken for a call which found too little of another quota.
    pub(super) fn put_back(&self, source: Source, now: u64) {
        match (source, &self.entry.local) {
            (Source::Lease(taken), _) => self.entry.lease.put_back(taken),
            (Source::Owed(units), _) => {
                self.forgive(units.into());
            }
            (Source::Local(units), Some(local)) => local.refund(units, now),
            (Source::Local(_), None) => {}
        }
    }

    /// Counts units that were used without having been leased.
    fn owe(&self, units: u64) {
        let order = (Ordering::SeqCst, Ordering::SeqCst);
        let more = |debt: u64| Some(debt.saturating_add(units));
        // It always has a next value.
        let _ = self.entry.debt.fetch_update(order.0, order.1, more);
    }

    /// Lowers what is owed. Returns how much of the units is left.
    fn forgive(&self, units: u64) -> u64 {
        let order = (Ordering::SeqCst, Ordering::SeqCst);
        let less = |debt: u64| Some(debt.saturating_sub(units));
        let owed = self.entry.debt.fetch_update(order.0, order.1, less);
        units.saturating_sub(owed.unwrap_or_default())
    }

    /// See [`charge`](Limit::charge), which takes 32 bits.
    pub(super) fn charge_all(&self, units: u64, now: u64) {
        let part = u32::try_from(units).unwrap_or(u32::MAX);
        let rest = units - u64::from(self.entry.lease.drain(part, now));
        if rest > 0 {
            self.owe(rest);
            self.fleet.wants(&self.entry, now);
        }
    }

    /// Returns how long until a cost fits if `before` units come first.
    pub(super) fn until(&self, cost: u32, before: u64, now: u64) -> Duration {
        let units = before.saturating_add(u64::from(cost));
        let forecast = || Duration::from_nanos(self.forecast(units, now));
        self.known_wait(cost, before, now).unwrap_or_else(forecast)
    }

    /// The same, if the store need not be asked.
    fn known_wait(&self, cost: u32, before: u64, now: u64) -> Option<Duration> {
        let units = before.saturating_add(u64::from(cost));
        if cost == 0 || units <= u64::from(self.entry.lease.units(now)) {
            return Some(Duration::ZERO);
        }
        let closed_until = self.entry.closed_until.load(Ordering::Relaxed);
        if closed_until > now {
            return Some(Duration::from_nanos(closed_until - now));
        }
        match (self.entry.outage, &self.entry.local) {
            (Outage::Open, _) if self.is_down() => Some(Duration::ZERO),
            (Outage::Local { .. }, Some(local)) if self.is_down() => {
                Some(local.wait_for(cost, before, now))
            }
            _ => None,
        }
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
        if let Some(wait) = self.known_wait(cost, before, now) {
            return wait;
        }
        let units = before.saturating_add(u64::from(cost));
        self.entry.lacks(cost, 0, units);
        self.fleet.wants(&self.entry, now);
        Duration::from_nanos(self.forecast(units, now))
    }

    /// Reduces the debt first.
    fn refund(&self, cost: u32, now: u64) {
        let left = u32::try_from(self.forgive(cost.into())).unwrap_or(u32::MAX);
        if left > 0 {
            self.entry.lease.give_back(left, now);
        }
    }

    /// Takes units of the lease first, which the store has counted. The rest becomes a debt, which
    /// the store receives.
    fn charge(&self, cost: u32, now: u64) {
        self.charge_all(cost.into(), now);
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
            return match (self.entry.outage, &self.entry.local) {
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
        self.entry.outage.local(rate, burst)?;
        self.entry.quotas.set(rate, burst)?;
        self.follow(rate, burst)
    }
}

impl FleetLimit {
    /// Applies a rate and burst that its quota has already to the local limit.
    pub(super) fn follow(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        let Outage::Local { share } = self.entry.outage else {
            return Ok(());
        };
        let (rate, burst) = super::outage::part(share, rate, burst)?;
        match &self.entry.local {
            Some(local) => local.update(rate, burst),
            None => Ok(()),
        }
    }
}
