//! Several limits on one call: all of them are charged, or none.
//!
//! "Ten a second and a thousand an hour" is two limits. The obvious way asks them in turn and stops
//! at the first that rejects. By then the limits before it are charged for a call that never ran:
//! under overload, rejections would use up the hourly limit.
//!
//! A refund is not enough. A window does not know which of its units was just taken, and forgets
//! the oldest. With one rejected call after the other its count stays right, but its units never
//! grow old.
//!
//! Hence two precautions. A call checks its wait at all limits before it takes from any, so that
//! only a call that races another refunds anything. And the windows are acquired last, the longest
//! at the end.
//!
//! **Guarantee.** Each limit's own. A rejected call leaves nothing charged. While two calls race
//! for the last room, one may hold room for an instant in a limit that it then refunds. A third
//! call may be rejected for that. **Cost.** Admitted: the cost of each limit, and a check of each
//! before. Rejected: no write, unless it lost a race.

use std::{sync::Arc, time::Duration};

use crate::{
    algorithm::{Limit, OverLimit, Rate, epoch::Epoch},
    config::ConfigError,
};

mod part;
#[cfg(all(test, not(keep_loom)))]
mod tests;

use part::Part;

/// A limit made of several.
///
/// ```
/// use tower_keep::algorithm::{All, Limit, Rate, TokenBucket};
///
/// let second = TokenBucket::new(Rate::per_second(10), 10)?;
/// let hour = TokenBucket::new(Rate::per_hour(1000), 15)?;
/// let both = All::new(second).and(hour);
/// assert_eq!((0..100).filter(|_| both.acquire(1, 0).is_ok()).count(), 10);
/// assert_eq!((0..100).filter(|_| both.acquire(1, 1_000_000_000).is_ok()).count(), 5);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct All {
    /// Never empty.
    limits: Vec<Part>,
    /// The order in which limits are acquired: first those that take a refund as though the units
    /// had never been taken, if a later limit rejects.
    order: Vec<usize>,
    epoch: Epoch,
}

impl All {
    /// Starts with one limit, to which others can be added. An [`Arc`] of a limit is a limit too,
    /// so it can be shared and changed.
    pub fn new(limit: impl Limit + 'static) -> Self {
        Self {
            limits: vec![Part::new(limit)],
            order: vec![0],
            epoch: Epoch::unset(),
        }
    }

    /// Adds another limit that every call must fit.
    #[must_use]
    pub fn and(mut self, limit: impl Limit + 'static) -> Self {
        self.order.push(self.limits.len());
        self.limits.push(Part::new(limit));
        // A stable sort: of equals, the first given is acquired first.
        self.order
            .sort_by_key(|index| self.limits[*index].refund_lag());
        self
    }

    fn acquire_each(
        &self,
        cost: u32,
        now: u64,
        acquire: impl Fn(&dyn Limit) -> Result<(), OverLimit>,
    ) -> Result<(), OverLimit> {
        if cost == 0 {
            return Ok(());
        }
        if cost > self.largest_cost() {
            return Err(OverLimit::CostAboveBurst);
        }
        // This is not the decision, which is each limit's own. But a rejected call takes nothing
        // anywhere this way, unless it races another.
        let wait = self.wait_for(cost, 0, now);
        if !wait.is_zero() {
            return Err(OverLimit::Until { wait });
        }
        for (taken, index) in self.order.iter().enumerate() {
            if let Err(denied) = acquire(&self.limits[*index]) {
                self.order[..taken]
                    .iter()
                    .for_each(|index| self.limits[*index].refund(cost, now));
                return Err(match denied {
                    OverLimit::CostAboveBurst => denied,
                    // The other limits may need a longer wait.
                    OverLimit::Until { wait } => OverLimit::Until {
                        wait: wait.max(self.wait_for(cost, 0, now)),
                    },
                });
            }
        }
        Ok(())
    }

    fn least(&self, number: impl Fn(&dyn Limit) -> u32) -> u32 {
        self.limits
            .iter()
            .map(|limit| number(limit))
            .min()
            .unwrap_or(u32::MAX)
    }
}

impl Limit for All {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.acquire_each(cost, now, |limit| limit.acquire(cost, now))
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        self.acquire_each(cost, now, |limit| limit.acquire_late(cost, due, now))
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.limits
            .iter()
            .map(|limit| limit.wait(units, now))
            .max()
            .unwrap_or_default()
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        if cost == 0 {
            return Duration::ZERO;
        }
        self.limits
            .iter()
            .map(|limit| limit.wait_for(cost, before, now))
            .max()
            .unwrap_or_default()
    }

    fn refund(&self, cost: u32, now: u64) {
        self.limits.iter().for_each(|limit| limit.refund(cost, now));
    }

    fn charge(&self, cost: u32, now: u64) {
        self.limits.iter().for_each(|limit| limit.charge(cost, now));
    }

    fn close_until(&self, until: u64, now: u64) {
        self.limits
            .iter()
            .for_each(|limit| limit.close_until(until, now));
    }

    fn reset(&self, now: u64) {
        self.limits.iter().for_each(|limit| limit.reset(now));
    }

    fn available(&self, now: u64) -> u32 {
        self.least(|limit| limit.available(now))
    }

    fn burst(&self) -> u32 {
        self.least(|limit| limit.burst())
    }

    fn largest_cost(&self) -> u32 {
        self.least(|limit| limit.largest_cost())
    }

    fn refund_lag(&self) -> Duration {
        self.limits
            .iter()
            .map(|limit| limit.refund_lag())
            .max()
            .unwrap_or_default()
    }

    fn begin(&self, at: u64) -> u64 {
        let start = self.epoch.begin(at);
        self.limits.iter().for_each(|limit| limit.follow(start));
        start
    }

    /// Returns the rate of the first limit. [`part`](Limit::part) has the others.
    fn rate(&self) -> Rate {
        self.limits[0].rate()
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.limits.iter().all(|limit| limit.is_fresh(now))
    }

    fn part(&self, index: usize) -> Option<&dyn Limit> {
        self.limits.get(index).map(|limit| limit as &dyn Limit)
    }

    /// Changes the first limit. Keep an [`Arc`] of each other limit to change it.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.limits[0].update(rate, burst)
    }
}

impl<L: Limit + ?Sized> Limit for Arc<L> {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        (**self).acquire(cost, now)
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        (**self).acquire_late(cost, due, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        (**self).wait(units, now)
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        (**self).wait_for(cost, before, now)
    }

    fn refund(&self, cost: u32, now: u64) {
        (**self).refund(cost, now);
    }

    fn charge(&self, cost: u32, now: u64) {
        (**self).charge(cost, now);
    }

    fn close_until(&self, until: u64, now: u64) {
        (**self).close_until(until, now);
    }

    fn reset(&self, now: u64) {
        (**self).reset(now);
    }

    fn available(&self, now: u64) -> u32 {
        (**self).available(now)
    }

    fn burst(&self) -> u32 {
        (**self).burst()
    }

    fn largest_cost(&self) -> u32 {
        (**self).largest_cost()
    }

    fn refund_lag(&self) -> Duration {
        (**self).refund_lag()
    }

    fn begin(&self, at: u64) -> u64 {
        (**self).begin(at)
    }

    fn rate(&self) -> Rate {
        (**self).rate()
    }

    /// Asks the shared limit, however many clones of it are held. A clone elsewhere does not save a
    /// debt: the factory of keyed limits may hold one, and still build a new limit for the next
    /// call of the key.
    fn is_fresh(&self, now: u64) -> bool {
        (**self).is_fresh(now)
    }

    fn part(&self, index: usize) -> Option<&dyn Limit> {
        (**self).part(index)
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        (**self).update(rate, burst)
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::algorithm::TokenBucket;

    #[test]
    fn what_a_denied_call_took_is_given_back() {
        loom::model(|| {
            let bucket = |burst| TokenBucket::new(Rate::per_second(1), burst).unwrap();
            let both = Arc::new(All::new(bucket(2)).and(bucket(1)));
            let other = both.clone();
            let thread = thread::spawn(move || usize::from(other.acquire(1, 0).is_ok()));
            let here = usize::from(both.acquire(1, 0).is_ok());
            assert_eq!(here + thread.join().unwrap(), 1);
            assert_eq!(both.limits[0].available(0), 1);
        });
    }
}
