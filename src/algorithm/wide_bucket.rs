//! A token bucket of 64-bit units: micro-dollars, tokens of a language model, bytes.
//!
//! It has the arithmetic of a [`TokenBucket`](super::TokenBucket), and the same word of state. Its
//! rate and burst are two words and not one, because a burst of 64 bits leaves no room for an
//! interval beside it. A call that races a change of both may read the new rate with the old burst,
//! or the reverse. At most the larger burst is then admitted, because the capacity is not stored:
//! it is the burst times the interval that was read.
//!
//! **Guarantee.** Any span of time `W` admits at most `burst + W / T` units. `T` is a unit's share
//! of time, rounded up by less than one part in 2^31 or a 128th of a nanosecond.

use crate::{
    algorithm::{
        OverLimit, Rate,
        token_bucket::{
            quota::{Pace, Scale, interval},
            tat::Tat,
        },
    },
    config::ConfigError,
    sync::{AtomicBool, AtomicU64, Ordering},
};

/// A limit on a rate of 64-bit units, with bursts. Starts full.
#[derive(Debug)]
pub(crate) struct WideBucket {
    /// One unit's share of time, in units of the scale. Relaxed, like `burst`: neither publishes
    /// anything. The module docs describe a call that reads one old and one new value.
    interval: AtomicU64,
    /// The most units taken at once, at least 1. `burst * interval` fits the scale.
    burst: AtomicU64,
    scale: Scale,
    tat: Tat,
    /// The arrival time that was last [told](Self::told), in nanoseconds, which no refund passes: a
    /// report counts what calls have used, not what they took. 0 before the first. Relaxed: a
    /// refund that races a report may take the old one, which the next report corrects.
    reported: AtomicU64,
    /// If true, the pace is known: it was set, or a report has told it. Relaxed, like the pace.
    is_paced: AtomicBool,
}

impl WideBucket {
    /// Creates a full bucket.
    pub(crate) fn new(rate: Rate, burst: u64) -> Result<Self, ConfigError> {
        let scale = Scale::of(rate);
        let interval = checked(rate, burst, scale)?;
        Ok(Self {
            interval: AtomicU64::new(interval),
            burst: AtomicU64::new(burst),
            scale,
            tat: Tat::full(),
            reported: AtomicU64::new(0),
            is_paced: AtomicBool::new(true),
        })
    }

    /// Creates a bucket that rejects nothing until the first [`told`](Self::told).
    pub(crate) fn open() -> Self {
        Self {
            interval: AtomicU64::new(1),
            burst: AtomicU64::new(OPEN),
            scale: Scale::COARSE,
            tat: Tat::full(),
            reported: AtomicU64::new(0),
            is_paced: AtomicBool::new(false),
        }
    }

    pub(crate) fn pace(&self) -> Pace {
        let interval = self.interval.load(Ordering::Relaxed);
        let burst = self.burst.load(Ordering::Relaxed);
        Pace {
            interval,
            // A mixture of two settings may not fit.
            capacity: interval.saturating_mul(burst).min(self.scale.max_ahead()),
            burst,
            scale: self.scale,
        }
    }

    /// Returns whether `told` has not been called yet. Until then the bucket counts nothing, so
    /// that the first report is all it knows.
    fn is_open(&self) -> bool {
        self.burst.load(Ordering::Relaxed) == OPEN
    }

    /// Takes `cost` units, or none.
    pub(crate) fn take_late(&self, cost: u64, due: u64, now: u64) -> Result<(), OverLimit> {
        if self.is_open() {
            return Ok(());
        }
        self.tat.take_late(self.pace(), cost, due, now).map(|_| ())
    }

    /// Takes `cost` units, or none, and leaves a [reserve](Self::reserve).
    pub(crate) fn take_leaving(&self, cost: u64, due: u64, now: u64) -> Result<(), OverLimit> {
        if self.is_open() {
            return Ok(());
        }
        let mut pace = self.pace();
        // The same state, as that of a smaller bucket.
        let reserve = reserve(pace.burst).saturating_mul(pace.interval);
        pace.capacity = pace.capacity.saturating_sub(reserve);
        self.tat.take_late(pace, cost, due, now).map(|_| ())
    }

    /// The units that [`take_leaving`](Self::take_leaving) leaves: half of the burst.
    pub(crate) fn reserve(&self) -> u64 {
        if self.is_open() {
            0
        } else {
            reserve(self.burst())
        }
    }

    /// Returns how many nanoseconds units take to come back, or 0 if the pace is not known yet.
    pub(crate) fn span(&self, units: u64) -> u64 {
        if !self.is_paced.load(Ordering::Relaxed) {
            return 0;
        }
        let pace = self.pace();
        pace.scale.nanos(units.saturating_mul(pace.interval))
    }

    /// Gives units back, as far as there is room for them, and no last report says otherwise.
    pub(crate) fn give_back(&self, units: u64, now: u64) {
        let reported = self.reported.load(Ordering::Relaxed).saturating_sub(now);
        let least = self.scale.units(reported);
        self.tat.refund_above(self.pace(), units, least, now);
    }

    /// Takes units that were used already, as a debt if they do not fit.
    pub(crate) fn charge(&self, units: u64, now: u64) {
        if !self.is_open() {
            self.tat.charge(self.pace(), units, now);
        }
    }

    pub(crate) fn close_until(&self, until: u64, now: u64) {
        self.tat.close_until(self.pace(), until, now);
    }

    pub(crate) fn reset(&self, now: u64) {
        self.reported.store(0, Ordering::Relaxed);
        self.tat.reset(self.scale, now);
    }

    /// Returns how many nanoseconds until `units` more units have all fitted, one after the other.
    pub(crate) fn wait(&self, units: u64, now: u64) -> u64 {
        if self.is_open() {
            return 0;
        }
        self.tat.wait(self.pace(), units, now)
    }

    pub(crate) fn available(&self, now: u64) -> u64 {
        self.tat.available(self.pace(), now)
    }

    pub(crate) fn burst(&self) -> u64 {
        self.burst.load(Ordering::Relaxed)
    }

    pub(crate) fn rate(&self) -> Rate {
        self.pace().rate()
    }

    /// Changes rate and burst. Used units stay used, as the time that they take.
    pub(crate) fn update(&self, rate: Rate, burst: u64) -> Result<(), ConfigError> {
        let interval = checked(rate, burst, self.scale)?;
        self.set(interval, burst);
        Ok(())
    }

    fn set(&self, interval: u64, burst: u64) {
        self.interval.store(interval, Ordering::Relaxed);
        self.burst.store(burst, Ordering::Relaxed);
    }

    /// Records another counter's report on the same units: of `limit` units `remaining` are left,
    /// and all are back in `full_in` nanoseconds.
    ///
    /// The theoretical arrival time of a bucket *is* the moment at which it is full, so the report
    /// is its state. The pace follows: the missing units come back in that time, each after at most
    /// `slowest` nanoseconds. So an empty bucket has one unit after one such share, and never later
    /// than `full_in`. Units that were taken here but are not in the report yet stay taken, and
    /// come back at the new pace.
    ///
    /// The time is often rounded up to a second. If few units are missing, it says little about the
    /// pace, which then only becomes faster.
    pub(crate) fn told(
        &self,
        limit: u64,
        remaining: u64,
        (full_in, slowest): (u64, u64),
        now: u64,
    ) {
        let full_in = self.scale.units(full_in).min(self.scale.max_ahead());
        // More than one unit of the limit in one unit of the scale would be indistinguishable.
        let missing = limit.max(1).saturating_sub(remaining).min(full_in);
        if missing == 0 {
            return;
        }
        let before = (!self.is_open()).then(|| self.pace().interval);
        // Rounded down, so that all units are back in time.
        let mut interval = (full_in / missing).min(self.scale.units(slowest).max(1));
        let tells = missing >= limit / TELLING;
        if let Some(before) = before.filter(|_| !tells) {
            interval = interval.min(before);
        }
        let limit = remaining.saturating_add(missing);
        let burst = limit.min(self.scale.max_ahead() / interval).max(1);
        self.set(interval, burst);
        if tells {
            self.is_paced.store(true, Ordering::Relaxed);
        }
        let used = burst.saturating_sub(remaining).saturating_mul(interval);
        let until = now.saturating_add(self.scale.nanos(used));
        self.reported.store(until, Ordering::Relaxed);
        self.tat.replace(self.scale, now, |ahead| {
            let here = before.map_or(0, |before| ahead.div_ceil(before).min(burst));
            here.saturating_mul(interval).max(used)
        });
    }
}

/// A report tells the pace if this part of the limit is missing, as a divisor.
const TELLING: u64 = 10;

/// The burst of a bucket that was told nothing. No other bucket can have it.
const OPEN: u64 = u64::MAX;

fn reserve(burst: u64) -> u64 {
    burst / 2
}

fn checked(rate: Rate, burst: u64, scale: Scale) -> Result<u64, ConfigError> {
    let (mantissa, shift) = interval(rate, scale)?;
    let interval = mantissa << shift;
    let refuse = |fix| Err(ConfigError::new("burst", burst, fix));
    if burst == 0 {
        return refuse("allow at least 1 unit at once");
    }
    if u128::from(interval) * u128::from(burst) > u128::from(scale.max_ahead()) {
        return refuse("lower it, or raise the rate: it takes more than a year to refill");
    }
    Ok(interval)
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn counts_more_units_than_32_bits_hold() {
        // 10 000 dollars a day, in micro-dollars.
        let money = WideBucket::new(Rate::per_day(10_000_000_000), 10_000_000_000).unwrap();
        assert!(money.take_late(9_999_999_999, 0, 0).is_ok());
        assert_eq!(money.available(0), 1);
        assert_eq!(
            money.take_late(10_000_000_001, 0, 0).map(|_| ()),
            Err(OverLimit::CostAboveBurst)
        );
        assert!(money.take_late(2, 0, 0).is_err());
        assert!(money.take_late(1, 0, 0).is_ok());
    }

    #[test]
    fn follows_what_is_told_and_no_further() {
        let bucket = WideBucket::open();
        assert!(bucket.take_late(1 << 40, 0, 0).is_ok());
        // 60 a minute, of which 3 are left.
        bucket.told(60, 3, (57 * SECOND, u64::MAX), 0);
        assert_eq!(bucket.available(0), 3);
        assert_eq!(bucket.available(SECOND), 4);
        // None are left: one is back after a second, not after a minute.
        bucket.told(60, 0, (60 * SECOND, u64::MAX), SECOND);
        assert_eq!(bucket.available(SECOND), 0);
        assert_eq!(bucket.available(2 * SECOND), 1);
        assert_eq!(bucket.available(61 * SECOND), 60);
        // No slower than one in 100 ms.
        bucket.told(1, 0, (3600 * SECOND, SECOND / 10), 61 * SECOND);
        assert_eq!(bucket.available(61 * SECOND + SECOND / 10), 1);
    }

    #[test]
    fn units_taken_before_a_report_come_back_at_its_pace() {
        let bucket = WideBucket::open();
        // 80 000 a minute, of which ten are missing: the time is rounded up to a second.
        bucket.told(80_000, 79_990, (SECOND, u64::MAX), 0);
        assert!(bucket.take_late(20_000, 0, 0).is_ok());
        bucket.told(80_000, 60_000, (15 * SECOND, u64::MAX), 0);
        assert_eq!(bucket.available(0), 59_990);
        assert!(bucket.available(15 * SECOND) > 79_900);
        // Few are missing again. That says nothing about the pace.
        bucket.told(80_000, 79_999, (SECOND, u64::MAX), 15 * SECOND);
        assert!(bucket.take_late(79_900, 0, 15 * SECOND).is_ok());
        assert!(bucket.available(76 * SECOND) > 79_900);
    }

    #[test]
    fn a_refund_takes_nothing_off_a_report() {
        let bucket = WideBucket::open();
        bucket.told(100_000, 99_000, (SECOND, u64::MAX), 0);
        (0..5).for_each(|_| assert!(bucket.take_late(10_000, 0, 0).is_ok()));
        // The report counts what the calls have used, and what others have.
        bucket.told(100_000, 10_000, (90 * SECOND, u64::MAX), 0);
        (0..5).for_each(|_| bucket.give_back(9_900, 0));
        assert_eq!(bucket.available(0), 10_000);
        // What is taken after it can be given back.
        assert!(bucket.take_late(8_000, 0, 0).is_ok());
        bucket.give_back(7_000, 0);
        assert_eq!(bucket.available(0), 9_000);
    }

    proptest! {
        /// For any reports, in any order, and whatever is taken in between.
        #[test]
        fn a_unit_is_back_within_the_reset_that_was_told(
            told in proptest::collection::vec(
                ((any::<u64>(), any::<u64>(), 0u64..1 << 60), 0u64..10 * SECOND, any::<u64>()),
                1..20,
            ),
        ) {
            let bucket = WideBucket::open();
            let (mut now, mut full_at) = (0, 0u64);
            for ((limit, remaining, full_in), later, cost) in told {
                now += later;
                bucket.told(limit, remaining, (full_in, u64::MAX), now);
                full_at = full_at.max(now.saturating_add(full_in));
                prop_assert!(bucket.available(full_at.saturating_add(1)) >= 1);
                let _ = bucket.take_late(cost % bucket.burst().saturating_add(1), now, now);
                bucket.give_back(cost % 7, now);
            }
        }

        /// An honest provider, whose times are rounded up to a second, and one call at a time. What
        /// it would admit with a tenth of its quota to spare is admitted here.
        #[test]
        fn an_honest_provider_is_used_up_to_its_quota(
            calls in proptest::collection::vec((1u64..20_000, 0u64..20 * SECOND), 2..60),
        ) {
            const LIMIT: u64 = 80_000;
            let rate = Rate::per_minute(LIMIT);
            let provider = WideBucket::new(rate, LIMIT).unwrap();
            let bucket = WideBucket::open();
            let mut now = 0;
            for (cost, later) in calls {
                now += later;
                let left = provider.available(now);
                let taken = bucket.take_late(cost, now, now).is_ok();
                prop_assert!(taken || left < cost + LIMIT / 10, "{cost} of {left} at {now}");
                if taken && provider.take_late(cost, now, now).is_ok() {
                    let full_in = provider.wait(LIMIT, now).next_multiple_of(SECOND);
                    let left = provider.available(now);
                    bucket.told(LIMIT, left, (full_in, u64::MAX), now);
                }
            }
        }

        #[test]
        fn never_more_than_is_told_is_left(
            limit in 1u64..1 << 50, used in 1u64..1 << 50, seconds in 1u64..86_400,
        ) {
            let remaining = limit.saturating_sub(used);
            let bucket = WideBucket::open();
            bucket.told(limit, remaining, (seconds * SECOND, u64::MAX), 0);
            prop_assert!(bucket.available(0) <= remaining);
        }

        /// Compares with a bucket that keeps fractions of tokens.
        #[test]
        fn admits_what_a_naive_bucket_does(
            calls in proptest::collection::vec((0u64..1 << 36, 0u64..2 * SECOND), 1..60),
        ) {
            let (rate, burst) = (1u64 << 34, 1u64 << 35);
            let bucket = WideBucket::new(Rate::per_second(rate), burst).unwrap();
            let (mut tokens, mut last, mut now) = (u128::from(burst) * u128::from(SECOND), 0, 0);
            for (cost, later) in calls {
                now += later;
                let earned = u128::from(now - last) * u128::from(rate);
                tokens = (tokens + earned).min(u128::from(burst) * u128::from(SECOND));
                last = now;
                let fits = cost == 0 || u128::from(cost) * u128::from(SECOND) <= tokens;
                let taken = bucket.take_late(cost, now, now).is_ok();
                // An interval that is rounded up errs towards admitting less.
                prop_assert!(fits || !taken);
                if taken {
                    tokens -= u128::from(cost) * u128::from(SECOND);
                }
            }
        }
    }
}
