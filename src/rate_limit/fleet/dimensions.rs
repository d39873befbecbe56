//! Several quotas that processes share, on one call: all are charged, or none.
//!
//! Each quota is a limit of its own, with its own key in the store and its own lease here. The
//! store need not know that they belong together. A lease is units that it has counted already, so
//! a call that spends all of its leases or none keeps each quota's bound. Units of one quota that
//! are leased while another one is empty end unspent after a lease's life.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    ConfigError, RejectedKind,
    algorithm::{Leases, Limit, OverDimension, OverLimit, Rate},
    ambient::clock::nanos,
    rate_limit::fleet::{Fleet, FleetLimit, Granted, limit::Source},
};

/// The limits of one set of quotas, in the order of the costs.
#[derive(Debug)]
pub(in crate::rate_limit) struct FleetDimensions<const N: usize>([FleetLimit; N]);

impl<const N: usize> FleetDimensions<N> {
    pub(in crate::rate_limit) fn new(limits: [FleetLimit; N]) -> Self {
        Self(limits)
    }

    /// Sets what is done when units of any have come, once.
    pub(in crate::rate_limit) fn on_grant(&self, granted: &Weak<dyn Granted>) {
        for limit in &self.0 {
            limit.entry.on_grant(granted.clone());
        }
    }

    pub(in crate::rate_limit) fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.0.first().map(|limit| &limit.fleet)
    }

    /// Spends a lease of each quota that the call costs something of, or of none.
    #[inline]
    pub(in crate::rate_limit) fn take(
        &self,
        costs: &[u64; N],
        is_new: bool,
        now: u64,
    ) -> Result<(), OverDimension> {
        let leases = Leases(self.0.each_ref().map(|limit| &limit.entry.lease));
        if leases.spend(&costs.map(narrow), now) {
            return Ok(());
        }
        self.without_leases(costs, is_new, now)
    }

    /// Finds units for all costs, or tells the store what is missing of each.
    #[cold]
    fn without_leases(
        &self,
        costs: &[u64; N],
        is_new: bool,
        now: u64,
    ) -> Result<(), OverDimension> {
        self.check(costs, is_new, now)?;
        let mut taken: [Option<Source>; N] = [const { None }; N];
        for (dimension, (limit, cost)) in self.0.iter().zip(costs).enumerate() {
            match limit.take(narrow(*cost), now) {
                Ok(source) => taken[dimension] = Some(source),
                Err(over) => {
                    for (limit, source) in self.0.iter().zip(taken) {
                        source
                            .into_iter()
                            .for_each(|source| limit.put_back(source, now));
                    }
                    return Err(OverDimension { dimension, over });
                }
            }
        }
        Ok(())
    }

    /// Looks whether there are units for all costs. If not, tells the store what is missing of
    /// each, in one batch, and returns the quota with the longest wait.
    ///
    /// That quota alone is asked for all calls that find it empty. Of the others a call asks for
    /// its own units. Asked for all calls too, they would be leased for calls that are rejected
    /// anyway, and end unspent while other processes lack them.
    pub(in crate::rate_limit) fn check(
        &self,
        costs: &[u64; N],
        is_new: bool,
        now: u64,
    ) -> Result<(), OverDimension> {
        self.fits(costs)?;
        let (dimension, wait) = self.longest(costs, &[0; N], now);
        for (place, (limit, cost)) in self.0.iter().zip(costs).enumerate() {
            let cost = narrow(*cost);
            if !limit.has(cost.into(), now) {
                let is_awaited = place == dimension;
                let blocked = if is_new && is_awaited { cost } else { 0 };
                let needed = if is_awaited { 0 } else { cost.into() };
                limit.needs((blocked, needed), cost, now);
            }
        }
        let over = OverLimit::Until {
            wait: Duration::from_nanos(wait),
        };
        match wait {
            0 => Ok(()),
            _ => Err(OverDimension { dimension, over }),
        }
    }

    /// Checks that no cost is above its burst.
    pub(in crate::rate_limit) fn fits(&self, costs: &[u64; N]) -> Result<(), OverDimension> {
        let above = |(limit, cost): (&FleetLimit, &u64)| *cost > u64::from(limit.burst());
        match self.0.iter().zip(costs).position(above) {
            None => Ok(()),
            Some(dimension) => Err(OverDimension {
                dimension,
                over: OverLimit::CostAboveBurst,
            }),
        }
    }

    /// Returns the dimension that a call has to wait for longest, and for how many nanoseconds.
    pub(in crate::rate_limit) fn longest(
        &self,
        costs: &[u64; N],
        before: &[u64; N],
        now: u64,
    ) -> (usize, u64) {
        let mut longest = (0, 0);
        for (dimension, limit) in self.0.iter().enumerate() {
            let cost = narrow(costs[dimension]);
            let wait = nanos(limit.until(cost, before[dimension], now));
            // Of equals the first.
            if wait > longest.1 {
                longest = (dimension, wait);
            }
        }
        longest
    }

    /// The same for a call that waits. Also tells the store what it needs: of the quota that it
    /// waits for, what is before it too.
    pub(in crate::rate_limit) fn ready_in(
        &self,
        costs: &[u64; N],
        before: &[u64; N],
        now: u64,
    ) -> (usize, u64) {
        let (dimension, wait) = self.longest(costs, before, now);
        for (place, (limit, cost)) in self.0.iter().zip(costs).enumerate() {
            let before = if place == dimension { before[place] } else { 0 };
            let needed = before.saturating_add(*cost);
            if *cost > 0 && !limit.has(needed, now) {
                limit.needs((0, needed), narrow(*cost), now);
            }
        }
        (dimension, wait)
    }

    pub(in crate::rate_limit) fn give_back(&self, units: &[u64; N], now: u64) {
        for (limit, units) in self.0.iter().zip(units) {
            limit.refund(narrow(*units), now);
        }
    }

    /// Corrects what was taken to what was used, each by itself. What was taken too little is a
    /// debt of that quota, which the store is told.
    pub(in crate::rate_limit) fn settle(&self, taken: &[u64; N], used: &[u64; N], now: u64) {
        for (limit, (taken, used)) in self.0.iter().zip(taken.iter().zip(used)) {
            match used.checked_sub(*taken) {
                None => limit.refund(narrow(taken - used), now),
                Some(0) => {}
                Some(more) => limit.charge_all(more, now),
            }
        }
    }

    pub(in crate::rate_limit) fn close_until(&self, until: u64, now: u64) {
        self.0
            .iter()
            .for_each(|limit| limit.close_until(until, now));
    }

    pub(in crate::rate_limit) fn reset(&self, now: u64) {
        self.0.iter().for_each(|limit| limit.reset(now));
    }

    /// Returns whether new ones in their place would decide no differently.
    pub(in crate::rate_limit) fn is_fresh(&self, now: u64) -> bool {
        self.0.iter().all(|limit| limit.is_fresh(now))
    }

    pub(in crate::rate_limit) fn available(&self, dimension: usize, now: u64) -> u64 {
        self.0[dimension].available(now).into()
    }

    pub(in crate::rate_limit) fn quota(&self, dimension: usize) -> (Rate, u64) {
        let limit = &self.0[dimension];
        (limit.rate(), limit.burst().into())
    }

    pub(in crate::rate_limit) fn update(
        &self,
        dimension: usize,
        rate: Rate,
        burst: u64,
    ) -> Result<(), ConfigError> {
        self.0[dimension].update(rate, narrow(burst))
    }

    /// The kind of a rejection by one of them that would be for the rate alone.
    pub(in crate::rate_limit) fn kind(&self, dimension: usize, kind: RejectedKind) -> RejectedKind {
        self.0[dimension].kind(kind)
    }
}

/// A cost that [fits](FleetDimensions::fits) is unchanged. All others are above each burst.
fn narrow(units: u64) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}
