//! A running quantile of durations, in memory that does not grow.
//!
//! A histogram with eight buckets for each doubling, from 8 microseconds to two minutes: a duration
//! is known to an eighth. Whenever the histogram holds 8192 durations, all counts are halved, so
//! that the past fades. From then on that is every 4096 calls. Why not the P² algorithm, with five
//! markers? Its markers move in a step of several words, which needs a lock, and it never forgets.
//!
//! **Guarantee.** Between 8 microseconds and two minutes the quantile is at least the true one of
//! the recorded durations, and at most an eighth more. What threads record while it is computed may
//! move it by a bucket. Shorter and longer durations count in the first and the last bucket. The
//! quantile is computed at the 20th and at every 64th recording.
//!
//! **Cost.** Recording: two writes to memory that all threads share, and every 64th time a read of
//! 192 words. Reading: a load.

use crate::{
    config::ConfigError,
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// A running quantile.
///
/// ```
/// use tower_keep::algorithm::LatencyQuantile;
///
/// let p90 = LatencyQuantile::new(0.9)?;
/// assert_eq!(p90.get(), None, "too few to tell");
/// (1..=128).for_each(|millis| p90.record(millis * 1_000_000));
/// let nanos = p90.get().unwrap();
/// assert!((116_000_000..=130_500_000).contains(&nanos));
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct LatencyQuantile {
    quantile: f64,
    /// The counts. Relaxed, as everywhere here: these are statistics, and none publishes another.
    buckets: Box<[AtomicU32]>,
    total: AtomicU32,
    /// The quantile in nanoseconds, or 0 while too few durations are recorded.
    current: AtomicU64,
}

impl LatencyQuantile {
    /// Creates a quantile without any durations.
    ///
    /// # Errors
    /// A quantile that is not above 0 and below 1.
    pub fn new(quantile: f64) -> Result<Self, ConfigError> {
        if !(quantile > 0.0 && quantile < 1.0) {
            let fix = "use a share between 0 and 1, such as 0.95";
            return Err(ConfigError::new("quantile", quantile, fix));
        }
        Ok(Self {
            quantile,
            buckets: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            total: AtomicU32::new(0),
            current: AtomicU64::new(0),
        })
    }

    /// Records a duration, in nanoseconds.
    pub fn record(&self, nanos: u64) {
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        if total >= FULL {
            self.fade(total);
        }
        if total == FEW || total % EVERY == 0 {
            self.compute();
        }
    }

    /// Returns which quantile this is, as given to `new`.
    #[must_use]
    pub fn quantile(&self) -> f64 {
        self.quantile
    }

    /// Returns the quantile in nanoseconds, or `None` before 20 durations were recorded.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        match self.current.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(nanos),
        }
    }

    /// Halves all counts. One thread does it for a full histogram: the one that lowers the total.
    fn fade(&self, total: u32) {
        let halved =
            self.total
                .compare_exchange(total, total / 2, Ordering::Relaxed, Ordering::Relaxed);
        if halved.is_ok() {
            for bucket in &self.buckets {
                // What other threads add meanwhile stays. This always succeeds.
                let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                    Some(count / 2)
                });
            }
        }
    }

    fn compute(&self) {
        let counts: [u64; BUCKETS] =
            std::array::from_fn(|number| u64::from(self.buckets[number].load(Ordering::Relaxed)));
        let total: u64 = counts.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of some thousands"
        )]
        let rank = (self.quantile * total as f64).ceil() as u64;
        let mut below = 0;
        for (number, count) in counts.into_iter().enumerate() {
            below += count;
            if below >= rank.max(1) {
                self.current.store(end(number), Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Returns the bucket of a duration.
fn bucket(nanos: u64) -> usize {
    let exponent = (nanos | 1).ilog2();
    if exponent < FIRST {
        return 0;
    }
    let eighth = nanos >> (exponent - 3) & 7;
    let number = (exponent - FIRST) as usize * 8 + usize::try_from(eighth).unwrap_or(7);
    number.min(BUCKETS - 1)
}

/// Returns the first duration above a bucket.
fn end(number: usize) -> u64 {
    let (doubling, eighth) = (number / 8, number % 8);
    (9 + eighth as u64) << (doubling as u64 + u64::from(FIRST) - 3)
}

/// The exponent of the first doubling: 8 microseconds.
const FIRST: u32 = 13;
const BUCKETS: usize = 24 * 8;
const FULL: u32 = 8192;
const FEW: u32 = 20;
const EVERY: u32 = 64;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_outside_its_range_is_an_error() {
        for quantile in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
            let error = LatencyQuantile::new(quantile).unwrap_err();
            assert_eq!(error.field, "quantile");
        }
    }

    #[test]
    fn any_duration_has_a_bucket() {
        for nanos in [0, 1, 8191, 8192, 1 << 36, u64::MAX] {
            assert!(bucket(nanos) < BUCKETS);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_past_fades() {
        let median = LatencyQuantile::new(0.5).unwrap();
        (0..8000).for_each(|_| median.record(1_000_000));
        (0..9000).for_each(|_| median.record(50_000_000));
        assert!(median.get().unwrap() >= 50_000_000);
    }

    proptest! {
        #[test]
        fn it_is_the_true_one_to_an_eighth(
            quantile in 0.05f64..0.99,
            mut all in prop::collection::vec(8192u64..60_000_000_000, 64..64 * 20),
        ) {
            all.truncate(all.len() / 64 * 64);
            let running = LatencyQuantile::new(quantile).unwrap();
            all.iter().for_each(|nanos| running.record(*nanos));
            all.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let rank = (quantile * all.len() as f64).ceil() as usize;
            let (told, truly) = (running.get().unwrap(), all[rank.max(1) - 1]);
            prop_assert!(told >= truly && told <= truly + truly / 8 + 8, "{} for {}", told, truly);
        }
    }
}
