//! Several named quotas on one call, each with a cost of its own: all are charged, or none.
//!
//! A call of a language model takes a request, so many tokens of input and so many of output, each
//! with a quota. If each had a bucket, asked in turn, the first ones would be charged for a call
//! that the last one rejects. Under overload, rejections would use them up. So, as in
//! [`All`](super::All), a call first asks all of them how long it would have to wait, and takes
//! only then. Unlike there, every part is a token bucket, which takes a refund as though the units
//! had never been taken. So the order does not matter.
//!
//! **Guarantee.** Each quota's own: any span of time `W` admits at most `burst + W / T` of its
//! units. A rejected call leaves nothing charged. While two calls race for the last room, one may
//! hold room for an instant in a quota that it then refunds. A third call may be rejected for that.
//! **Cost.** Admitted: a check of each quota, and one compare-and-swap for each in which the call
//! costs something. Rejected: no write, unless it lost a race.
//!
//! A call may come with a [`Claim`], its tenant's [share](super::shares) of the quotas. Then a
//! quota in which the call is beyond the share has to keep its reserve.

use std::time::Duration;

use crate::algorithm::{
    OverLimit, TIMER_TICK,
    shares::{Claim, Spans},
    wide_bucket::WideBucket,
};

/// The quotas, in the order of the costs.
#[derive(Debug)]
pub(crate) struct Dimensions<const N: usize>([Quotas; N]);

/// A quota, and the upstream's own beside it, if that is followed.
#[derive(Debug)]
pub(crate) struct Quotas {
    own: WideBucket,
    followed: Option<WideBucket>,
}

/// A call that does not fit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverDimension {
    /// The dimension with the longest wait, or the first whose burst is below the cost.
    pub(crate) dimension: usize,
    pub(crate) over: OverLimit,
}

impl Quotas {
    pub(crate) fn new(own: WideBucket, follows: bool) -> Self {
        Self {
            own,
            followed: follows.then(WideBucket::open),
        }
    }

    pub(crate) fn own(&self) -> &WideBucket {
        &self.own
    }

    /// Takes over a report of the upstream on its own quota, if that is followed. See
    /// [`WideBucket::told`].
    pub(crate) fn told(&self, (limit, remaining): (u64, u64), times: (u64, u64), now: u64) {
        if let Some(followed) = &self.followed {
            followed.told(limit, remaining, times, now);
        }
    }

    fn parts(&self) -> impl Iterator<Item = &WideBucket> {
        std::iter::once(&self.own).chain(&self.followed)
    }

    /// Returns the cost for a part. A cost above an upstream's whole quota is for the upstream to
    /// reject.
    fn cost_of(&self, part: &WideBucket, cost: u64) -> u64 {
        if std::ptr::eq(part, &raw const self.own) {
            cost
        } else {
            cost.min(part.burst())
        }
    }

    fn take(&self, cost: u64, leaving: bool, due: u64, now: u64) -> Result<(), OverLimit> {
        let take = |part: &WideBucket| match leaving {
            true => part.take_leaving(self.cost_of(part, cost), due, now),
            false => part.take_late(self.cost_of(part, cost), due, now),
        };
        take(&self.own)?;
        if let Some(followed) = &self.followed {
            take(followed).inspect_err(|_| self.own.give_back(cost, now))?;
        }
        Ok(())
    }

    pub(crate) fn give_back(&self, units: u64, now: u64) {
        for part in self.parts() {
            part.give_back(self.cost_of(part, units), now);
        }
    }

    pub(crate) fn charge(&self, units: u64, now: u64) {
        self.parts().for_each(|part| part.charge(units, now));
    }

    /// Returns how many nanoseconds until a call fits, if `before` units come first.
    pub(crate) fn wait(&self, cost: u64, before: u64, now: u64) -> u64 {
        if cost == 0 {
            return 0;
        }
        let wait =
            |part: &WideBucket| part.wait(before.saturating_add(self.cost_of(part, cost)), now);
        self.parts().map(wait).max().unwrap_or(0)
    }

    /// Returns how many nanoseconds until a call fits and the reserve is whole. For a call above
    /// what is beside the reserve, that is never.
    fn wait_leaving(&self, cost: u64, before: u64, now: u64) -> u64 {
        let parts = self.parts();
        let wait = parts.map(|part| {
            let units = self.cost_of(part, cost).saturating_add(part.reserve());
            match units <= part.burst() {
                true => part.wait(before.saturating_add(units), now),
                false => u64::MAX,
            }
        });
        wait.max().unwrap_or(0)
    }

    /// Returns the size of a call against these quotas, by the slowest part. The bursts of all
    /// shares add up to half of the least reserve.
    pub(crate) fn spans(&self, cost: u64, before: u64) -> Spans {
        let longest = |units| self.parts().map(|part| part.span(units)).max().unwrap_or(0);
        let reserves = self.parts().map(|part| part.span(part.reserve()));
        Spans {
            cost: longest(cost),
            before: longest(before),
            // A bucket that counts nothing has none.
            burst: reserves.filter(|span| *span > 0).min().unwrap_or(0) / 2,
        }
    }

    pub(crate) fn available(&self, now: u64) -> u64 {
        let available = self.parts().map(|part| part.available(now));
        available.min().unwrap_or(0)
    }

    pub(crate) fn burst(&self) -> u64 {
        self.own.burst()
    }

    pub(crate) fn reset(&self, now: u64) {
        self.parts().for_each(|part| part.reset(now));
    }
}

impl<const N: usize> Dimensions<N> {
    pub(crate) fn new(quotas: [Quotas; N]) -> Self {
        Self(quotas)
    }

    pub(crate) fn quotas(&self) -> &[Quotas; N] {
        &self.0
    }

    /// Takes all costs, or none, for a caller that was to be admitted at `due`. With a claim, from
    /// the tenant's share too.
    pub(crate) fn take(
        &self,
        costs: &[u64; N],
        claim: Option<&Claim<'_, N>>,
        due: u64,
        now: u64,
    ) -> Result<(), OverDimension> {
        // This is not the decision, which is each quota's own. But a rejected call takes nothing
        // anywhere this way, unless it races another.
        self.check(costs, claim, due, now)?;
        for dimension in 0..N {
            let Err(over) = self.take_one(dimension, costs[dimension], claim, (due, now)) else {
                continue;
            };
            for (before, cost) in costs.iter().enumerate().take(dimension) {
                self.give_back_one(before, (*cost, *cost), claim, now);
            }
            return Err(match (over, self.longest(costs, &[0; N], claim, now)) {
                (OverLimit::CostAboveBurst, _) | (_, (_, 0)) => OverDimension { dimension, over },
                (_, (dimension, wait)) => until(dimension, wait),
            });
        }
        Ok(())
    }

    fn take_one(
        &self,
        dimension: usize,
        cost: u64,
        claim: Option<&Claim<'_, N>>,
        (due, now): (u64, u64),
    ) -> Result<(), OverLimit> {
        let quotas = &self.0[dimension];
        let Some(claim) = claim.filter(|_| cost > 0) else {
            return quotas.take(cost, false, due, now);
        };
        let spans = quotas.spans(cost, 0);
        let is_within = claim.take(dimension, spans, late(due, now), now);
        match quotas.take(cost, !is_within, due, now) {
            Ok(()) if !is_within => claim.charge(dimension, spans, now),
            Ok(()) => {}
            Err(over) => {
                if is_within {
                    claim.refund(dimension, spans.cost, spans.cost);
                }
                return Err(over);
            }
        }
        Ok(())
    }

    /// Gives back a part of the units that a call took.
    fn give_back_one(
        &self,
        dimension: usize,
        (taken, refund): (u64, u64),
        claim: Option<&Claim<'_, N>>,
        now: u64,
    ) {
        let quotas = &self.0[dimension];
        quotas.give_back(refund, now);
        if let Some(claim) = claim {
            let span = |units| quotas.spans(units, 0).cost;
            claim.refund(dimension, span(taken), span(refund));
        }
    }

    /// Looks whether all costs fit for a caller whose turn was at `due`.
    pub(crate) fn check(
        &self,
        costs: &[u64; N],
        claim: Option<&Claim<'_, N>>,
        due: u64,
        now: u64,
    ) -> Result<(), OverDimension> {
        self.fits(costs)?;
        match self.longest(costs, &[0; N], claim, now) {
            // A tenant without a share waits for no reserve that its call leaves.
            (dimension, u64::MAX) => Err(OverDimension {
                dimension,
                over: OverLimit::CostAboveBurst,
            }),
            (dimension, wait) if wait > late(due, now) => Err(until(dimension, wait)),
            _ => Ok(()),
        }
    }

    /// Checks that no cost is above its burst.
    pub(crate) fn fits(&self, costs: &[u64; N]) -> Result<(), OverDimension> {
        let above = |(quotas, cost): (&Quotas, &u64)| *cost > quotas.burst();
        match self.0.iter().zip(costs).position(above) {
            None => Ok(()),
            Some(dimension) => Err(OverDimension {
                dimension,
                over: OverLimit::CostAboveBurst,
            }),
        }
    }

    /// Returns the dimension that a call has to wait for longest, and for how many nanoseconds.
    pub(crate) fn longest(
        &self,
        costs: &[u64; N],
        before: &[u64; N],
        claim: Option<&Claim<'_, N>>,
        now: u64,
    ) -> (usize, u64) {
        let waits = (0..N).map(|dimension| {
            self.wait(dimension, (costs[dimension], before[dimension]), claim, now)
        });
        // The first of equals.
        let longest = |longest: (usize, u64), wait: (usize, u64)| {
            if wait.1 > longest.1 { wait } else { longest }
        };
        waits.enumerate().fold((0, 0), longest)
    }

    /// Returns how long a call waits for one quota: until it fits, and either is within its share
    /// or leaves the reserve.
    fn wait(
        &self,
        dimension: usize,
        (cost, before): (u64, u64),
        claim: Option<&Claim<'_, N>>,
        now: u64,
    ) -> u64 {
        let quotas = &self.0[dimension];
        let wait = quotas.wait(cost, before, now);
        let Some(claim) = claim.filter(|_| cost > 0) else {
            return wait;
        };
        let leaving = quotas.wait_leaving(cost, before, now);
        if leaving == 0 {
            return wait;
        }
        let within = claim.wait(dimension, quotas.spans(cost, before), now);
        wait.max(leaving.min(within))
    }

    pub(crate) fn give_back(&self, costs: &[u64; N], claim: Option<&Claim<'_, N>>, now: u64) {
        for (dimension, cost) in costs.iter().enumerate() {
            self.give_back_one(dimension, (*cost, *cost), claim, now);
        }
    }

    /// Corrects each quota from the units taken to the units used.
    pub(crate) fn settle(
        &self,
        taken: &[u64; N],
        used: &[u64; N],
        claim: Option<&Claim<'_, N>>,
        now: u64,
    ) {
        for (dimension, (taken, used)) in taken.iter().zip(used).enumerate() {
            match used.checked_sub(*taken) {
                None => self.give_back_one(dimension, (*taken, taken - used), claim, now),
                Some(more) => {
                    let quotas = &self.0[dimension];
                    quotas.charge(more, now);
                    if let Some(claim) = claim {
                        claim.charge(dimension, quotas.spans(more, 0), now);
                        claim.refund(dimension, quotas.spans(*used, 0).cost, 0);
                    }
                }
            }
        }
    }

    pub(crate) fn close_until(&self, until: u64, now: u64) {
        let own = self.0.iter().map(Quotas::own);
        own.for_each(|own| own.close_until(until, now));
    }

    /// Returns whether new quotas in their place would decide the same.
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        let is_fresh = |part: &WideBucket| part.wait(part.burst(), now) == 0;
        self.0.iter().all(|quotas| quotas.parts().all(is_fresh))
    }
}

/// Returns how late a caller is, as far as that counts.
fn late(due: u64, now: u64) -> u64 {
    now.saturating_sub(due).min(TIMER_TICK)
}

fn until(dimension: usize, wait: u64) -> OverDimension {
    OverDimension {
        dimension,
        over: OverLimit::Until {
            wait: Duration::from_nanos(wait),
        },
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests;

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::algorithm::Rate;

    #[test]
    fn a_rejected_call_keeps_nothing_of_any_dimension() {
        loom::model(|| {
            let bucket = |burst| WideBucket::new(Rate::per_second(1), burst).unwrap();
            let quotas = [2, 1].map(|burst| Quotas::new(bucket(burst), false));
            let both = Arc::new(Dimensions::new(quotas));
            let other = both.clone();
            let thread = thread::spawn(move || u64::from(other.take(&[1, 1], None, 0, 0).is_ok()));
            let here = u64::from(both.take(&[1, 1], None, 0, 0).is_ok());
            assert_eq!(here + thread.join().unwrap(), 1);
            assert_eq!(both.quotas()[0].available(0), 1);
        });
    }
}
