//! A limit that processes share, as one like any other.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    ConfigError, RejectedKind,
    algorithm::{Limit, OverLimit, Rate},
    rate_limit::fleet::{Fleet, Outage, Quotas, entry::Entry},
};

/// The limit of one key of a fleet, or its only one.
///
/// What is refunded goes back to a lease that lives, and may be spent again while it does. It adds
/// to the bound of the span in which it comes back, as of a local limit.
#[derive(Debug)]
pub(in crate::rate_limit) struct FleetLimit {
    pub(in crate::rate_limit) fleet: Arc<Fleet>,
    pub(in crate::rate_limit) entry: Arc<Entry>,
}

impl FleetLimit {
    /// The limit of a key by what follows the fleet's name in the store.
    pub(in crate::rate_limit) fn new(
        fleet: &Arc<Fleet>,
        key: Arc<str>,
        hash: u64,
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

    /// Spends a lease: one compare-and-swap.
    #[inline(always)]
    pub(in crate::rate_limit) fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        if self.entry.lease.spend(cost, now) {
            return Ok(());
        }
        self.without_lease(cost, cost, now)
    }

    /// The kind of a rejection that would be for the rate alone.
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

    /// The lease has too little. `blocked` are the units of a call that came just now.
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

    /// About when so many units will be there, in nanoseconds: after an answer, and if the store
    /// has not so much room, at the rate as though nobody else asked.
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
        // It has been counted when it came.
        self.without_lease(cost, 0, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        if units <= u64::from(self.entry.lease.units(now)) {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.forecast(units, now))
    }

    /// Also says what those need that wait: they are about to.
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

    /// Lowers what is owed first.
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

    /// Takes of the lease first, which was counted. The rest is a debt, which the store is told.
    fn charge(&self, cost: u32, now: u64) {
        let rest = cost - self.entry.lease.drain(cost, now);
        if rest > 0 {
            self.owe(rest);
            self.fleet.wants(&self.entry, now);
        }
    }

    /// The lease is lost, and nothing is asked for until then: in this process.
    fn close_until(&self, until: u64, now: u64) {
        self.entry.closed_until.fetch_max(until, Ordering::Relaxed);
        let lost = self.entry.lease.drain(u32::MAX, now);
        self.fleet.lost(lost);
    }

    /// In all processes: the store forgets what was used with the next ask.
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

    /// Units that were leased, and those that the store had left at its last answer.
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

    /// Changes the numbers that this process asks by. Where another still asks by the old numbers,
    /// the larger ones hold until its last lease ends.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.fleet.outage.local(rate, burst)?;
        self.entry.quotas.set(rate, burst)?;
        self.follow(rate, burst)
    }
}

impl FleetLimit {
    /// Takes over a rate and burst that its quota has already.
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
