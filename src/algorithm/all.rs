//! Several limits on one call: all of them are charged, or none.
//!
//! "Ten a second and a thousand an hour" is two limits. To ask them in turn, and stop at the first that denies, would
//! have charged those before it for a call that never ran: under overload the hourly limit would be used up by denials.
//! Giving back is not enough: a window does not know which of its units was just taken and forgets the oldest, so that
//! with one denied call after the other its count stays right and never grows old. Hence two precautions. A call asks
//! all how long it would wait before it takes from any, so that only one that races another gives anything back; and
//! the windows are asked last, the longest after the others.
//!
//! **Guarantee.** Each limit's own. Of a denied call nothing stays charged. While two calls race for the last room, one
//! may for an instant hold room in a limit that it then gives back, and a third be denied for it. **Cost.** Admitted: that of
//! each limit, and a look at each first; denied: no write, unless it lost a race.

use std::{sync::Arc, time::Duration};

use crate::{
    algorithm::{Denied, Limit, Rate},
    config::ConfigError,
};

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
    limits: Vec<Box<dyn Limit>>,
    /// In which they are asked: those first that give back what a later one denies as though it had never been taken.
    order: Vec<usize>,
}

impl All {
    /// One limit, to which others can be added. An [`Arc`] of a limit is one too, so that it can be shared and changed.
    pub fn new(limit: impl Limit + 'static) -> Self {
        Self { limits: vec![Box::new(limit)], order: vec![0] }
    }

    /// Another limit that every call must fit.
    #[must_use]
    pub fn and(mut self, limit: impl Limit + 'static) -> Self {
        self.order.push(self.limits.len());
        self.limits.push(Box::new(limit));
        // A stable sort: of equals, the one that was given first is asked first.
        self.order.sort_by_key(|index| self.limits[*index].refund_lag());
        self
    }

    fn acquire_each(&self, cost: u32, now: u64, acquire: impl Fn(&dyn Limit) -> Result<(), Denied>) -> Result<(), Denied> {
        if cost > self.largest_cost() {
            return Err(Denied::CostAboveBurst);
        }
        // Not the decision, which is each limit's own; but so a denied call takes nothing anywhere, unless it races another.
        let wait = self.wait_for(cost, 0, now);
        if !wait.is_zero() {
            return Err(Denied::Until { wait });
        }
        for (taken, index) in self.order.iter().enumerate() {
            if let Err(denied) = acquire(&*self.limits[*index]) {
                self.order[..taken].iter().for_each(|index| self.limits[*index].refund(cost, now));
                return Err(match denied {
                    Denied::CostAboveBurst => denied,
                    // The others may make it wait for longer.
                    Denied::Until { wait } => Denied::Until { wait: wait.max(self.wait_for(cost, 0, now)) },
                });
            }
        }
        Ok(())
    }

    fn least(&self, number: impl Fn(&dyn Limit) -> u32) -> u32 {
        self.limits.iter().map(|limit| number(&**limit)).min().unwrap_or(u32::MAX)
    }
}

impl Limit for All {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), Denied> {
        self.acquire_each(cost, now, |limit| limit.acquire(cost, now))
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), Denied> {
        self.acquire_each(cost, now, |limit| limit.acquire_late(cost, due, now))
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.limits.iter().map(|limit| limit.wait(units, now)).max().unwrap_or_default()
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        self.limits.iter().map(|limit| limit.wait_for(cost, before, now)).max().unwrap_or_default()
    }

    fn refund(&self, cost: u32, now: u64) {
        self.limits.iter().for_each(|limit| limit.refund(cost, now));
    }

    fn charge(&self, cost: u32, now: u64) {
        self.limits.iter().for_each(|limit| limit.charge(cost, now));
    }

    fn close_until(&self, until: u64, now: u64) {
        self.limits.iter().for_each(|limit| limit.close_until(until, now));
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
        self.limits.iter().map(|limit| limit.refund_lag()).max().unwrap_or_default()
    }

    /// That of the first; [`part`](Limit::part) has the others.
    fn rate(&self) -> Rate {
        self.limits[0].rate()
    }

    fn is_as_new(&self, now: u64) -> bool {
        self.limits.iter().all(|limit| limit.is_as_new(now))
    }

    fn part(&self, index: usize) -> Option<&dyn Limit> {
        self.limits.get(index).map(|limit| &**limit)
    }

    /// Changes the first; keep an [`Arc`] of each of the others to change them.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.limits[0].update(rate, burst)
    }
}

impl<L: Limit + ?Sized> Limit for Arc<L> {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), Denied> {
        (**self).acquire(cost, now)
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), Denied> {
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

    fn rate(&self) -> Rate {
        (**self).rate()
    }

    /// A limit that others hold too is not forgotten with this hold on it.
    fn is_as_new(&self, now: u64) -> bool {
        Arc::strong_count(self) > 1 || (**self).is_as_new(now)
    }

    fn part(&self, index: usize) -> Option<&dyn Limit> {
        (**self).part(index)
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        (**self).update(rate, burst)
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::algorithm::{LeakyBucket, SlidingCounter, SlidingLog, SlidingRing, TokenBucket};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_call_denied_by_one_limit_costs_the_others_nothing() {
        // given
        let hour = Arc::new(TokenBucket::new(Rate::per_hour(1000), 1000).unwrap());
        let both = All::new(hour.clone()).and(TokenBucket::new(Rate::per_second(10), 10).unwrap());
        // when
        let admitted = (0..5000).filter(|_| both.acquire(1, 0).is_ok()).count();
        // then
        assert_eq!(admitted, 10);
        assert_eq!(hour.available(0), 990);
    }

    #[test]
    fn the_wait_is_the_longest_of_all() {
        let both =
            All::new(TokenBucket::new(Rate::per_second(10), 1).unwrap()).and(SlidingLog::new(Rate::per_minute(1)).unwrap());
        assert!(both.acquire(1, 0).is_ok());
        assert_eq!(both.acquire(1, 0), Err(Denied::until(60 * SECOND)));
        assert!(both.acquire(1, 60 * SECOND).is_ok());
    }

    // A denied call once took of the window and gave its oldest unit back, and so kept all of them young.
    #[test]
    fn denied_calls_do_not_keep_a_window_from_growing_old() {
        // given: two windows, the longer of which is used up first.
        let both = All::new(SlidingLog::new(Rate::per_minute(10)).unwrap())
            .and(SlidingLog::new(Rate::new(6, Duration::from_secs(10))).unwrap());
        assert!((0..5).all(|_| both.acquire(1, 0).is_ok()));
        assert!((0..5).all(|_| both.acquire(1, 50 * SECOND).is_ok()));
        // when
        assert!((500..600).all(|tenth| both.acquire(1, tenth * SECOND / 10).is_err()));
        // then
        assert_eq!(both.available(60 * SECOND), 5);
    }

    #[test]
    fn what_is_costly_fits_a_shaper_as_soon_as_one_unit_does() {
        let both = All::new(LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap())
            .and(TokenBucket::new(Rate::per_second(10), 10).unwrap());
        assert!(both.acquire(5, 0).is_ok());
        assert_eq!(both.acquire(5, 0), Err(Denied::until(SECOND / 2)));
        assert!(both.acquire(5, SECOND / 2).is_ok());
    }

    #[test]
    fn windows_are_asked_last_and_the_first_limit_stays_the_one_that_is_told_and_changed() {
        let windows = [Rate::per_hour(10), Rate::per_minute(10)].map(|rate| SlidingLog::new(rate).unwrap());
        let [hour, minute] = windows;
        let all = All::new(hour).and(minute).and(TokenBucket::new(Rate::per_second(10), 10).unwrap());
        assert_eq!(all.order, [2, 1, 0]);
        assert_eq!((all.rate(), all.refund_lag()), (Rate::new(10, Duration::from_secs(3600)), Duration::from_secs(3600)));
    }

    #[test]
    fn a_cost_above_any_burst_is_told_apart_from_a_wait() {
        let both =
            All::new(TokenBucket::new(Rate::per_second(10), 10).unwrap()).and(SlidingLog::new(Rate::per_second(3)).unwrap());
        assert_eq!((both.burst(), both.acquire(4, 0)), (3, Err(Denied::CostAboveBurst)));
        assert_eq!(both.available(0), 3);
    }

    #[test]
    fn it_is_as_new_when_every_part_is_that_nobody_else_keeps() {
        let hour = TokenBucket::new(Rate::per_hour(1000), 1000).unwrap();
        let shared = Arc::new(TokenBucket::new(Rate::per_day(1), 1).unwrap());
        let all = All::new(TokenBucket::new(Rate::per_second(10), 10).unwrap()).and(hour).and(shared.clone());
        assert!(all.acquire(1, 0).is_ok());
        // The burst of ten has filled up, and of the thousand more than ten are left: but not all.
        assert!(!all.is_as_new(SECOND) && all.is_as_new(4 * SECOND));
        drop(shared);
        assert!(!all.is_as_new(4 * SECOND));
    }

    #[test]
    fn a_charge_and_a_penalty_reach_every_part_and_so_does_a_late_turn() {
        let bucket = |rate| TokenBucket::new(Rate::per_second(rate), 1).unwrap();
        let both = || All::new(bucket(1000)).and(bucket(2000));
        let parts = |both: &All| [0, 1].map(|part| both.part(part).unwrap().wait(1, 0));
        let all = both();
        all.charge(1, 0);
        assert_eq!(parts(&all), [Duration::from_millis(1), Duration::from_micros(500)]);
        let all = both();
        all.close_until(SECOND, 0);
        assert_eq!(parts(&all), [Duration::from_secs(1); 2]);
        // Two that were due at once, and are a tick late.
        let all = both();
        assert!([(); 2].iter().all(|()| all.acquire_late(1, SECOND, SECOND + 2_000_000).is_ok()));
    }

    #[test]
    fn a_refund_of_all_that_there_is_makes_any_limit_whole() {
        let limits: [Box<dyn Limit>; 5] = [
            Box::new(TokenBucket::new(Rate::per_second(10), 10).unwrap()),
            Box::new(SlidingLog::new(Rate::per_second(10)).unwrap()),
            Box::new(SlidingRing::new(Rate::per_second(10), 10).unwrap()),
            Box::new(SlidingCounter::new(Rate::per_second(10)).unwrap()),
            Box::new(LeakyBucket::new(Rate::per_second(10), Duration::ZERO).unwrap()),
        ];
        for limit in limits {
            let (now, debt) = (SECOND * 3 / 2, limit.burst() * 3);
            limit.charge(debt, now);
            assert_eq!(limit.available(now), 0, "{limit:?}");
            limit.refund(u32::MAX, now);
            assert_eq!((limit.available(now), limit.acquire(1, now)), (limit.burst(), Ok(())), "{limit:?}");
        }
    }

    #[test]
    fn its_parts_are_told_apart() {
        let both = All::new(TokenBucket::new(Rate::per_second(10), 10).unwrap()).and(SlidingLog::new(Rate::per_hour(3)).unwrap());
        let rates: Vec<_> = (0..).map_while(|index| both.part(index)).map(Limit::rate).collect();
        assert_eq!(rates, [Rate::per_second(10), Rate::per_hour(3)]);
        assert!(both.part(0).unwrap().part(0).is_none());
    }

    proptest! {
        #[test]
        fn admits_what_every_limit_alone_would(
            steps in prop::collection::vec((0u8..6, 1u32..4, 0u64..SECOND / 5), 1..200), first in 0usize..3,
        ) {
            let limits = || -> [Arc<dyn Limit>; 3] {
                [
                    Arc::new(TokenBucket::new(Rate::per_second(10), 4).unwrap()),
                    Arc::new(SlidingLog::new(Rate::per_second(8)).unwrap()),
                    Arc::new(SlidingCounter::new(Rate::new(20, Duration::from_secs(3))).unwrap()),
                ]
            };
            let (alone, together) = (limits(), limits());
            let [one, two, three] = [0, 1, 2].map(|place| together[(first + place) % 3].clone());
            let all = All::new(one).and(two).and(three);
            let mut now = 0;
            for (step, cost, elapsed) in steps {
                now += elapsed;
                let fits = alone.iter().all(|limit| limit.available(now) >= cost);
                match step {
                    0 => { all.refund(cost, now); alone.iter().for_each(|limit| limit.refund(cost, now)); }
                    1 => { all.charge(cost, now); alone.iter().for_each(|limit| limit.charge(cost, now)); }
                    _ => {
                        prop_assert_eq!(all.acquire(cost, now).is_ok(), fits);
                        alone.iter().filter(|_| fits).for_each(|limit| limit.acquire(cost, now).unwrap());
                    }
                }
            }
        }
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
