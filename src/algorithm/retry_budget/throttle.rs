//! Retry throttling as in gRPC.

use super::{MILLIS, thousandths};
use crate::{
    config::ConfigError,
    sync::{AtomicU32, Ordering},
};

/// A throttle that grants retries while its tokens are above half. Each failure takes a token out,
/// and each success pays a fraction in (gRFC A6). Starts full.
///
/// Unlike [`RetryBudget`](super::RetryBudget) it stops all retries once a share of about `ratio` of
/// the calls fails, whether or not those failures were retried. Use it to behave as gRPC clients
/// do.
///
/// **Guarantee.** From full, fewer than half of `capacity` retries are granted without a success,
/// exactly, under any concurrency.
///
/// **Cost.** A success on a full throttle: one load. Otherwise one compare-and-swap.
///
/// ```
/// use tower_keep::algorithm::RetryThrottle;
///
/// let throttle = RetryThrottle::new(10, 0.1)?;
/// assert_eq!((0..100).filter(|_| throttle.withdraw()).count(), 4);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct RetryThrottle {
    /// The content in thousandths of a token, at most `capacity`. It publishes nothing else, so all
    /// accesses are Relaxed.
    millis: AtomicU32,
    capacity: u32,
    per_success: u32,
}

impl RetryThrottle {
    /// Creates a full throttle of `capacity` tokens, to which each success adds `ratio` of a token,
    /// rounded down to thousandths.
    ///
    /// # Errors
    /// A capacity below 2 or above 4 million. A ratio that is not a number, below 0.001 or above 1.
    pub fn new(capacity: u32, ratio: f64) -> Result<Self, ConfigError> {
        match capacity.checked_mul(MILLIS) {
            Some(millis) if capacity > 1 => Ok(Self {
                millis: AtomicU32::new(millis),
                capacity: millis,
                per_success: thousandths(ratio)?,
            }),
            _ => Err(ConfigError::new(
                "throttle",
                capacity,
                "use 2 to 4 million tokens; 10 is what gRPC services set",
            )),
        }
    }

    /// Returns its capacity, and how much a success adds.
    #[cfg(feature = "layers")]
    pub(crate) fn settings(&self) -> [(&'static str, f64); 2] {
        let tokens = |millis: u32| f64::from(millis) / f64::from(MILLIS);
        [
            ("budget_tokens", tokens(self.capacity)),
            ("budget_ratio", tokens(self.per_success)),
        ]
    }

    /// Pays in for one success.
    #[inline]
    pub fn deposit(&self) {
        self.change(|millis| millis.saturating_add(self.per_success).min(self.capacity));
    }

    /// Takes a token for a failed attempt, and returns whether the attempt may be retried.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.take() > self.capacity / 2
    }

    /// Takes a token for a failed attempt that is not to be retried. At 0 there is nothing to take.
    pub fn fail(&self) {
        self.take();
    }

    /// Returns whether an attempt may be sent that follows no failure, or one that is counted
    /// already.
    #[must_use]
    pub fn is_above_half(&self) -> bool {
        self.millis.load(Ordering::Relaxed) > self.capacity / 2
    }

    /// Returns how many failures in a row would be retried now.
    #[inline]
    #[must_use]
    pub fn available(&self) -> u32 {
        let above = self
            .millis
            .load(Ordering::Relaxed)
            .saturating_sub(self.capacity / 2);
        above.saturating_sub(1) / MILLIS
    }

    /// Takes a token, and returns the content after it.
    fn take(&self) -> u32 {
        self.change(|millis| millis.saturating_sub(MILLIS))
            .saturating_sub(MILLIS)
    }

    /// Changes the content, and returns what it was before.
    #[inline]
    fn change(&self, new: impl Fn(u32) -> u32) -> u32 {
        // The loser computes again from the winner's content, so nothing is lost. A change that has
        // no effect is a load and no write.
        let changed = |millis| Some(new(millis)).filter(|new| *new != millis);
        let (Ok(before) | Err(before)) =
            self.millis
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
        before
    }
}

impl Default for RetryThrottle {
    /// The proposal of gRPC's documents: 10 tokens, and a tenth of one for each success.
    fn default() -> Self {
        Self {
            millis: AtomicU32::new(10 * MILLIS),
            capacity: 10 * MILLIS,
            per_success: MILLIS / 10,
        }
    }
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retries_only_above_half() {
        let throttle = RetryThrottle::default();
        let granted: Vec<_> = (0..6).map(|_| throttle.withdraw()).collect();
        assert_eq!(granted, [true, true, true, true, false, false]);
        (0..20).for_each(|_| throttle.deposit());
        assert!(!throttle.withdraw(), "4 + 2 - 1 is half");
        (0..11).for_each(|_| throttle.deposit());
        assert!(throttle.withdraw(), "5 + 1.1 - 1 is above half");
    }

    #[test]
    fn eight_threads_get_exactly_a_thousand_retries() {
        let throttle = RetryThrottle::new(2002, 0.1).unwrap();
        let granted: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| throttle.withdraw()).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(granted, 1000);
    }

    #[test]
    fn rejects_settings_that_cannot_work() {
        let rejected = |capacity, ratio| RetryThrottle::new(capacity, ratio).unwrap_err().field;
        assert_eq!(rejected(1, 0.1), "throttle");
        assert_eq!(rejected(u32::MAX, 0.1), "throttle");
        for ratio in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(rejected(10, ratio), "ratio");
        }
    }

    proptest! {
        #[test]
        fn keeps_the_count_of_a_plain_sum(
            capacity in 2u32..20, ratio in 1u32..1000, steps in prop::collection::vec(0u8..3, 1..500),
        ) {
            let throttle = RetryThrottle::new(capacity, f64::from(ratio) / 1000.0).unwrap();
            let mut millis = capacity * 1000;
            for step in steps {
                match step {
                    0 => {
                        millis = millis.saturating_sub(1000);
                        prop_assert_eq!(throttle.withdraw(), 2 * millis > capacity * 1000);
                    }
                    1 => {
                        millis = millis.saturating_sub(1000);
                        throttle.fail();
                    }
                    _ => {
                        millis = (millis + ratio).min(capacity * 1000);
                        throttle.deposit();
                    }
                }
                let mut left = 0;
                while 2 * (millis as i64 - 1000 * (left + 1)) > i64::from(capacity) * 1000 {
                    left += 1;
                }
                prop_assert_eq!(i64::from(throttle.available()), left);
                prop_assert_eq!(throttle.is_above_half(), 2 * millis > capacity * 1000);
            }
        }
    }
}
