//! Leaky bucket: calls leave evenly spaced, in the order of their arrival.
//!
//! It is a shaper. A call does not ask whether it may leave but *when*: it reserves a departure
//! time and leaves then. So nothing polls, and the order of reservation is the order of departure.
//! The queue is only the time that has been reserved, hence one word. It is as long as callers
//! accept to wait.
//!
//! Why not a token bucket with a burst of 1? It has the same rate, but must be polled at the right
//! moment: each wait that ends a little late delays all later ones. Here `slack` makes up for that:
//! after a call that was late by at most `slack`, the next may leave that much earlier.
//!
//! **Guarantee.** Any span `W` holds at most `1 + (W + slack) / T` departures of cost 1. A waiter
//! of a [`Limit`] that was woken late counts as of its turn, by at most [`TIMER_TICK`]. A call of
//! cost `n` leaves at its turn, and the next leaves `n` intervals later.
//!
//! **Cost.** Two loads and a compare-and-swap. A rejection writes nothing.
//!
//! **Cancelling.** The last reservation is given back exactly. One in the middle is not. Moving the
//! end of the queue back by its length would keep the long-run rate. But a new call could then
//! leave together with one that is already waiting, and a shaper must not bunch calls. To get every
//! slot back, wait in a queue instead and acquire at the head, as the rate-limit layer does.

use std::time::Duration;

use crate::{
    algorithm::{
        Limit, OverLimit, Rate, TIMER_TICK, epoch::Epoch, token_bucket::quota::AtomicQuota,
    },
    config::ConfigError,
    sync::{AtomicU64, Ordering},
};

#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A limit on a rate without bursts: it spaces calls evenly. Starts idle. 40 bytes.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::algorithm::{LeakyBucket, Rate};
///
/// let shaper = LeakyBucket::new(Rate::per_second(10), Duration::ZERO)?;
/// let now = 0;
/// let waits = [(); 3].map(|()| shaper.reserve(1, Duration::from_secs(1), now).unwrap().wait);
/// assert_eq!(waits.map(|wait| wait.as_millis()), [0, 100, 200]);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct LeakyBucket {
    /// The rate. Its burst is always 1.
    quota: AtomicQuota,
    /// The time from the caller's start at which the next call may leave, in units of the quota's
    /// [`Scale`](super::token_bucket::quota::Scale), or 0 if never used. It publishes nothing else,
    /// so all accesses are Relaxed: the single word's order of modification is the order of
    /// departure.
    next: AtomicU64,
    /// The slack, in the same unit.
    slack: u64,
    epoch: Epoch,
}

/// A reserved time of departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the slot is taken: leave at its time, or cancel it"]
pub struct Departure {
    /// The time to wait, from the `now` of the reservation.
    pub wait: Duration,
    start: u64,
    end: u64,
}

impl LeakyBucket {
    /// Creates a shaper of one call each `1 / rate`. After a departure that was late by at most
    /// `slack`, the next makes up for it.
    ///
    /// # Errors
    /// A rate of zero units or over zero time, above 128 units a nanosecond, or below one a year. A
    /// slack above an hour.
    pub fn new(rate: Rate, slack: Duration) -> Result<Self, ConfigError> {
        let slack = crate::config::nanos_within(
            "slack",
            slack,
            Duration::ZERO..=Duration::from_secs(3600),
            "use what your timers are late by, such as 1ms",
        )?;
        let quota = AtomicQuota::new(rate, 1)?;
        Ok(Self {
            slack: quota.scale().units(slack),
            quota,
            next: AtomicU64::new(0),
            epoch: Epoch::unset(),
        })
    }

    /// Reserves the next departure, if it is at most `longest` away. A call of cost 0 leaves at
    /// once.
    ///
    /// # Errors
    /// [`OverLimit`], and nothing is reserved. After the wait that it names, the queue is no longer
    /// than `longest`. A cost that takes more than a year (13 days at over a million units a
    /// second) never fits.
    pub fn reserve(&self, cost: u32, longest: Duration, now: u64) -> Result<Departure, OverLimit> {
        self.reserve_with(self.slack, cost, longest, now)
    }

    fn reserve_with(
        &self,
        slack: u64,
        cost: u32,
        longest: Duration,
        now: u64,
    ) -> Result<Departure, OverLimit> {
        let (pace, scale) = (self.quota.pace(), self.quota.scale());
        if cost == 0 {
            // Free, and the next call leaves no later for it.
            let next = self.next.load(Ordering::Relaxed);
            let wait = Duration::ZERO;
            return Ok(Departure {
                wait,
                start: next,
                end: next,
            });
        }
        let length = u64::from(cost)
            .checked_mul(pace.interval)
            .filter(|length| *length <= scale.max_ahead());
        let length = length.ok_or(OverLimit::CostAboveBurst)?;
        let longest = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        let now = scale.moment(now);
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let ahead = scale.ahead(next, now);
            let start = if ahead > 0 {
                next
            } else {
                now.wrapping_sub(scale.behind(next, now).min(slack))
            };
            let wait = scale.nanos(ahead);
            if wait > longest || ahead > scale.max_ahead() {
                return Err(OverLimit::until(wait - longest.min(wait)));
            }
            let end = scale.arrival(start, length);
            match self
                .next
                .compare_exchange_weak(next, end, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    return Ok(Departure {
                        wait: Duration::from_nanos(wait),
                        start,
                        end,
                    });
                }
                // Another thread has reserved first and leaves first. The loser reserves behind it.
                Err(current) => next = current,
            }
        }
    }

    /// Gives a reservation back. Returns whether its slot will be used again, which is so if it was
    /// the last.
    pub fn cancel(&self, departure: Departure) -> bool {
        // If this exchange fails, another call is behind it, and the slot stays empty. That errs
        // towards a lower rate.
        self.next
            .compare_exchange(
                departure.end,
                departure.start,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Returns how long until the next departure, in units of the scale.
    fn ahead(&self, now: u64) -> u64 {
        let scale = self.quota.scale();
        scale.ahead(self.next.load(Ordering::Relaxed), scale.moment(now))
    }

    /// Moves the next departure in one step, or leaves it. A loser computes again from what the
    /// winner left.
    fn shift(&self, now: u64, new: impl Fn(u64) -> u64) {
        let scale = self.quota.scale();
        let moment = scale.moment(now);
        let _ = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let ahead = scale.ahead(next, moment);
                // A departure that is further ahead already, because the clock went back, stays.
                let shifted = new(ahead).min(scale.max_ahead().max(ahead));
                (shifted != ahead).then(|| scale.arrival(moment, shifted))
            });
    }
}

impl Limit for LeakyBucket {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.reserve(cost, Duration::ZERO, now).map(|_| ())
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        let late = now.saturating_sub(due).min(TIMER_TICK);
        let late = self.quota.scale().units(late);
        self.reserve_with(self.slack.max(late), cost, Duration::ZERO, now)
            .map(|_| ())
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        let before = units
            .saturating_sub(1)
            .saturating_mul(self.quota.pace().interval);
        let ahead = self.ahead(now).saturating_add(before);
        Duration::from_nanos(self.quota.scale().nanos(ahead))
    }

    /// Returns the wait of a call that leaves at the beginning of its time, whatever its cost.
    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        if cost == 0 {
            return Duration::ZERO;
        }
        self.wait(before.saturating_add(1), now)
    }

    fn refund(&self, cost: u32, now: u64) {
        let length = u64::from(cost).saturating_mul(self.quota.pace().interval);
        self.shift(now, |ahead| ahead.saturating_sub(length));
    }

    fn charge(&self, cost: u32, now: u64) {
        let length = u64::from(cost).saturating_mul(self.quota.pace().interval);
        self.shift(now, |ahead| ahead.saturating_add(length));
    }

    fn close_until(&self, until: u64, now: u64) {
        let closed = self.quota.scale().units(until.saturating_sub(now));
        self.shift(now, |ahead| ahead.max(closed));
    }

    fn reset(&self, now: u64) {
        self.shift(now, |_| 0);
    }

    fn available(&self, now: u64) -> u32 {
        u32::from(self.ahead(now) == 0)
    }

    fn burst(&self) -> u32 {
        1
    }

    fn largest_cost(&self) -> u32 {
        let longest = self.quota.scale().max_ahead();
        u32::try_from(longest / self.quota.pace().interval).unwrap_or(u32::MAX)
    }

    fn begin(&self, at: u64) -> u64 {
        self.epoch.begin(at)
    }

    fn rate(&self) -> Rate {
        self.quota.pace().rate()
    }

    /// Returns whether it was idle for at least its slack. Before that, a new one could make up for
    /// more.
    fn is_fresh(&self, now: u64) -> bool {
        let scale = self.quota.scale();
        let (next, now) = (self.next.load(Ordering::Relaxed), scale.moment(now));
        scale.ahead(next, now) == 0 && scale.behind(next, now) >= self.slack
    }

    /// Changes the rate. The burst of a leaky bucket is always 1.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        if burst != 1 {
            return Err(ConfigError::new(
                "burst",
                burst,
                "a leaky bucket has a burst of 1; use a token bucket for more",
            ));
        }
        self.quota.update(rate, 1)
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn two_calls_never_leave_at_once_though_one_cancels() {
        loom::model(|| {
            let shaper = Arc::new(LeakyBucket::new(Rate::per_second(1), Duration::ZERO).unwrap());
            let other = shaper.clone();
            let thread = thread::spawn(move || {
                let departure = other.reserve(1, Duration::MAX, 0).unwrap();
                other.cancel(departure)
            });
            let here = shaper.reserve(1, Duration::MAX, 0).unwrap();
            let given_back = thread.join().unwrap();
            let next = shaper.reserve(1, Duration::MAX, 0).unwrap();
            assert!(next.wait >= here.wait + Duration::from_secs(1));
            assert!(!given_back || next.wait == here.wait + Duration::from_secs(1));
        });
    }
}
