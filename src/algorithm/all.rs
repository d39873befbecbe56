//! Several limits on one call: all of them are charged, or none.
//!
//! "Ten a second and a thousand an hour" is two limits. To ask them in turn, and stop at the first
//! that denies, would have charged those before it for a call that never ran: under overload the
//! hourly limit would be used up by denials. Giving back is not enough: a window does not know
//! which of its units was just taken and forgets the oldest, so that with one denied call after the
//! other its count stays right and never grows old. Hence two precautions. A call asks all how long
//! it would wait before it takes from any, so that only one that races another gives anything back;
//! and the windows are asked last, the longest after the others.
//!
//! **Guarantee.** Each limit's own. Of a denied call nothing stays charged. While two calls race
//! for the last room, one may for an instant hold room in a limit that it then gives back, and a
//! third be denied for it. **Cost.** Admitted: that of each limit, and a look at each first;
//! denied: no write, unless it lost a race.

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
    /// At least one.
    limits: Vec<Part>,
    /// In which they are asked: those first that give back what a later one denies as though it had
    /// never been taken.
    order: Vec<usize>,
    epoch: Epoch,
}

impl All {
    /// One limit, to which others can be added. An [`Arc`] of a limit is one too, so that it can be
    /// shared and changed.
    pub fn new(limit: impl Limit + 'static) -> Self {
        Self {
            limits: vec![Part::new(limit)],
            order: vec![0],
            epoch: Epoch::unset(),
        }
    }

    /// Another limit that every call must fit.
    #[must_use]
    pub fn and(mut self, limit: impl Limit + 'static) -> Self {
        self.order.push(self.limits.len());
        self.limits.push(Part::new(limit));
        // A stable sort: of equals, the one that was given first is asked first.
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
        // Not the decision, which is each limit's own; but so a denied call takes nothing anywhere,
        // unless it races another.
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
                    // The others may make it wait for longer.
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

    /// That of the first; [`part`](Limit::part) has the others.
    fn rate(&self) -> Rate {
        self.limits[0].rate()
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.limits.iter().all(|limit| limit.is_fresh(now))
    }

    fn part(&self, index: usize) -> Option<&dyn Limit> {
        self.limits.get(index).map(|limit| limit as &dyn Limit)
    }

    /// Changes the first; keep an [`Arc`] of each of the others to change them.
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

    /// However many hold it: its maker may hold another clone, and still make a new one for the
    /// next call of the same key, which would forget a debt.
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
