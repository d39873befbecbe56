//! Retry budget: how many retries the successes have paid for.
//!
//! Retries multiply load just when an upstream can least bear it: with three attempts at each of
//! three tiers, one failing request becomes 27. A budget bounds the amplification of the whole
//! client: each success pays a fraction of a token in, each retry takes a whole token out. While
//! most calls succeed the bucket is full, and a short failure is retried at once. When nothing
//! succeeds, the retries stop after the bucket's content, however many calls fail.
//!
//! A budget funded by *calls* (or by time) keeps paying for retries while everything fails, and so
//! can keep an upstream overloaded. A budget funded by successes cannot (Bronson et al.,
//! *Metastable Failures in Distributed Systems*, HotOS 2021). Related: gRPC retry throttling (gRFC
//! A6), the retry quota of the AWS SDKs.
//!
//! | budget | paid in by | a retry takes | keeps tokens |
//! |---|---|---|---|
//! | [`RetryBudget`], the default | successes | a token | up to its capacity, without a time limit |
//! | [`WindowedBudget`] | calls, and time | a token | for its `ttl` |
//! | [`RetryThrottle`] | successes | a token, as does each failure. Granted above half only | up to its capacity |
//!
//! [`Budget`] is any of the three. **Guarantee** of all: one atomic step decides and pays, so the
//! bound of each holds exactly under any concurrency. For [`RetryBudget`]: granted retries never
//! exceed `capacity + ratio * successes`, and a refunded retry does not count. **Cost** of a
//! [`RetryBudget`]: one load for a success on a full budget, otherwise one compare-and-swap.

use crate::{
    config::ConfigError,
    sync::{AtomicU32, AtomicU64, Ordering},
};

mod any;
mod throttle;
mod windowed;

pub use any::Budget;
pub use throttle::RetryThrottle;
pub use windowed::WindowedBudget;

/// Tokens for retries, paid in by successes. Starts full.
///
/// ```
/// use tower_keep::algorithm::RetryBudget;
///
/// let budget = RetryBudget::new(10, 0.1)?;
/// assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
/// (0..20).for_each(|_| budget.deposit());
/// assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 2);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct RetryBudget {
    /// The content in thousandths of a token, at most `capacity`. It publishes nothing else, so all
    /// accesses are Relaxed.
    millis: AtomicU32,
    capacity: u32,
    per_success: u32,
    /// The time at which [`expire`](Self::expire) last checked the traffic, in nanoseconds.
    /// Relaxed: it only elects one caller.
    looked: AtomicU64,
    /// The successes at that check. Relaxed: only the elected caller writes it, at most once a
    /// window.
    seen: AtomicU64,
}

impl RetryBudget {
    /// Creates a full budget of `capacity` retries, to which each success adds `ratio` of a token,
    /// rounded down to thousandths.
    ///
    /// # Errors
    /// A capacity of 0 or above 4 million. A ratio that is not a number, below 0.001 or above 1.
    pub fn new(capacity: u32, ratio: f64) -> Result<Self, ConfigError> {
        let millis = match capacity.checked_mul(MILLIS) {
            Some(millis) if millis > 0 => millis,
            _ => {
                return Err(ConfigError::new(
                    "budget",
                    capacity,
                    "use 1 to 4 million retries; 10 suits most clients",
                ));
            }
        };
        Ok(Self::full(millis, thousandths(ratio)?))
    }

    /// The default of a list of backends, [`Spill`](crate::fallback::Spill): a thousand calls, and
    /// one more for each success.
    #[cfg(feature = "layers")]
    pub(crate) fn of_backends() -> Self {
        Self::full(1000 * MILLIS, MILLIS)
    }

    fn full(capacity: u32, per_success: u32) -> Self {
        Self {
            millis: AtomicU32::new(capacity),
            capacity,
            per_success,
            looked: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        }
    }

    /// Takes the token of one retry, if there is a whole one.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.change(|millis| millis.checked_sub(MILLIS))
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
        self.pay(self.per_success);
    }

    /// Gives back a token whose retry was never sent.
    pub fn refund(&self) {
        self.pay(MILLIS);
    }

    /// Removes the tokens beyond what the traffic pays in within ten seconds, but keeps at least
    /// one. A client that calls rarely earned its tokens minutes ago. A fleet of such clients would
    /// spend them all in one outage. Call it before a withdrawal, with the total number of
    /// `successes` so far, and `now` in nanoseconds.
    ///
    /// The traffic is the mean since the last check, at least ten seconds ago. In the first ten
    /// seconds nothing expires. Of several callers one checks. Another that withdraws meanwhile may
    /// still get an old token.
    pub fn expire(&self, successes: u64, now: u64) {
        let looked = self.looked.load(Ordering::Relaxed);
        let elapsed = now.saturating_sub(looked);
        if elapsed < WINDOW {
            return;
        }
        // The loser leaves it to the winner.
        let (new, relaxed) = (now, Ordering::Relaxed);
        let won = self.looked.compare_exchange(looked, new, relaxed, relaxed);
        if won.is_err() {
            return;
        }
        let recent = successes.saturating_sub(self.seen.swap(successes, Ordering::Relaxed));
        let paid = u128::from(recent) * u128::from(self.per_success) * u128::from(WINDOW);
        // Saturates high: busy clients keep their tokens.
        let most = u32::try_from(paid / u128::from(elapsed)).unwrap_or(u32::MAX);
        let most = most.max(MILLIS);
        self.change(|millis| (millis > most).then_some(most));
    }

    /// Returns how many retries are affordable now.
    #[inline]
    #[must_use]
    pub fn available(&self) -> u32 {
        self.millis.load(Ordering::Relaxed) / MILLIS
    }

    #[inline]
    fn pay(&self, millis: u32) {
        // A full budget is left alone: a load, no write. A `fetch_add` could exceed the capacity.
        self.change(|current| {
            let new = current.saturating_add(millis).min(self.capacity);
            (new != current).then_some(new)
        });
    }

    #[inline]
    fn change(&self, new: impl Fn(u32) -> Option<u32>) -> bool {
        // The loser computes again from the winner's content, so no deposit and no withdrawal is
        // lost.
        self.millis
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, new)
            .is_ok()
    }
}

impl Default for RetryBudget {
    /// Ten retries, and one more for each ten successes: a short failure is retried at once, and
    /// load never grows by more than a tenth for long.
    fn default() -> Self {
        Self::full(10 * MILLIS, MILLIS / 10)
    }
}

/// Converts the share that one success or one call pays in to thousandths of a token.
fn thousandths(ratio: f64) -> Result<u32, ConfigError> {
    if !(0.001..=1.0).contains(&ratio) {
        return Err(ConfigError::new(
            "ratio",
            ratio,
            "pay in 0.001 to 1 retry at a time; 0.1 adds at most 10 % load",
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most a thousand"
    )]
    let millis = (ratio * f64::from(MILLIS) + ROUNDING) as u32;
    Ok(millis)
}

const MILLIS: u32 = 1000;
/// The traffic for which tokens are kept: as long as most failures that a retry helps against.
const WINDOW: u64 = 10_000_000_000;
/// A ratio is rounded down to thousandths, or the guarantee would not hold. This corrects ratios
/// that floating point puts just below a whole thousandth.
const ROUNDING: f64 = 1e-6;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn eight_threads_get_exactly_a_thousand_tokens() {
        let budget = RetryBudget::new(1000, 0.1).unwrap();
        let granted: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| budget.withdraw()).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(granted, 1000);
    }

    #[test]
    fn a_client_that_calls_rarely_keeps_one_old_token() {
        let after = |successes, seconds: u64| {
            let budget = RetryBudget::default();
            budget.expire(successes, seconds * 1_000_000_000);
            budget.available()
        };
        assert_eq!(after(0, 9), 10, "nothing expires at the start");
        assert_eq!(after(0, 10), 1);
        assert_eq!(after(100, 100), 1);
        assert_eq!(after(400, 100), 4);
        assert_eq!(after(100_000, 100), 10);
        assert_eq!(after(u64::MAX, 10), 10);
    }

    #[test]
    fn the_traffic_is_that_since_the_last_look() {
        let budget = RetryBudget::default();
        budget.expire(10_000, 100_000_000_000);
        assert_eq!(budget.available(), 10);
        budget.expire(10_000, 105_000_000_000);
        assert_eq!(budget.available(), 10, "too early");
        budget.expire(10_030, 110_000_000_000);
        assert_eq!(budget.available(), 3);
        budget.expire(0, 0);
        assert_eq!(
            budget.available(),
            3,
            "a clock that went back changes nothing"
        );
    }

    #[test]
    fn refuses_settings_that_cannot_work() {
        let refused = |capacity, ratio| RetryBudget::new(capacity, ratio).unwrap_err().field;
        assert_eq!(refused(0, 0.1), "budget");
        assert_eq!(refused(u32::MAX, 0.1), "budget");
        for ratio in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(10, ratio), "ratio");
        }
    }

    #[test]
    fn a_ratio_is_never_rounded_up() {
        for (ratio, granted) in [(0.0015, 10), (0.29, 2900), (0.1, 1000), (1.0, 10_000)] {
            let budget = RetryBudget::new(4_000_000, ratio).unwrap();
            let spent = (0..20_000).filter(|_| budget.withdraw()).count();
            (0..10_000).for_each(|_| budget.deposit());
            let paid = budget.available() as usize + spent - 4_000_000;
            assert_eq!(paid, granted, "{ratio}");
        }
    }

    proptest! {
        #[test]
        fn keeps_the_books_of_a_plain_sum(capacity in 1u32..20, ratio in 1u32..1000, steps in prop::collection::vec(0u8..3, 1..500)) {
            let budget = RetryBudget::new(capacity, f64::from(ratio) / 1000.0).unwrap();
            let mut millis = capacity * 1000;
            for step in steps {
                match step {
                    0 => {
                        let affordable = millis >= 1000;
                        prop_assert_eq!(budget.withdraw(), affordable);
                        millis -= u32::from(affordable) * 1000;
                    }
                    1 => { budget.deposit(); millis = (millis + ratio).min(capacity * 1000); }
                    _ => { budget.refund(); millis = (millis + 1000).min(capacity * 1000); }
                }
                prop_assert_eq!(budget.available(), millis / 1000);
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn no_deposit_is_lost_and_no_token_granted_twice() {
        loom::model(|| {
            let budget = Arc::new(RetryBudget::new(1, 1.0).unwrap());
            let other = budget.clone();
            let thread = thread::spawn(move || {
                let granted = other.withdraw();
                other.deposit();
                granted
            });
            let here = usize::from(budget.withdraw()) + usize::from(budget.withdraw());
            let granted = here + usize::from(thread.join().unwrap());
            // One token at first, and one deposit, which counts unless the bucket was full at that
            // moment.
            assert!(granted + budget.available() as usize <= 2);
            assert!(granted >= 1);
        });
    }
}
