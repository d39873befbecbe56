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

use std::time::Duration;

use crate::algorithm::{OverLimit, TIMER_TICK, wide_bucket::WideBucket};

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

    fn take(&self, cost: u64, due: u64, now: u64) -> Result<(), OverLimit> {
        self.own.take_late(cost, due, now)?;
        if let Some(followed) = &self.followed {
            let of_followed = self.cost_of(followed, cost);
            followed
                .take_late(of_followed, due, now)
                .inspect_err(|_| self.own.give_back(cost, now))?;
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

    /// Takes all costs, or none, for a caller that was to be admitted at `due`.
    pub(crate) fn take(&self, costs: &[u64; N], due: u64, now: u64) -> Result<(), OverDimension> {
        // This is not the decision, which is each quota's own. But a rejected call takes nothing
        // anywhere this way, unless it races another.
        self.check(costs, due, now)?;
        for (dimension, quotas) in self.0.iter().enumerate() {
            let Err(over) = quotas.take(costs[dimension], due, now) else {
                continue;
            };
            for (quotas, cost) in self.0.iter().zip(costs).take(dimension) {
                quotas.give_back(*cost, now);
            }
            return Err(match (over, self.longest(costs, &[0; N], now)) {
                (OverLimit::CostAboveBurst, _) | (_, (_, 0)) => OverDimension { dimension, over },
                (_, (dimension, wait)) => until(dimension, wait),
            });
        }
        Ok(())
    }

    /// Looks whether all costs fit for a caller whose turn was at `due`.
    pub(crate) fn check(&self, costs: &[u64; N], due: u64, now: u64) -> Result<(), OverDimension> {
        self.fits(costs)?;
        let (dimension, wait) = self.longest(costs, &[0; N], now);
        if wait > now.saturating_sub(due).min(TIMER_TICK) {
            return Err(until(dimension, wait));
        }
        Ok(())
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
    pub(crate) fn longest(&self, costs: &[u64; N], before: &[u64; N], now: u64) -> (usize, u64) {
        let waits = self.0.iter().zip(costs.iter().zip(before));
        let waits = waits.map(|(quotas, (cost, before))| quotas.wait(*cost, *before, now));
        // The first of equals.
        let longest = |longest: (usize, u64), wait: (usize, u64)| {
            if wait.1 > longest.1 { wait } else { longest }
        };
        waits.enumerate().fold((0, 0), longest)
    }

    pub(crate) fn give_back(&self, costs: &[u64; N], now: u64) {
        for (quotas, cost) in self.0.iter().zip(costs) {
            quotas.give_back(*cost, now);
        }
    }

    /// Corrects each quota from the units taken to the units used.
    pub(crate) fn settle(&self, taken: &[u64; N], used: &[u64; N], now: u64) {
        for (quotas, (taken, used)) in self.0.iter().zip(taken.iter().zip(used)) {
            match used.checked_sub(*taken) {
                None => quotas.give_back(taken - used, now),
                Some(0) => {}
                Some(more) => quotas.charge(more, now),
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

fn until(dimension: usize, wait: u64) -> OverDimension {
    OverDimension {
        dimension,
        over: OverLimit::Until {
            wait: Duration::from_nanos(wait),
        },
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::algorithm::Rate;

    const SECOND: u64 = 1_000_000_000;

    fn dimensions<const N: usize>(quotas: [(u64, u64); N]) -> Dimensions<N> {
        Dimensions::new(quotas.map(|(rate, burst)| {
            Quotas::new(
                WideBucket::new(Rate::per_second(rate), burst).unwrap(),
                false,
            )
        }))
    }

    fn left<const N: usize>(all: &Dimensions<N>, now: u64) -> [u64; N] {
        std::array::from_fn(|at| all.quotas()[at].available(now))
    }

    #[test]
    fn all_are_charged_or_none() {
        let all = dimensions([(1, 5), (100, 1000), (10, 50)]);
        assert!(all.take(&[1, 600, 20], 0, 0).is_ok());
        let over = all.take(&[1, 600, 20], 0, 0).unwrap_err();
        assert_eq!(over.dimension, 1);
        let wait = Duration::from_secs(2);
        assert_eq!(over.over, OverLimit::Until { wait });
        assert_eq!(left(&all, 0), [4, 400, 30]);
        assert!(all.take(&[1, 600, 20], 2 * SECOND, 2 * SECOND).is_ok());
    }

    #[test]
    fn the_longest_wait_names_its_dimension() {
        let all = dimensions([(1, 5), (1, 1000), (10, 50)]);
        assert!(all.take(&[5, 0, 50], 0, 0).is_ok());
        assert_eq!(all.take(&[1, 0, 50], 0, 0).unwrap_err().dimension, 2);
        assert_eq!(all.take(&[1, 1001, 1], 0, 0).unwrap_err().dimension, 1);
    }

    #[test]
    fn what_costs_nothing_of_a_dimension_passes_its_debt() {
        let all = dimensions([(1, 5), (1, 10)]);
        all.settle(&[0, 0], &[0, 1 << 40], 0);
        assert_eq!(all.take(&[0, 1], 0, 0).unwrap_err().dimension, 1);
        assert!(all.take(&[1, 0], 0, 0).is_ok());
    }

    #[test]
    fn each_is_settled_by_itself() {
        let all = dimensions([(1, 10), (1, 10)]);
        all.take(&[5, 5], 0, 0).unwrap();
        all.settle(&[5, 5], &[2, 9], 0);
        assert_eq!(left(&all, 0), [8, 1]);
    }

    proptest! {
        /// Compares with token counts in whole units, at a rate of one unit a second for each.
        #[test]
        fn agrees_with_counters(
            calls in proptest::collection::vec((0u64..8, 0u64..12, 0u64..4), 1..80),
        ) {
            let bursts = [5u64, 9];
            let all = dimensions(bursts.map(|burst| (1, burst)));
            let (mut tokens, mut now) = (bursts, 0);
            for (first, second, seconds) in calls {
                now += seconds * SECOND;
                for (tokens, burst) in tokens.iter_mut().zip(bursts) {
                    *tokens = (*tokens + seconds).min(burst);
                }
                let costs = [first, second];
                let fits = costs.iter().zip(tokens).all(|(cost, tokens)| *cost <= tokens);
                prop_assert_eq!(all.take(&costs, now, now).is_ok(), fits);
                if fits {
                    tokens = std::array::from_fn(|at| tokens[at] - costs[at]);
                }
                prop_assert_eq!(left(&all, now), tokens);
            }
        }
    }

    #[test]
    fn threads_take_no_more_than_there_is_of_any() {
        let all = dimensions([(1, 300), (1, 1000)]);
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let got = all.take(&[1, 2], 0, 0).is_ok();
                        taken.fetch_add(u64::from(got), Ordering::Relaxed);
                    }
                });
            }
        });
        let taken = taken.into_inner();
        assert!(taken <= 300, "{taken}");
        assert_eq!(left(&all, 0), [300 - taken, 1000 - 2 * taken]);
    }
}

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
            let thread = thread::spawn(move || u64::from(other.take(&[1, 1], 0, 0).is_ok()));
            let here = u64::from(both.take(&[1, 1], 0, 0).is_ok());
            assert_eq!(here + thread.join().unwrap(), 1);
            assert_eq!(both.quotas()[0].available(0), 1);
        });
    }
}
