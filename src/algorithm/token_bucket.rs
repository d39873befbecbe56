//! Token bucket: a rate with bursts, as the generic cell rate algorithm (GCRA, ITU-T I.371) in one
//! word.
//!
//! The bucket does not store tokens but the *theoretical arrival time* (TAT): the time at which it
//! will be full again. A call of cost `n` moves the TAT `n` intervals ahead. It is admitted if the
//! TAT is then at most a whole burst ahead of `now`. Time alone refills the bucket, so there is
//! nothing to do between calls.
//!
//! Why not a token count and a last-refill time? They are two words, so they need a lock, or two
//! threads refill twice. A refill of whole tokens at every call also loses the fraction, so that a
//! limit of one a day that is polled often never refills at all.
//!
//! **Guarantee.** With interval `T`, any span of time `W` admits at most `burst + W / T` units,
//! whatever the number of threads. `T` is rounded up, so the bound holds for the configured rate.
//! The rounding costs less than 0.1 % of the rate up to 100 million a second. A waiter counts from
//! when it was due, by at most [`TIMER_TICK`](super::TIMER_TICK). With waiters the bound is
//! `burst + (W + TIMER_TICK) / T`.
//!
//! **Refunds, debts and changes.** Refunded units may be admitted again, which adds to the bound of
//! the span in which the refund arrives. A refund after the bucket has filled up again admits that
//! much more than a burst. A charge may put the TAT further ahead than a burst. Every call then
//! waits until that debt is paid off. Debts beyond a year (beyond 13 days at more than a million
//! units a second) are forgotten. A change of rate or burst does not move the TAT: a debt is kept
//! as the time that it takes.
//!
//! **Cost.** Admitted: two loads and one compare-and-swap. Rejected: two loads, no write.

use std::time::Duration;

use crate::{
    algorithm::{Limit, OverLimit, Rate, epoch::Epoch},
    config::ConfigError,
};

pub(crate) mod quota;
pub(crate) mod tat;
#[cfg(all(test, not(keep_loom)))]
mod tests;

use quota::AtomicQuota;
use tat::Tat;

/// A limit on a rate that admits saved-up calls at once, up to `burst`. Starts full. It has 128
/// bytes, in cache lines of its own: it is written on every admission, which would slow down access
/// to any data beside it.
#[derive(Debug)]
#[repr(align(128))]
pub struct TokenBucket {
    quota: AtomicQuota,
    tat: Tat,
    epoch: Epoch,
}

impl TokenBucket {
    /// Creates a full bucket of `burst` tokens that refills at `rate`.
    ///
    /// # Errors
    /// A rate of zero units or over zero time, above 128 units a nanosecond, or below one a year. A
    /// burst of 0, above 134 million, or that takes more than a year to refill.
    pub fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        Ok(Self {
            quota: AtomicQuota::new(rate, burst)?,
            tat: Tat::full(),
            epoch: Epoch::unset(),
        })
    }

    /// Takes `cost` tokens, or none.
    ///
    /// # Errors
    /// [`OverLimit`], with the time until the call fits.
    #[inline]
    pub fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.tat.acquire(self.quota.pace(), cost.into(), now)
    }

    /// Returns how many tokens a call could take now.
    #[must_use]
    pub fn available(&self, now: u64) -> u32 {
        narrow(self.tat.available(self.quota.pace(), now))
    }

    /// Returns the most tokens that can be taken at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        narrow(self.quota.pace().burst)
    }
}

impl Limit for TokenBucket {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.acquire(cost, now)
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        // With a burst of 1, the lateness of each wait would otherwise delay all later departures:
        // 2000/s on a timer of whole milliseconds would admit 1000/s.
        self.tat
            .take_late(self.quota.pace(), cost.into(), due, now)
            .map(|_| ())
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        Duration::from_nanos(self.tat.wait(self.quota.pace(), units, now))
    }

    fn refund(&self, cost: u32, now: u64) {
        self.tat.refund(self.quota.pace(), cost.into(), now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.tat.charge(self.quota.pace(), cost.into(), now);
    }

    fn close_until(&self, until: u64, now: u64) {
        self.tat.close_until(self.quota.pace(), until, now);
    }

    fn reset(&self, now: u64) {
        self.tat.reset(self.quota.scale(), now);
    }

    fn available(&self, now: u64) -> u32 {
        self.available(now)
    }

    fn burst(&self) -> u32 {
        self.burst()
    }

    fn begin(&self, at: u64) -> u64 {
        self.epoch.begin(at)
    }

    fn rate(&self) -> Rate {
        self.quota.pace().rate()
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.quota.update(rate, burst)
    }
}

/// Converts units to what a [`Limit`] reports. Saturates.
pub(crate) fn narrow(units: u64) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn two_threads_share_a_burst_exactly() {
        loom::model(|| {
            let bucket = Arc::new(TokenBucket::new(Rate::per_second(1), 3).unwrap());
            let other = bucket.clone();
            let thread = thread::spawn(move || u32::from(other.acquire(2, 0).is_ok()) * 2);
            let here = (0..2).filter(|_| bucket.acquire(1, 0).is_ok()).count();
            let there = thread.join().unwrap();
            // Either two calls of cost 1 and none of cost 2, or one of each: never above 3, and
            // never fewer than fit.
            assert!(matches!((here, there), (2, 0) | (1, 2)), "{here} {there}");
        });
    }

    #[test]
    fn no_refund_and_no_charge_is_lost_to_an_admission() {
        loom::model(|| {
            let bucket = Arc::new(TokenBucket::new(Rate::per_second(1), 4).unwrap());
            bucket.acquire(2, 0).unwrap();
            let other = bucket.clone();
            let thread = thread::spawn(move || {
                other.refund(1, 0);
                other.charge(2, 0);
            });
            let admitted = u32::from(bucket.acquire(1, 0).is_ok());
            thread.join().unwrap();
            assert_eq!(bucket.available(0), 1 - admitted);
        });
    }
}
