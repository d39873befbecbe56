//! Leaky bucket: calls leave evenly spaced, in the order in which they came.
//!
//! It is a shaper. A call does not ask whether it may go but *when*: it reserves a departure time
//! and goes then, so nobody polls, and the order of reservation is the order of departure. The
//! queue is nothing but the time that has been given away, hence one word; it is as long as callers
//! are ready to wait.
//!
//! Why not a token bucket with a burst of 1? It has the same rate but must be asked at the right
//! moment: each wait that ends a little late pushes all later ones back. Here `slack` makes up for
//! that: after being late by at most so much, the next may leave so much earlier.
//!
//! **Guarantee.** Any span `W` holds at most `1 + (W + slack) / T` departures of cost 1, those
//! counted as of their turn that have waited for it as a [`Limit`] and were woken late by at most
//! [`TIMER_TICK`]. A call of cost `n` leaves when its turn comes, and the next `n` intervals after
//! it. **Cost.** A load and a compare-and-swap; refused: no write.
//!
//! **Cancelling.** The last reservation is given back exactly. One in the middle is not: moving the
//! end of the queue back by its length would keep the long-run rate, but let a newcomer leave
//! together with one who is already waiting, and a shaper that bunches is none. Who needs every
//! slot back waits in a queue instead and acquires when its turn comes, as the rate-limit layer
//! does.

use std::time::Duration;

use crate::{
    algorithm::{Limit, OverLimit, Rate, TIMER_TICK, epoch::Epoch, token_bucket::quota::Quota},
    config::ConfigError,
    sync::{AtomicU64, Ordering},
};

#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A limit on a rate without bursts: it spaces calls out. Starts idle. 40 bytes.
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
    /// Its burst is always 1.
    quota: Quota,
    /// When the next call may leave since the caller's start, in units of the quota's
    /// [`Scale`](super::token_bucket::quota::Scale); 0 for never used. Nothing else is published
    /// through it, so all accesses are Relaxed: the single word's order of modification is the
    /// order of departure.
    next: AtomicU64,
    /// In the same unit.
    slack: u64,
    epoch: Epoch,
}

/// A reserved time of departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the slot is taken: leave at its time, or cancel it"]
pub struct Departure {
    /// How long to wait, from the `now` of the reservation.
    pub wait: Duration,
    start: u64,
    end: u64,
}

impl LeakyBucket {
    /// One call each `1 / rate`; after a departure that was late by at most `slack`, the next makes
    /// up for it.
    ///
    /// # Errors
    /// A rate of nothing, over nothing, above 128 a nanosecond or below one a year; a slack above
    /// an hour.
    pub fn new(rate: Rate, slack: Duration) -> Result<Self, ConfigError> {
        let slack = crate::config::nanos_within(
            "slack",
            slack,
            Duration::ZERO..=Duration::from_secs(3600),
            "use what your timers are late by, such as 1ms",
        )?;
        let quota = Quota::new(rate, 1)?;
        Ok(Self {
            slack: quota.scale().units(slack),
            quota,
            next: AtomicU64::new(0),
            epoch: Epoch::unset(),
        })
    }

    /// Reserves the next departure, if that is at most `longest` away. What costs nothing leaves at
    /// once.
    ///
    /// # Errors
    /// [`OverLimit`]: nothing was reserved, and the queue is as short as asked after that wait.
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
            // Free, and the next one leaves no later for it.
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
                // Another has reserved first and leaves first; the loser reserves behind it.
                Err(current) => next = current,
            }
        }
    }

    /// Gives a reservation back. Returns whether its slot will be used again: it will if it was the
    /// last.
    pub fn cancel(&self, departure: Departure) -> bool {
        // The loser of this exchange has somebody behind it; its slot stays empty. That errs
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

    /// How long until the next departure, in units of the scale.
    fn ahead(&self, now: u64) -> u64 {
        let scale = self.quota.scale();
        scale.ahead(self.next.load(Ordering::Relaxed), scale.moment(now))
    }

    /// Moves the next departure, in one step, unless it stays; the loser moves what the winner
    /// left.
    fn shift(&self, now: u64, new: impl Fn(u64) -> u64) {
        let scale = self.quota.scale();
        let moment = scale.moment(now);
        let _ = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let ahead = scale.ahead(next, moment);
                // What is further ahead already, because the clock went back, stays.
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

    /// A call leaves at the beginning of its time, whatever it costs.
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

    /// Idle for at least its slack: before that, a new one could make up for more.
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
    fn two_never_leave_at_once_and_a_cancelled_slot_is_used_again_or_left_empty() {
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
