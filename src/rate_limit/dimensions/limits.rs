//! The limits of one set of quotas: of this process, or shared with others.

use std::sync::{Arc, Weak};

use crate::{
    ConfigError, RejectedKind,
    algorithm::{Claim, Dimensions, OverDimension, Rate},
    rate_limit::fleet::{Fleet, FleetDimensions, Granted},
};

/// See [`Dimensions`] and [`FleetDimensions`], which have the same methods.
#[derive(Debug)]
pub(super) enum Limits<const N: usize> {
    Own(Dimensions<N>),
    Fleet(FleetDimensions<N>),
}

/// The moment at which a call was expected to fit. `None` for a call that comes just now.
pub(super) type Due = Option<u64>;

/// The share of a call's key, if keys have shares of these quotas. A fleet's quotas have none.
pub(super) type Claimed<'a, const N: usize> = Option<&'a Claim<'a, N>>;

impl<const N: usize> Limits<N> {
    pub(super) fn fleet(&self) -> Option<&Arc<Fleet>> {
        match self {
            Self::Own(_) => None,
            Self::Fleet(fleet) => fleet.fleet(),
        }
    }

    pub(super) fn on_grant(&self, granted: &Weak<dyn Granted>) {
        if let Self::Fleet(fleet) = self {
            fleet.on_grant(granted);
        }
    }

    #[inline]
    pub(super) fn take(
        &self,
        costs: &[u64; N],
        claim: Claimed<'_, N>,
        due: Due,
        now: u64,
    ) -> Result<(), OverDimension> {
        match self {
            Self::Own(own) => own.take(costs, claim, due.unwrap_or(now), now),
            Self::Fleet(fleet) => fleet.take(costs, due.is_none(), now),
        }
    }

    /// Looks whether a call would be admitted. A store is told what is missing.
    pub(super) fn check(
        &self,
        costs: &[u64; N],
        claim: Claimed<'_, N>,
        due: Due,
        now: u64,
    ) -> Result<(), OverDimension> {
        match self {
            Self::Own(own) => own.check(costs, claim, due.unwrap_or(now), now),
            Self::Fleet(fleet) => fleet.check(costs, due.is_none(), now),
        }
    }

    pub(super) fn fits(&self, costs: &[u64; N]) -> Result<(), OverDimension> {
        match self {
            Self::Own(own) => own.fits(costs),
            Self::Fleet(fleet) => fleet.fits(costs),
        }
    }

    pub(super) fn longest(
        &self,
        costs: &[u64; N],
        before: &[u64; N],
        claim: Claimed<'_, N>,
        now: u64,
    ) -> (usize, u64) {
        match self {
            Self::Own(own) => own.longest(costs, before, claim, now),
            Self::Fleet(fleet) => fleet.longest(costs, before, now),
        }
    }

    pub(super) fn ready_in(
        &self,
        costs: &[u64; N],
        before: &[u64; N],
        claim: Claimed<'_, N>,
        now: u64,
    ) -> (usize, u64) {
        match self {
            Self::Own(own) => own.longest(costs, before, claim, now),
            Self::Fleet(fleet) => fleet.ready_in(costs, before, now),
        }
    }

    pub(super) fn give_back(&self, units: &[u64; N], claim: Claimed<'_, N>, now: u64) {
        match self {
            Self::Own(own) => own.give_back(units, claim, now),
            Self::Fleet(fleet) => fleet.give_back(units, now),
        }
    }

    /// Gives back what a call took that found the total full: it has lost a race. Units of a lease
    /// are lost instead, which errs towards admitting less. Given back, they could join a lease
    /// that lives for longer than they were granted for.
    pub(super) fn undo(&self, units: &[u64; N], now: u64) {
        if let Self::Own(own) = self {
            own.give_back(units, None, now);
        }
    }

    pub(super) fn settle(
        &self,
        taken: &[u64; N],
        used: &[u64; N],
        claim: Claimed<'_, N>,
        now: u64,
    ) {
        match self {
            Self::Own(own) => own.settle(taken, used, claim, now),
            Self::Fleet(fleet) => fleet.settle(taken, used, now),
        }
    }

    pub(super) fn close_until(&self, until: u64, now: u64) {
        match self {
            Self::Own(own) => own.close_until(until, now),
            Self::Fleet(fleet) => fleet.close_until(until, now),
        }
    }

    pub(super) fn reset(&self, now: u64) {
        match self {
            Self::Own(own) => own.quotas().iter().for_each(|quotas| quotas.reset(now)),
            Self::Fleet(fleet) => fleet.reset(now),
        }
    }

    pub(super) fn is_fresh(&self, now: u64) -> bool {
        match self {
            Self::Own(own) => own.is_fresh(now),
            Self::Fleet(fleet) => fleet.is_fresh(now),
        }
    }

    /// Takes over what the upstream tells of one quota. A fleet's follow none.
    pub(super) fn told(&self, dimension: usize, units: (u64, u64), times: (u64, u64), now: u64) {
        if let Self::Own(own) = self {
            own.quotas()[dimension].told(units, times, now);
        }
    }

    pub(super) fn available(&self, dimension: usize, now: u64) -> u64 {
        match self {
            Self::Own(own) => own.quotas()[dimension].available(now),
            Self::Fleet(fleet) => fleet.available(dimension, now),
        }
    }

    /// The rate and burst of one quota.
    pub(super) fn quota(&self, dimension: usize) -> (Rate, u64) {
        match self {
            Self::Own(own) => {
                let own = own.quotas()[dimension].own();
                (own.rate(), own.burst())
            }
            Self::Fleet(fleet) => fleet.quota(dimension),
        }
    }

    /// Returns how many nanoseconds until units of one quota fit.
    pub(super) fn wait(&self, dimension: usize, units: u64, now: u64) -> u64 {
        let mut costs = [0; N];
        costs[dimension] = units;
        self.longest(&costs, &[0; N], None, now).1
    }

    pub(super) fn update(
        &self,
        dimension: usize,
        rate: Rate,
        burst: u64,
    ) -> Result<(), ConfigError> {
        match self {
            Self::Own(own) => own.quotas()[dimension].own().update(rate, burst),
            Self::Fleet(fleet) => fleet.update(dimension, rate, burst),
        }
    }

    /// The kind of a rejection by one quota that would be for the rate alone.
    pub(super) fn kind(&self, dimension: usize, kind: RejectedKind) -> RejectedKind {
        match self {
            Self::Own(_) => kind,
            Self::Fleet(fleet) => fleet.kind(dimension, kind),
        }
    }
}
