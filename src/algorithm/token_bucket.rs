//! Token bucket: a rate with bursts, as the generic cell rate algorithm (GCRA, ITU-T I.371) in one word.
//!
//! The bucket does not store tokens but the *theoretical arrival time* (TAT): the time at which it will be full
//! again. A call of cost `n` moves it `n` intervals on, and is admitted if that leaves it at most a whole burst
//! ahead of `now`. Refilling is the passing of time itself, so there is nothing to do between calls.
//!
//! Why not a token count and a last-refill time? They are two words, so either a lock joins them or two threads
//! refill twice; and a refill of whole tokens at every look-up forgets the fraction, so that a limit of one a day
//! that is polled often never refills at all.
//!
//! **Guarantee.** With interval `T`, any span of time `W` admits at most `burst + W / T` units, whatever the
//! number of threads. `T` is rounded up, so the bound holds for the rate as asked; the rounding costs less than 0.1 %
//! of the rate up to 100 million a second.
//!
//! **Cost.** Admitted: one load and one compare-and-swap. Denied: one load, no write.

use std::time::Duration;

use crate::{
    algorithm::Rate,
    config::ConfigError,
    sync::{AtomicU64, Ordering},
};

/// A limit on a rate that lets saved-up calls through at once, up to `burst`. Starts full. 32 bytes.
#[derive(Debug)]
pub struct TokenBucket {
    quota: Quota,
    /// The TAT in 128ths of a nanosecond since the caller's start, modulo 2^64. At or behind `now`: the bucket is full.
    /// Nothing else is published through it, so all accesses are Relaxed.
    tat: AtomicU64,
}

/// A call that does not fit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It fits after exactly `wait`, if no other call comes first.
    Until {
        /// Rounded up to a whole nanosecond, so that waiting it is enough.
        wait: Duration,
    },
    /// It costs more than the whole burst: it never fits.
    CostAboveBurst,
}

/// The rate and burst as arithmetic needs them.
#[derive(Debug, Clone, Copy)]
struct Quota {
    /// One unit's share of time, in 128ths of a nanosecond, rounded up.
    interval: u64,
    /// `burst * interval`.
    capacity: u64,
    burst: u32,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that refills at `rate`.
    ///
    /// # Errors
    /// A rate of nothing, over nothing, or above 100 million per millisecond; a burst of 0; a burst that takes more
    /// than a year to refill.
    pub fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        Ok(Self { quota: Quota::new(rate, burst)?, tat: AtomicU64::new(0) })
    }

    /// Takes `cost` tokens, or none.
    ///
    /// # Errors
    /// [`Denied`], and when to come back.
    #[inline]
    pub fn acquire(&self, cost: u32, now: u64) -> Result<(), Denied> {
        if cost > self.quota.burst {
            return Err(Denied::CostAboveBurst);
        }
        let now = now.wrapping_mul(UNITS_PER_NANO);
        let mut tat = self.tat.load(Ordering::Relaxed);
        loop {
            let ahead = self.quota.after(cost, tat, now)?;
            let new = now.wrapping_add(ahead);
            match self.tat.compare_exchange_weak(tat, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                // The loser has lost to an admission, which took tokens: it decides again on what is left, and is
                // denied after at most `burst` losses.
                Err(current) => tat = current,
            }
        }
    }

    /// How many tokens a call could take now.
    #[must_use]
    pub fn available(&self, now: u64) -> u32 {
        let ahead = ahead(self.tat.load(Ordering::Relaxed), now.wrapping_mul(UNITS_PER_NANO));
        let free = self.quota.capacity.saturating_sub(ahead) / self.quota.interval;
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// The most that can be taken at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.quota.burst
    }
}

impl Quota {
    fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        let refuse_rate = |fix| Err(ConfigError::new("rate", rate, fix));
        if rate.count() == 0 {
            return refuse_rate("allow at least 1 unit; to stop all calls, use another means than a rate");
        }
        if rate.per().is_zero() {
            return refuse_rate("give the period a length, such as Rate::per_second(100)");
        }
        if burst == 0 {
            return Err(ConfigError::new("burst", burst, "allow at least 1 call at once"));
        }
        // A u64 of seconds in nanoseconds takes 94 bits, and the scale 7 more: u128 holds it.
        let period = rate.per().as_nanos() * u128::from(UNITS_PER_NANO);
        if u128::from(rate.count()) > period {
            return refuse_rate("stay below 128 units a nanosecond");
        }
        let interval = period.div_ceil(u128::from(rate.count()));
        let capacity = interval.saturating_mul(u128::from(burst));
        match (u64::try_from(interval), u64::try_from(capacity)) {
            (Ok(interval), Ok(capacity)) if capacity <= MAX_CAPACITY => Ok(Self { interval, capacity, burst }),
            _ => Err(ConfigError::new("burst", burst, "lower it, or raise the rate: it takes more than a year to refill")),
        }
    }

    /// How far ahead of `now` the TAT is after a call of `cost`, if that is not too far.
    #[inline]
    fn after(&self, cost: u32, tat: u64, now: u64) -> Result<u64, Denied> {
        // Neither overflows: `cost <= burst`, `capacity < 2^62`, and `ahead < 2^63`.
        let ahead = ahead(tat, now) + u64::from(cost) * self.interval;
        match ahead.checked_sub(self.capacity) {
            None | Some(0) => Ok(ahead),
            Some(excess) => Err(Denied::Until { wait: Duration::from_nanos(excess.div_ceil(UNITS_PER_NANO)) }),
        }
    }
}

/// How far `tat` lies ahead of `now`; 0 if it has passed.
///
/// Both wrap, so the difference is read as signed: right as long as a bucket admits once in 2.2 years. A scale that
/// does not wrap for longer would be too coarse for fast rates: sixteenths of a nanosecond are off by 0.13 % at 30 M/s.
fn ahead(tat: u64, now: u64) -> u64 {
    let difference = tat.wrapping_sub(now);
    if difference > u64::MAX / 2 { 0 } else { difference }
}

const UNITS_PER_NANO: u64 = 128;
/// Over a year, and a quarter of the wrapping range.
const MAX_CAPACITY: u64 = 1 << 62;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::iter;

    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLI;

    fn bucket(rate: Rate, burst: u32) -> TokenBucket {
        TokenBucket::new(rate, burst).unwrap()
    }

    fn admitted(bucket: &TokenBucket, cost: u32, now: u64) -> bool {
        bucket.acquire(cost, now).is_ok()
    }

    #[test]
    fn ten_a_second_with_a_burst_of_three() {
        let bucket = bucket(Rate::per_second(10), 3);
        let at = |step: u64, cost| admitted(&bucket, cost, step * 100 * MILLI);
        assert!(at(0, 2));
        assert!(!at(0, 2));
        assert!(at(0, 1));
        assert!(!at(0, 1));
        assert!(!at(1, 4));
        assert!(at(2, 1));
        assert!(at(3, 1));
        assert!(at(4, 1));
        assert!(at(4, 1));
        assert!(!at(4, 1));
        assert!(at(9, 3));
    }

    #[test]
    fn an_idle_bucket_saves_up_no_more_than_its_burst() {
        let bucket = bucket(Rate::per_second(5), 5);
        for start in [0, 2 * SECOND] {
            assert!(iter::repeat_with(|| admitted(&bucket, 1, start)).take(5).all(|admitted| admitted));
            assert!(!admitted(&bucket, 1, start));
        }
    }

    #[test]
    fn what_is_left_can_be_read() {
        let bucket = bucket(Rate::per_second(10), 10);
        assert!(admitted(&bucket, 1, 0));
        assert_eq!(bucket.available(0), 9);
        assert!(admitted(&bucket, 2, 0));
        assert_eq!(bucket.available(0), 7);
        assert_eq!(bucket.available(100 * MILLI), 8);
    }

    #[test]
    fn one_a_day_refills_though_it_is_polled_often() {
        let bucket = bucket(Rate::per_day(1), 1);
        let polls = 10 * 24 * 3600 * SECOND / (150 * MILLI);
        assert_eq!((0..=polls).filter(|poll| admitted(&bucket, 1, poll * 150 * MILLI)).count(), 11);
    }

    #[test]
    fn a_cost_above_the_burst_is_told_apart_from_a_wait() {
        let bucket = bucket(Rate::per_second(10), 3);
        assert_eq!(bucket.acquire(4, 0), Err(Denied::CostAboveBurst));
        assert_eq!(bucket.available(0), 3);
    }

    #[test]
    fn rates_are_kept_within_a_thousandth() {
        for per_second in [3, 7_777, 1_000_003, 29_999_999, 30_000_000, 66_666_667, 99_999_999, 100_000_000] {
            let quota = Quota::new(Rate::per_second(per_second), 1).unwrap();
            let kept = (SECOND * UNITS_PER_NANO) as f64 / quota.interval as f64;
            let error = 1.0 - kept / per_second as f64;
            assert!((0.0..0.001).contains(&error), "{per_second}/s is off by {error}");
        }
    }

    #[test]
    fn the_clock_may_wrap_and_go_back() {
        let bucket = bucket(Rate::per_second(1), 2);
        let wrap = u64::MAX / UNITS_PER_NANO;
        for quarter in 1..4 {
            assert!(admitted(&bucket, 1, wrap / 4 * quarter));
        }
        assert!(admitted(&bucket, 2, wrap));
        assert!(!admitted(&bucket, 1, wrap + 1));
        assert!(admitted(&bucket, 1, wrap + SECOND));
        assert!(!admitted(&bucket, 1, wrap));
        assert!(!admitted(&bucket, 1, wrap - 1000 * SECOND));
    }

    #[test]
    fn refuses_settings_that_cannot_work() {
        let refused = |rate, burst| TokenBucket::new(rate, burst).unwrap_err().field;
        assert_eq!(refused(Rate::per_second(0), 1), "rate");
        assert_eq!(refused(Rate::new(1, Duration::ZERO), 1), "rate");
        assert_eq!(refused(Rate::new(u64::MAX, Duration::from_nanos(1)), 1), "rate");
        assert_eq!(refused(Rate::per_second(1), 0), "burst");
        assert_eq!(refused(Rate::per_second(1), u32::MAX), "burst");
        assert_eq!(refused(Rate::new(1, Duration::MAX), 1), "burst");
    }

    /// The textbook bucket: a level that drains with time.
    struct Meter {
        level: u128,
        last: u64,
    }

    impl Meter {
        fn admit(&mut self, quota: &Quota, cost: u32, now: u64) -> bool {
            let drained = u128::from(now - self.last) * u128::from(UNITS_PER_NANO);
            self.level = self.level.saturating_sub(drained);
            self.last = now;
            let level = self.level + u128::from(cost) * u128::from(quota.interval);
            let fits = level <= u128::from(quota.capacity);
            if fits {
                self.level = level;
            }
            fits
        }
    }

    proptest! {
        #[test]
        fn decides_as_a_draining_meter_does(
            count in 1u64..10_000, burst in 1u32..50,
            calls in prop::collection::vec((0u32..60, 0u64..SECOND / 100), 1..200),
        ) {
            let bucket = bucket(Rate::per_second(count), burst);
            let mut meter = Meter { level: 0, last: 0 };
            let mut now = 0;
            for (cost, step) in calls {
                now += step;
                match bucket.acquire(cost, now) {
                    Err(Denied::CostAboveBurst) => prop_assert!(cost > burst),
                    decision => prop_assert_eq!(decision.is_ok(), meter.admit(&bucket.quota, cost, now)),
                }
            }
        }

        #[test]
        fn waiting_the_hint_is_enough_and_less_is_not(
            count in 1u64..200_000_000, burst in 1u32..1000, steps in prop::collection::vec(0u64..1000, 1..300),
        ) {
            let bucket = bucket(Rate::per_second(count), burst);
            let mut now = 0;
            for step in steps {
                now += step;
                if let Err(Denied::Until { wait }) = bucket.acquire(1, now) {
                    let wait = u64::try_from(wait.as_nanos()).unwrap();
                    prop_assert!(wait > 0);
                    prop_assert!(!admitted(&bucket, 1, now + wait - 1));
                    now += wait;
                    prop_assert!(admitted(&bucket, 1, now));
                }
            }
        }

        #[test]
        fn no_span_of_time_is_over_admitted_even_if_the_clock_goes_back(
            burst in 1u32..20, steps in prop::collection::vec(-(20 * MILLI as i64)..30 * MILLI as i64, 1..300),
        ) {
            let bucket = bucket(Rate::per_second(100), burst);
            let (mut real, mut admissions) = (0u64, Vec::new());
            for step in steps {
                // The clock that the bucket sees jitters; real time only goes on.
                real += step.unsigned_abs();
                if admitted(&bucket, 1, real.saturating_add_signed(step.min(0))) {
                    admissions.push(real);
                }
            }
            for (first, start) in admissions.iter().enumerate() {
                for (last, end) in admissions.iter().enumerate().skip(first) {
                    // A clock that lags by up to 20 ms can postpone, but not create, what 20 ms are worth.
                    let bound = u64::from(burst) + (end - start + 20 * MILLI) / (10 * MILLI);
                    prop_assert!((last - first) as u64 <= bound);
                }
            }
        }
    }
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
            // Either two ones and no two, or a two and a one: never above 3, and never fewer than fit.
            assert!(matches!((here, there), (2, 0) | (1, 2)), "{here} {there}");
        });
    }
}
