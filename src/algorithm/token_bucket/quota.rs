//! Rate and burst in one word, so that both change in one step for every reader.
//!
//! Why not two words? A reader that takes the interval of one configuration and the capacity of the
//! other can see a burst that neither allows. Change 10 a second with a burst of 10 to 10 000 a
//! second with a burst of 10: for a moment, 10 000 would be admitted at once. A version counter
//! around them (a seqlock) costs two more loads and makes readers wait for a writer. So the
//! interval is kept as a floating-point number of 32 significant bits. It is exact for all common
//! rates, and otherwise too long by less than one part in 2^31, so that the limit is never faster
//! than configured.

use crate::{
    algorithm::Rate,
    config::ConfigError,
    sync::{AtomicU64, Ordering},
};

/// The rate and burst of one bucket, or of several buckets that change together. 16 bytes.
///
/// A decision that races an [`update`](Self::update) uses the old or the new quota, never a
/// mixture. So a span of time that contains a change admits at most what the old quota allows up to
/// it, plus what the new quota allows after it.
#[derive(Debug)]
pub(crate) struct AtomicQuota {
    /// `burst:27 | shift:5 | mantissa:32`, where the interval is `mantissa << shift`. It publishes
    /// nothing else, so all accesses are Relaxed.
    word: AtomicU64,
    /// The scale chosen for the first rate. It never changes, because all arrival times are counted
    /// in it.
    scale: Scale,
}

/// The unit in which arrival times are counted.
///
/// Quarters of a nanosecond last 146 years without a wrap. They are too coarse for more than a
/// million units a second: 30 M/s would be off by half a per cent. Those rates are counted in
/// 128ths of a nanosecond, which wrap after 4.6 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Units a nanosecond, as a power of two.
    bits: u32,
}

/// A quota as read at one moment, in the form that the arithmetic needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// One unit's share of time, in units of the scale, rounded up.
    pub(crate) interval: u64,
    /// `burst * interval`.
    pub(crate) capacity: u64,
    pub(crate) burst: u64,
    pub(crate) scale: Scale,
}

impl AtomicQuota {
    pub(crate) fn new(rate: Rate, burst: u32) -> Result<Self, ConfigError> {
        let scale = Scale::of(rate);
        Ok(Self {
            word: AtomicU64::new(pack(rate, burst, scale)?),
            scale,
        })
    }

    pub(crate) fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        let word = pack(rate, burst, self.scale)?;
        self.word.store(word, Ordering::Relaxed);
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    #[inline]
    pub(crate) fn pace(&self) -> Pace {
        let word = self.word.load(Ordering::Relaxed);
        let burst = word >> 37;
        let interval = u64::from(word as u32) << (word >> 32 & 31);
        Pace {
            interval,
            capacity: interval * burst,
            burst,
            scale: self.scale,
        }
    }

    #[inline]
    pub(crate) fn scale(&self) -> Scale {
        self.scale
    }
}

impl Scale {
    pub(crate) const COARSE: Self = Self { bits: 2 };
    const FINE: Self = Self { bits: 7 };

    pub(crate) fn of(rate: Rate) -> Self {
        if u128::from(rate.count()) * 1000 > rate.per().as_nanos() {
            Self::FINE
        } else {
            Self::COARSE
        }
    }

    fn wraps(self) -> bool {
        self == Self::FINE
    }

    /// Converts a length of time to units. Saturates.
    #[inline]
    pub(crate) fn units(self, nanos: u64) -> u64 {
        nanos.saturating_mul(1 << self.bits)
    }

    /// Converts units to nanoseconds, rounded up.
    #[inline]
    pub(crate) fn nanos(self, units: u64) -> u64 {
        units.div_ceil(1 << self.bits)
    }

    /// Returns how far ahead of `now` an arrival time may be: over a year, or 13 days on the scale
    /// that wraps.
    #[inline]
    pub(crate) fn max_ahead(self) -> u64 {
        1 << 57
    }

    /// Converts a moment to units. On the coarse scale time stands still after 144 years, which
    /// errs towards admitting less.
    #[inline]
    pub(crate) fn moment(self, now: u64) -> u64 {
        if self.wraps() {
            now << self.bits
        } else {
            now.min(LAST) << self.bits
        }
    }

    /// Returns how far an arrival time lies ahead of a moment. Returns 0 if it has passed, or if it
    /// is 0, the arrival time of a bucket that was never used.
    ///
    /// On the scale that wraps, a distance beyond the largest debt plus a clock that went back by 6
    /// days counts as passed. So it is wrong only for a limit above a million a second that was not
    /// used for 4.5 years. It then admits too little, for 19 days.
    #[inline]
    pub(crate) fn ahead(self, arrival: u64, moment: u64) -> u64 {
        if self.wraps() {
            let ahead = arrival.wrapping_sub(moment);
            if ahead > self.max_ahead() / 2 * 3 || arrival == 0 {
                0
            } else {
                ahead
            }
        } else {
            arrival.saturating_sub(moment)
        }
    }

    /// Returns how far an arrival time that has passed lies behind a moment.
    #[inline]
    pub(crate) fn behind(self, arrival: u64, moment: u64) -> u64 {
        if self.wraps() {
            moment.wrapping_sub(arrival)
        } else {
            moment.saturating_sub(arrival)
        }
    }

    /// Returns the arrival time that lies this far ahead of a moment.
    #[inline]
    pub(crate) fn arrival(self, moment: u64, ahead: u64) -> u64 {
        if self.wraps() {
            moment.wrapping_add(ahead).max(1)
        } else {
            moment.saturating_add(ahead)
        }
    }
}

impl Pace {
    /// Returns the rate per second, minute, hour or day: the shortest of these in which the count
    /// is a whole number within the rounding.
    ///
    /// The interval is rounded up, so a plain division would turn 3/s into 2/s.
    pub(crate) fn rate(self) -> Rate {
        for seconds in [1, 60, 3600, 86_400] {
            let period = self.scale.units(seconds * 1_000_000_000);
            let count = (period + self.interval / 2) / self.interval;
            // Each unit was rounded up by less than 1, or by one part in 2^31.
            let rounding = count.max(period >> 31);
            if count > 0 && (count * self.interval).abs_diff(period) <= rounding {
                return Rate::new(count, std::time::Duration::from_secs(seconds));
            }
        }
        Rate::new(
            1,
            std::time::Duration::from_nanos(self.scale.nanos(self.interval)),
        )
    }
}

fn pack(rate: Rate, burst: u32, scale: Scale) -> Result<u64, ConfigError> {
    let (mantissa, shift) = interval(rate, scale)?;
    let refuse_burst = |fix| Err(ConfigError::new("burst", burst, fix));
    if burst == 0 {
        return refuse_burst("allow at least 1 call at once");
    }
    if burst > MAX_BURST {
        return refuse_burst(
            "use at most 134 217 727; count in larger units, such as KiB for bytes",
        );
    }
    // 32, 30 and 27 bits: u128 holds the product.
    if (u128::from(mantissa) << shift) * u128::from(burst) > u128::from(scale.max_ahead()) {
        return refuse_burst("lower it, or raise the rate: it takes more than a year to refill");
    }
    Ok(u64::from(burst) << 37 | u64::from(shift) << 32 | mantissa)
}

/// Returns the interval as `mantissa << shift`, rounded up.
pub(crate) fn interval(rate: Rate, scale: Scale) -> Result<(u64, u32), ConfigError> {
    let refuse = |fix| Err(ConfigError::new("rate", rate, fix));
    if rate.count() == 0 {
        return refuse("allow at least 1 unit; to stop all calls, use another means than a rate");
    }
    if rate.per().is_zero() {
        return refuse("give the period a length, such as 100/s");
    }
    // A u64 of seconds in nanoseconds takes 94 bits, and the scale 7 more: u128 holds it.
    let period = rate.per().as_nanos() << scale.bits;
    if u128::from(rate.count()) > period {
        return refuse(
            "stay below 128 units a nanosecond; a limit that begins below a million a second, below 4",
        );
    }
    let interval = match u64::try_from(period.div_ceil(u128::from(rate.count()))) {
        Ok(interval) if interval <= scale.max_ahead() => interval,
        _ => return refuse("allow at least 1 unit a year"),
    };
    let shift = (u64::BITS - interval.leading_zeros()).saturating_sub(32);
    match interval.div_ceil(1 << shift) {
        // Rounded up to a 33rd bit: a power of two, which one more shift holds.
        mantissa if mantissa > u64::from(u32::MAX) => Ok((mantissa >> 1, shift + 1)),
        mantissa => Ok((mantissa, shift)),
    }
}

pub(crate) const MAX_BURST: u32 = (1 << 27) - 1;
/// The latest moment whose arrival times do not overflow: 2^58 units before the end.
const LAST: u64 = (1 << 62) - (1 << 56);

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// In 128ths of a nanosecond, whatever the scale.
    const SECOND: u64 = 1_000_000_000 * 128;

    fn interval_of(rate: Rate) -> u64 {
        let pace = AtomicQuota::new(rate, 1).unwrap().pace();
        pace.interval << (7 - pace.scale.bits)
    }

    #[test]
    fn common_rates_are_exact() {
        for count in [1, 2, 5, 10, 100, 1000, 1_000_000, 100_000_000] {
            assert_eq!(interval_of(Rate::per_second(count)), SECOND / count);
        }
        assert_eq!(interval_of(Rate::per_minute(1)), 60 * SECOND);
        assert_eq!(interval_of(Rate::per_hour(1)), 3600 * SECOND);
        assert_eq!(interval_of(Rate::per_day(1)), 24 * 3600 * SECOND);
    }

    #[test]
    fn high_rates_are_kept_within_a_thousandth() {
        for per_second in [
            3,
            7_777,
            1_000_003,
            29_999_999,
            30_000_000,
            66_666_667,
            99_999_999,
            100_000_000,
        ] {
            let kept = SECOND as f64 / interval_of(Rate::per_second(per_second)) as f64;
            let error = 1.0 - kept / per_second as f64;
            assert!(
                (0.0..0.001).contains(&error),
                "{per_second}/s is off by {error}"
            );
        }
    }

    #[test]
    fn tells_the_rate_that_was_set() {
        let rates = [
            Rate::per_second(3),
            Rate::per_second(7),
            Rate::per_second(100_000_000),
            Rate::per_minute(1),
        ];
        for rate in rates.into_iter().chain([
            Rate::per_minute(100),
            Rate::per_hour(1000),
            Rate::per_day(1),
            Rate::per_day(7),
        ]) {
            assert_eq!(AtomicQuota::new(rate, 1).unwrap().pace().rate(), rate);
        }
        assert_eq!(
            AtomicQuota::new(Rate::per_minute(600), 1)
                .unwrap()
                .pace()
                .rate(),
            Rate::per_second(10)
        );
        // Not a whole number in any of these periods: the result is the interval, as rounded up.
        let week = AtomicQuota::new(Rate::new(1, Duration::from_secs(7 * 86_400)), 1)
            .unwrap()
            .pace()
            .rate();
        assert_eq!((week.count(), week.per().as_secs()), (1, 7 * 86_400));
    }

    #[test]
    fn refuses_settings_that_cannot_work() {
        let refused = |rate, burst| AtomicQuota::new(rate, burst).unwrap_err().field;
        assert_eq!(refused(Rate::per_second(0), 1), "rate");
        assert_eq!(refused(Rate::new(1, Duration::ZERO), 1), "rate");
        assert_eq!(
            refused(Rate::new(u64::MAX, Duration::from_nanos(1)), 1),
            "rate"
        );
        assert_eq!(refused(Rate::new(1, Duration::MAX), 1), "rate");
        assert_eq!(refused(Rate::per_second(1), 0), "burst");
        assert_eq!(refused(Rate::per_second(1), u32::MAX), "burst");
        assert_eq!(refused(Rate::per_day(1), 500), "burst");
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_again_and_never_faster(
            count in 1u64..1 << 40, nanos in 1u64..1 << 54, burst in 1u32..=MAX_BURST,
        ) {
            let rate = Rate::new(count, Duration::from_nanos(nanos));
            if let Ok(quota) = AtomicQuota::new(rate, burst) {
                let pace = quota.pace();
                let exact = (u128::from(nanos) << pace.scale.bits).div_ceil(u128::from(count));
                prop_assert_eq!(pace.burst, u64::from(burst));
                prop_assert!(u128::from(pace.interval) >= exact);
                prop_assert!(u128::from(pace.interval) - exact <= exact >> 31);
                prop_assert_eq!(pace.capacity, pace.interval * u64::from(burst));
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_reader_never_sees_a_mixture_of_two_quotas() {
        loom::model(|| {
            let quota = Arc::new(AtomicQuota::new(Rate::per_second(10), 10).unwrap());
            let [old, new] = [(10, 10), (1000, 3)].map(|(rate, burst)| {
                AtomicQuota::new(Rate::per_second(rate), burst)
                    .unwrap()
                    .pace()
            });
            let other = quota.clone();
            let thread = thread::spawn(move || other.update(Rate::per_second(1000), 3).unwrap());
            let seen = quota.pace();
            assert!(seen == old || seen == new);
            thread.join().unwrap();
            assert_eq!(quota.pace(), new);
        });
    }
}
