//! A client's throttle: sends less to an upstream that rejects much, by chance.
//!
//! An overloaded upstream spends work on rejections too, and a client that continues to send keeps
//! it overloaded. A circuit breaker is the wrong answer to that: open, it rejects calls that the
//! upstream would have accepted, and closed, it sends the whole load again. This throttle rejects a
//! call with the probability
//!
//! ```text
//!   max(0, (requests - K * accepts) / (requests + 1))
//! ```
//!
//! over the last two minutes. Here *requests* are all calls, with those that were rejected here,
//! and *accepts* are those that the upstream accepted. As long as it accepts at least `1 / K` of
//! the calls, nothing is rejected. Past that the upstream sees about `K` times what it accepts:
//! with `K = 2`, one rejection for each call that it accepts. So many clients, each with its own
//! throttle, share the upstream without any coordination.
//!
//! **Not in the formula.** Below [`min_calls`](ThrottleConfig::min_calls) nothing is rejected: the
//! formula alone would reject every second call after one failure. The probability also ends at
//! [`max_rejection`](ThrottleConfig::max_rejection). While nothing is accepted it would grow with
//! the number of calls, until one call is sent in two minutes, and a recovery of the upstream would
//! long go unnoticed.
//!
//! **Cost.** While all calls succeed an admission is one load, and a success one write to a counter
//! of the thread's stripe. A failure, and each call while the probability is not 0, sums the
//! window: some sixty loads, and ten for each stripe.
//!
//! **Accuracy.** The window reaches back between nine and ten tenths of its length. The probability
//! is that of the last call that changed it. Threads that count at once may store an older one
//! last, which the next of them corrects.
//!
//! Origin: Beyer et al., "Site Reliability Engineering", 2016, chapter "Handling Overload".

use std::time::Duration;

use crate::{
    ConfigError,
    algorithm::window::{Class, TimeWindow},
    config::{nanos_within, number_within},
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// A throttle that rejects, by chance, calls that the upstream would probably reject.
#[derive(Debug)]
pub struct Throttle {
    settings: Settings,
    window: TimeWindow,
    /// The generation of the counts. A reset starts a new one. A call that is counted concurrently
    /// with a reset counts before or after it. Release, partner of the Acquire before a call is
    /// counted, publishes the length of a window that starts again.
    generation: AtomicU32,
    /// `tick:32 | probability:32`: the probability in parts of 2^32, and the tenth of the window in
    /// which it was computed. 0 while nothing is rejected. Relaxed: it publishes nothing, and the
    /// next call that is counted makes up for a lost update.
    chance: AtomicU64,
}

/// The fields of [`ThrottleConfig`], except the window. Floating point is stored as bits. Relaxed:
/// a call that races an update may see one new and another old value.
#[derive(Debug)]
struct Settings {
    multiplier: AtomicU64,
    min_calls: AtomicU32,
    max_rejection: AtomicU64,
}

/// Settings of a [`Throttle`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ThrottleConfig {
    /// `K`: the ratio of sent to accepted calls up to which nothing is rejected. Default 2. Closer
    /// to 1 spares the upstream more, and rejects more calls that it would have accepted.
    pub multiplier: f64,
    /// The time for which calls count. Default 2 minutes: bursts of failures are averaged out. A
    /// complete outage takes two or three windows to be forgotten.
    pub window: Duration,
    /// The number of calls in the window below which nothing is rejected. Default 20.
    pub min_calls: u32,
    /// The highest probability of a rejection. Default 0.95: one call in twenty is always sent, and
    /// notices when the upstream has recovered.
    pub max_rejection: f64,
}

/// The calls in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ThrottleCounts {
    /// Calls that the upstream accepted.
    pub accepts: u64,
    /// Calls that the upstream rejected, or that failed.
    pub failures: u64,
    /// Calls that were rejected here.
    pub throttled: u64,
}

impl Throttle {
    /// Creates a throttle that rejects nothing at first. `stripes` is the number of threads that
    /// count successes at once without contention, at 128 bytes each.
    ///
    /// # Errors
    /// `multiplier` is below 1, `max_rejection` is not above 0 and at most 1, or `window` is not
    /// between 100 ms and 1 day.
    pub fn new(config: ThrottleConfig, stripes: usize) -> Result<Self, ConfigError> {
        let window = config.check()?;
        Ok(Self {
            settings: Settings::new(&config),
            window: TimeWindow::new(window, stripes),
            generation: AtomicU32::new(0),
            chance: AtomicU64::new(0),
        })
    }

    /// Changes the settings at once, and keeps the counts, unless the window has another length:
    /// then it starts empty, and nothing is rejected at first. Updates must not run concurrently.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new). Nothing has changed then.
    pub fn update(&self, config: ThrottleConfig, now: u64) -> Result<(), ConfigError> {
        let window = config.check()?;
        self.settings.set(&config);
        if window == self.window.length() {
            self.refresh(now);
        } else {
            self.window.set_length(window);
            self.reset();
        }
        Ok(())
    }

    /// Returns whether nothing is being rejected. A call is then admitted without a random number.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.chance.load(Ordering::Relaxed) == 0
    }

    /// Returns whether the call may be sent, for a `random` number of 32 uniform bits. If not, the
    /// call has been counted. If so, call [`record`](Self::record) afterwards, unless the call ends
    /// without a result from the upstream.
    #[must_use]
    pub fn admit(&self, random: u32, now: u64) -> bool {
        let word = self.chance.load(Ordering::Relaxed);
        if word == 0 {
            return true;
        }
        let chance = if word >> 32 == self.tick(now) {
            word & u64::from(u32::MAX)
        } else {
            // The window has moved since.
            self.refresh(now)
        };
        if u64::from(random) >= chance {
            return true;
        }
        self.count(Class::Abandoned, 0, now);
        self.refresh(now);
        false
    }

    /// Records the result of a call: the upstream accepted it, or did not.
    #[inline]
    pub fn record(&self, accepted: bool, stripe: usize, now: u64) {
        if accepted {
            let stamp = self.window.stamp(self.generation(), now);
            if !self.window.count_success_again(stamp, stripe) {
                self.count(Class::Success, stripe, now);
            }
            if self.is_idle() {
                return;
            }
        } else {
            self.count(Class::Failure, stripe, now);
        }
        self.refresh(now);
    }

    /// Returns the calls in the window.
    #[must_use]
    pub fn counts(&self, now: u64) -> ThrottleCounts {
        let counts = self
            .window
            .counts(self.window.stamp(self.generation(), now));
        ThrottleCounts {
            accepts: counts.successes,
            failures: counts.failures,
            throttled: counts.abandoned,
        }
    }

    /// Returns the probability that a call is rejected now, from 0 to 1.
    #[must_use]
    pub fn probability(&self, now: u64) -> f64 {
        self.settings.probability(self.counts(now))
    }

    /// Forgets all calls.
    pub fn reset(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.chance.store(0, Ordering::Relaxed);
    }

    /// Computes the probability, for the next calls.
    #[cold]
    fn refresh(&self, now: u64) -> u64 {
        let chance = parts(self.probability(now));
        let word = if chance == 0 {
            0
        } else {
            self.tick(now) << 32 | chance
        };
        self.chance.store(word, Ordering::Relaxed);
        chance
    }

    fn count(&self, class: Class, stripe: usize, now: u64) {
        let generation = self.generation();
        let is_current = || self.generation() == generation;
        let stamp = self.window.stamp(generation, now);
        self.window.count(class, stamp, stripe, is_current);
    }

    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the low 32 bits of the tick. With the default window they last 1600 years.
    fn tick(&self, now: u64) -> u64 {
        self.window.tick(now) & u64::from(u32::MAX)
    }
}

impl Settings {
    fn new(config: &ThrottleConfig) -> Self {
        Self {
            multiplier: AtomicU64::new(config.multiplier.to_bits()),
            min_calls: AtomicU32::new(config.min_calls),
            max_rejection: AtomicU64::new(config.max_rejection.to_bits()),
        }
    }

    fn set(&self, config: &ThrottleConfig) {
        let relaxed = Ordering::Relaxed;
        self.multiplier.store(config.multiplier.to_bits(), relaxed);
        self.min_calls.store(config.min_calls, relaxed);
        let max_rejection = config.max_rejection.to_bits();
        self.max_rejection.store(max_rejection, relaxed);
    }

    fn probability(&self, counts: ThrottleCounts) -> f64 {
        let requests = counts.requests();
        if requests < u64::from(self.min_calls.load(Ordering::Relaxed)) {
            return 0.0;
        }
        let of = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let (requests, accepts) = (requests as f64, counts.accepts as f64);
        let probability = (requests - of(&self.multiplier) * accepts) / (requests + 1.0);
        probability.clamp(0.0, of(&self.max_rejection))
    }
}

impl ThrottleConfig {
    /// Checks the settings, and returns the window's length in nanoseconds.
    pub(crate) fn check(&self) -> Result<u64, ConfigError> {
        let fix = "send at least 1 times what is accepted; the usual is 2";
        number_within("multiplier", self.multiplier, |k| k >= 1.0, fix)?;
        let fix = "leave some calls to notice a recovery, such as 0.95 for one in twenty";
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        number_within("max_rejection", self.max_rejection, is_share, fix)?;
        let bounds = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
        let fix = "count over 100 ms to 1 day; the usual is 2 minutes";
        nanos_within("window", self.window, bounds, fix)
    }
}

impl ThrottleCounts {
    /// Returns the number of all calls, with those that were rejected here.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.accepts + self.failures + self.throttled
    }
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            multiplier: 2.0,
            window: Duration::from_secs(120),
            min_calls: 20,
            max_rejection: 0.95,
        }
    }
}

/// Converts a probability to parts of 2^32, rounded down. At 1 all calls are rejected.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 2^32"
)]
fn parts(probability: f64) -> u64 {
    (probability * 4_294_967_296.0) as u64
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn throttle(set: impl FnOnce(&mut ThrottleConfig)) -> Throttle {
        let mut config = ThrottleConfig::default();
        set(&mut config);
        Throttle::new(config, 2).unwrap()
    }

    fn fraction(share: f64) -> u32 {
        u32::try_from(parts(share)).unwrap()
    }

    #[test]
    fn rejects_nothing_while_half_is_accepted() {
        let throttle = throttle(|_| {});
        for n in 0..1000 {
            assert!(throttle.admit(0, n));
            throttle.record(n % 2 == 0, 0, n);
        }
        assert_eq!(throttle.probability(1000), 0.0);
    }

    #[test]
    fn a_few_failures_reject_nothing() {
        let throttle = throttle(|_| {});
        for _ in 0..19 {
            throttle.record(false, 0, 0);
        }
        assert!(throttle.admit(0, 0));
        throttle.record(false, 0, 0);
        assert!(!throttle.admit(0, 0));
    }

    #[test]
    fn rejects_what_is_above_twice_the_accepted() {
        let throttle = throttle(|_| {});
        for n in 0..100 {
            throttle.record(n < 20, 0, 0);
        }
        let expected = (100.0 - 40.0) / 101.0;
        assert!((throttle.probability(0) - expected).abs() < 1e-9);
        let below = fraction(expected);
        assert!(throttle.admit(below + 1, 0));
        assert!(!throttle.admit(below - 1, 0));
        assert_eq!(throttle.counts(0).throttled, 1);
    }

    #[test]
    fn one_in_twenty_is_sent_whatever_happens() {
        let throttle = throttle(|_| {});
        for _ in 0..10_000 {
            throttle.record(false, 0, 0);
        }
        assert!(throttle.admit(fraction(0.951), 0));
        assert!(!throttle.admit(fraction(0.949), 0));
    }

    #[test]
    fn an_update_holds_at_once_and_keeps_the_counts() {
        let throttle = throttle(|_| {});
        for n in 0..100 {
            throttle.record(n < 20, 0, 0);
        }
        let mut config = ThrottleConfig {
            multiplier: 4.0,
            ..ThrottleConfig::default()
        };
        throttle.update(config, 0).unwrap();
        assert!((throttle.probability(0) - 20.0 / 101.0).abs() < 1e-9);
        assert!(throttle.admit(fraction(0.3), 0));
        config.max_rejection = 0.1;
        throttle.update(config, 0).unwrap();
        assert!(throttle.admit(fraction(0.11), 0));
        config.min_calls = 101;
        throttle.update(config, 0).unwrap();
        assert!(throttle.is_idle());
        config.multiplier = 0.5;
        assert_eq!(throttle.update(config, 0).unwrap_err().field, "multiplier");
        assert_eq!(throttle.counts(0).requests(), 100);
    }

    #[test]
    fn another_window_starts_anew() {
        let throttle = throttle(|_| {});
        let fail = |now| (0..100).for_each(|_| throttle.record(false, 0, now));
        fail(50 * SECOND);
        for window in [1, 3600] {
            let config = ThrottleConfig {
                window: Duration::from_secs(window),
                ..ThrottleConfig::default()
            };
            throttle.update(config, 50 * SECOND).unwrap();
            assert_eq!(throttle.counts(50 * SECOND), ThrottleCounts::default());
            assert!(throttle.is_idle());
            fail(50 * SECOND);
            let end = (50 + window) * SECOND;
            assert_eq!(throttle.counts(end - window * SECOND / 5).failures, 100);
            assert_eq!(throttle.counts(end).failures, 0);
        }
    }

    #[test]
    fn what_is_two_minutes_old_counts_no_more() {
        let throttle = throttle(|_| {});
        for _ in 0..100 {
            throttle.record(false, 0, 0);
        }
        assert!(!throttle.admit(0, 119 * SECOND - 1));
        assert!(throttle.probability(120 * SECOND) < 0.9);
        // Only the call that was rejected is left.
        assert!(throttle.admit(0, 120 * SECOND));
        assert!(throttle.is_idle());
    }

    #[test]
    fn a_reset_forgets() {
        let throttle = throttle(|_| {});
        for _ in 0..100 {
            throttle.record(false, 0, 0);
        }
        throttle.reset();
        assert!(throttle.is_idle());
        assert_eq!(throttle.counts(0), ThrottleCounts::default());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let field = |set: fn(&mut ThrottleConfig)| {
            let mut config = ThrottleConfig::default();
            set(&mut config);
            Throttle::new(config, 1).unwrap_err().field
        };
        assert_eq!(field(|config| config.multiplier = 0.5), "multiplier");
        assert_eq!(field(|config| config.multiplier = f64::NAN), "multiplier");
        assert_eq!(field(|config| config.max_rejection = 1.1), "max_rejection");
        assert_eq!(field(|config| config.window = Duration::MAX), "window");
        // The first and the last value that the message names.
        let takes = |millis| {
            let window = Duration::from_millis(millis);
            let config = ThrottleConfig {
                window,
                ..ThrottleConfig::default()
            };
            Throttle::new(config, 1).is_ok()
        };
        assert!(takes(100) && takes(86_400_000));
        assert!(!takes(99) && !takes(86_400_001));
    }

    proptest! {
        /// Compares with the formula on a list of all calls.
        #[test]
        fn is_the_formula_over_the_window(
            calls in prop::collection::vec((0u8..4, any::<u32>(), 0u64..3), 1..400),
            multiplier in 1.0f64..3.0,
        ) {
            let config = ThrottleConfig { multiplier, ..ThrottleConfig::default() };
            let throttle = Throttle::new(config, 2).unwrap();
            let (mut now, mut list) = (0u64, Vec::<(u64, u8)>::new());
            for (kind, random, step) in calls {
                now += step * 4 * SECOND;
                list.retain(|(at, _)| at / (12 * SECOND) + 10 > now / (12 * SECOND));
                let count = |kind| list.iter().filter(|call| call.1 == kind).count() as f64;
                let requests = list.len() as f64;
                let raw = (requests - multiplier * count(0)) / (requests + 1.0);
                let expected = if list.len() < 20 { 0.0 } else { raw.clamp(0.0, 0.95) };
                prop_assert!((throttle.probability(now) - expected).abs() < 1e-9);
                let idle = throttle.is_idle();
                let admitted = throttle.admit(random, now);
                let chance = parts(expected);
                // An idle throttle reads the window only at the next failure.
                prop_assert_eq!(admitted, idle || u64::from(random) >= chance);
                if !admitted {
                    list.push((now, 2));
                } else if kind < 2 {
                    throttle.record(kind == 0, usize::from(kind), now);
                    list.push((now, kind));
                }
            }
        }
    }
}

#[cfg(all(test, keep_loom))]
mod loom_model {
    use loom::{sync::Arc, thread};

    use super::*;

    fn throttle() -> Arc<Throttle> {
        let config = ThrottleConfig {
            min_calls: 2,
            ..ThrottleConfig::default()
        };
        Arc::new(Throttle::new(config, 1).unwrap())
    }

    /// Returns whether the stored probability is the right one.
    fn settled(throttle: &Throttle) -> bool {
        throttle.chance.load(Ordering::Relaxed) as u32 == parts(throttle.probability(0)) as u32
    }

    #[test]
    fn no_call_is_lost_and_the_next_corrects_the_chance() {
        loom::model(|| {
            let throttle = throttle();
            throttle.record(false, 0, 0);
            let other = throttle.clone();
            let thread = thread::spawn(move || other.record(false, 0, 0));
            throttle.record(true, 0, 0);
            thread.join().unwrap();
            let counts = throttle.counts(0);
            assert_eq!((counts.accepts, counts.failures), (1, 2));
            throttle.record(false, 0, 0);
            assert!(settled(&throttle));
        });
    }

    #[test]
    fn a_chance_that_outlives_a_reset_rejects_one_call() {
        loom::model(|| {
            let throttle = throttle();
            throttle.record(false, 0, 0);
            let other = throttle.clone();
            let thread = thread::spawn(move || other.record(false, 0, 0));
            throttle.reset();
            thread.join().unwrap();
            assert!(throttle.counts(0).failures <= 1);
            if !throttle.admit(0, 0) {
                assert_eq!(throttle.counts(0).throttled, 1);
                assert!(settled(&throttle));
            }
        });
    }
}
