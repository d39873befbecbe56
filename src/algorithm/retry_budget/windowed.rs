//! A retry budget whose tokens fade.

use std::time::Duration;

use super::{MILLIS, thousandths};
use crate::{
    algorithm::epoch::Epoch,
    config::{ConfigError, nanos_within},
    sync::{AtomicU64, Ordering},
};

/// Tokens for retries, paid in by calls and by time, which fade when they are not used.
///
/// Each call pays in `ratio` of a token, and time pays in `min_per_sec` tokens a second. The
/// content drifts towards the reserve `min_per_sec * ttl`. Tokens above it fade within about `ttl`,
/// and missing ones return within `ttl`. With steady traffic and no retries it holds what the calls
/// of the last `ttl` paid in, as a sliding window would.
///
/// Use it where most clients make few calls, so that successes alone fund too little. Do not use it
/// to protect an upstream that can be overloaded. Calls pay whether they succeed or not, so it
/// keeps paying for retries while everything fails (see the [module](super) and the guide).
///
/// A window of counters would need two steps, to sum and to pay, and between them another thread
/// could pay with the same tokens. Here content and time are one word.
///
/// **Guarantee.** Granted retries never exceed `ratio * calls + min_per_sec * (elapsed + ttl)`,
/// exactly, under any concurrency. A refunded retry does not count. A clock that goes back changes
/// nothing.
///
/// **Cost.** One compare-and-swap a call, on a word that all threads share.
///
/// Its time begins with its first use, whatever `now` is then: callers that share it need only use
/// the same clock.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::algorithm::WindowedBudget;
///
/// let budget = WindowedBudget::new(Duration::from_secs(10), 0.2, 1)?;
/// let now = 0;
/// (0..100).for_each(|_| budget.deposit(now));
/// assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 30); // 10 + 20 % of 100
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct WindowedBudget {
    /// `tick:38 | thousandths of a token:26`. It publishes nothing else, so all accesses are
    /// Relaxed. Ticks of 2^24 ns last 146 years. The content saturates at [`MAX_MILLIS`], which
    /// errs towards fewer retries.
    word: AtomicU64,
    /// The `now` of the first change, from which ticks count.
    start: Epoch,
    per_call: u32,
    /// `min_per_sec * ttl`, in thousandths of a token.
    reserve: u64,
    /// The `ttl`, in ticks.
    ttl: u64,
}

impl WindowedBudget {
    /// Creates a budget that holds `min_per_sec * ttl` tokens. Each call adds `ratio` of a token.
    ///
    /// # Errors
    /// A `ttl` below a second or above an hour. A ratio that is not a number, below 0.001 or above
    /// 1. A reserve `min_per_sec * ttl` above 60 000.
    pub fn new(ttl: Duration, ratio: f64, min_per_sec: u32) -> Result<Self, ConfigError> {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
        let nanos = nanos_within(
            "ttl",
            ttl,
            bounds,
            "use 1 s to 1 h; 10 s suits most clients",
        )?;
        let per_call = thousandths(ratio)?;
        let reserve = u128::from(min_per_sec) * u128::from(nanos) / 1_000_000;
        match u64::try_from(reserve) {
            Ok(reserve) if reserve <= MAX_RESERVE => Ok(Self {
                word: AtomicU64::new(reserve),
                start: Epoch::unset(),
                per_call,
                reserve,
                ttl: nanos >> TICK_BITS,
            }),
            _ => Err(ConfigError::new(
                "min_per_sec",
                min_per_sec,
                "lower it, or `ttl`: `min_per_sec * ttl` is at most 60 000 retries",
            )),
        }
    }

    /// Returns the tokens that it holds without any call, and those that a call adds.
    #[cfg(feature = "layers")]
    #[expect(clippy::cast_precision_loss, reason = "a number for people to read")]
    pub(crate) fn settings(&self) -> [(&'static str, f64); 2] {
        [
            ("budget_reserve", self.reserve as f64 / f64::from(MILLIS)),
            ("budget_ratio", f64::from(self.per_call) / f64::from(MILLIS)),
        ]
    }

    /// Pays in for one call.
    pub fn deposit(&self, now: u64) {
        let pay = u64::from(self.per_call);
        self.change(now, |millis| Some((millis + pay).min(MAX_MILLIS)));
    }

    /// Takes the token of one retry, if there is a whole one.
    #[must_use]
    pub fn withdraw(&self, now: u64) -> bool {
        self.change(now, |millis| millis.checked_sub(u64::from(MILLIS)))
    }

    /// Gives back a token whose retry was never sent.
    pub fn refund(&self, now: u64) {
        self.change(now, |millis| {
            Some((millis + u64::from(MILLIS)).min(MAX_MILLIS))
        });
    }

    /// Returns how many retries are affordable now.
    #[must_use]
    pub fn available(&self, now: u64) -> u32 {
        whole(self.content(now))
    }

    /// Returns how many retries are affordable once a call that starts now has paid in.
    #[must_use]
    pub fn available_to_call(&self, now: u64) -> u32 {
        whole((self.content(now) + u64::from(self.per_call)).min(MAX_MILLIS))
    }

    fn content(&self, now: u64) -> u64 {
        self.at(self.word.load(Ordering::Relaxed), self.start.until(now))
            .1
    }

    fn change(&self, now: u64, new: impl Fn(u64) -> Option<u64>) -> bool {
        // The loser computes again from the winner's content and time, so no token is granted twice
        // and no time is counted twice.
        let now = now.saturating_sub(self.start.begin(now));
        let step = |word| {
            let (tick, millis) = self.at(word, now);
            new(millis).map(|millis| tick << MILLI_BITS | millis)
        };
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .is_ok()
    }

    /// Returns tick and content this long after the first use. Time that goes back counts as none.
    fn at(&self, word: u64, now: u64) -> (u64, u64) {
        let (then, millis) = (word >> MILLI_BITS, word & MAX_MILLIS);
        let tick = (now >> TICK_BITS).clamp(then, u64::MAX >> MILLI_BITS);
        let passed = (tick - then).min(self.ttl);
        // Both terms are rounded down: this loses less than two thousandths a tick.
        let kept = millis * (self.ttl - passed) / self.ttl;
        (tick, kept + self.reserve * passed / self.ttl)
    }
}

fn whole(millis: u64) -> u32 {
    u32::try_from(millis / u64::from(MILLIS)).unwrap_or(u32::MAX)
}

const TICK_BITS: u32 = 24;
const MILLI_BITS: u32 = 26;
const MAX_MILLIS: u64 = (1 << MILLI_BITS) - 1;
const MAX_RESERVE: u64 = 60_000 * MILLIS as u64;

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const TTL: Duration = Duration::from_secs(10);

    fn drain(budget: &WindowedBudget, now: u64) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn eight_threads_get_exactly_a_thousand_tokens() {
        let budget = WindowedBudget::new(TTL, 0.1, 100).unwrap();
        let granted: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| budget.withdraw(0)).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(granted, 1000);
    }

    #[test]
    fn holds_what_the_calls_of_one_window_paid() {
        let budget = WindowedBudget::new(TTL, 0.2, 0).unwrap();
        // 100 calls a second for two minutes: 20 % of a window's 1000 calls.
        for call in 0..12_000 {
            budget.deposit(call * SECOND / 100);
        }
        let held = drain(&budget, 120 * SECOND);
        assert!((190..=200).contains(&held), "{held}");
    }

    #[test]
    fn unused_tokens_fade_and_the_reserve_returns() {
        let budget = WindowedBudget::new(TTL, 1.0, 2).unwrap();
        (0..1000).for_each(|_| budget.deposit(0));
        assert_eq!(budget.available(0), 1020);
        assert!((519..=520).contains(&budget.available(5 * SECOND)));
        assert_eq!(budget.available(11 * SECOND), 20);
        assert_eq!(drain(&budget, 11 * SECOND), 20);
        assert!((9..=10).contains(&budget.available(16 * SECOND)));
        assert_eq!(budget.available(21 * SECOND + SECOND), 20);
    }

    #[test]
    fn is_right_after_a_hundred_years() {
        let budget = WindowedBudget::new(TTL, 0.1, 1).unwrap();
        let century = 100 * 365 * 24 * 3600 * SECOND;
        assert_eq!(drain(&budget, 0), 10);
        assert_eq!(drain(&budget, century), 10);
        assert_eq!(drain(&budget, 0), 0, "a clock that goes back pays nothing");
        assert_eq!(drain(&budget, century + 11 * SECOND), 10);
    }

    #[test]
    fn a_call_may_use_what_it_pays_in() {
        let of_call = |ratio, calls| {
            let budget = WindowedBudget::new(TTL, ratio, 0).unwrap();
            (0..calls).for_each(|_| budget.deposit(0));
            (budget.available(0), budget.available_to_call(0))
        };
        assert_eq!(of_call(1.0, 0), (0, 1));
        assert_eq!(
            [2, 3, 4].map(|calls| of_call(0.3, calls)),
            [(0, 0), (0, 1), (1, 1)]
        );
    }

    #[test]
    fn its_time_begins_with_its_first_use() {
        let contents = |start| {
            let budget = WindowedBudget::new(TTL, 0.3, 0).unwrap();
            let step = |n: u64| {
                let now = start + n * SECOND / 97;
                budget.deposit(now);
                (budget.available(now), budget.available_to_call(now))
            };
            (0..500).map(step).collect::<Vec<_>>()
        };
        // The same holds within a tick: a budget that begins later decides the same.
        for start in [1, SECOND / 3, 3600 * SECOND, u64::MAX / 2] {
            assert_eq!(contents(0), contents(start));
        }
    }

    #[test]
    fn rejects_settings_that_cannot_work() {
        let rejected = |ttl, ratio, min| WindowedBudget::new(ttl, ratio, min).unwrap_err().field;
        for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            assert_eq!(rejected(ttl, 0.1, 1), "ttl");
        }
        for ratio in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(rejected(TTL, ratio, 1), "ratio");
        }
        assert_eq!(rejected(TTL, 0.1, 6001), "min_per_sec");
        assert_eq!(rejected(TTL, 0.1, u32::MAX), "min_per_sec");
    }

    proptest! {
        #[test]
        fn never_grants_more_than_was_paid(
            ratio in 1u32..1000, min in 0u32..10,
            steps in prop::collection::vec((0u8..3, 0u64..3 * SECOND, any::<bool>()), 1..300),
        ) {
            let budget = WindowedBudget::new(TTL, f64::from(ratio) / 1000.0, min).unwrap();
            let (mut now, mut latest, mut calls, mut granted) = (0u64, 0u64, 0u64, 0u64);
            for (step, passed, back) in steps {
                now = if back { now.saturating_sub(passed) } else { now + passed };
                latest = latest.max(now);
                match step {
                    0 => { budget.deposit(now); calls += 1; }
                    1 => granted += u64::from(budget.withdraw(now)),
                    _ => {
                        if budget.withdraw(now) {
                            budget.refund(now);
                        }
                    }
                }
                let paid = calls * u64::from(ratio) / 1000 + u64::from(min) * (latest / SECOND + 11);
                prop_assert!(granted <= paid, "{granted} > {paid}");
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn no_token_is_granted_twice() {
        loom::model(|| {
            let budget = Arc::new(WindowedBudget::new(Duration::from_secs(1), 1.0, 1).unwrap());
            let other = budget.clone();
            let thread = thread::spawn(move || {
                let granted = other.withdraw(0);
                other.deposit(1 << TICK_BITS);
                granted
            });
            let here = usize::from(budget.withdraw(0)) + usize::from(budget.withdraw(0));
            let granted = here + usize::from(thread.join().unwrap());
            // One token at first, one deposit, and a sixtieth of a token for the time.
            let left = usize::try_from(budget.available(1 << TICK_BITS)).unwrap();
            assert!(granted + left <= 2);
            assert!(granted >= 1);
        });
    }
}
