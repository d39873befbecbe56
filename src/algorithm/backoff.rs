//! Backoff: the delay before the next attempt, never in step with others.
//!
//! `delay = min(base * 2^attempt + jitter, max)`. Taken literally, the jitter is lost once the
//! exponential passes `max`. Every client then waits exactly `max`, and a fleet that failed
//! together retries together, over and over. So the exponential is capped at `max - range` first,
//! and the jitter is added to that. The result equals the formula below the cap, is never above
//! `max`, and always has jitter.
//!
//! The default range is the exponential itself. A fixed range of `base` hardly spreads a crowd, but
//! a range that grows with the delay does. Source: Brooker, *Exponential Backoff And Jitter* (AWS
//! Architecture Blog, 2015), which also names full, equal and decorrelated jitter.

use std::{fmt, time::Duration};

use crate::config::ConfigError;

/// The delays of a retry. Pure: the random number is an argument, so a schedule can be reproduced.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::algorithm::{Backoff, Jitter};
///
/// let base = Duration::from_millis(100);
/// let backoff = Backoff::new(base, Duration::from_secs(1), Jitter::Additive(base))?;
/// let random = u64::MAX / 2;
/// assert_eq!(backoff.delay(0, base, random).as_millis(), 149); // 100 * 2^0 + half of 100
/// assert_eq!(backoff.delay(9, base, random).as_millis(), 949); // capped at 900 first
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
/// Other shapes:
///
/// ```
/// use std::time::Duration;
/// use tower_keep::algorithm::{Backoff, Jitter};
///
/// let second = Duration::from_secs(1);
/// let at_once = Backoff::none();
/// let each_second = Backoff::constant(second);
/// let about_each_second = Backoff::new(second, 2 * second, Jitter::PlusMinus(0.2))?.factor(1.0)?;
/// let half_as_steep = Backoff::default().factor(1.5)?;
/// assert_eq!(half_as_steep.without_jitter(2), Duration::from_millis(225));
/// # let (_, _, _) = (at_once, each_second, about_each_second);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct Backoff {
    base: u64,
    max: u64,
    jitter: Jitter,
    factor: f64,
}

/// The spread of a delay. In the formulas `e` is `min(base * factor^attempt, max)`, with a factor
/// of 2 unless it was [set](Backoff::factor), and `U(a, b)` is uniform.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Jitter {
    /// `U(e, 2e)`, with `e` capped at `max / 2`. The default: at least the formula's delay, and as
    /// spread as it is long.
    #[default]
    Exponential,
    /// `U(e, e + range)`, with `e` capped at `max - range`.
    Additive(Duration),
    /// `U(0, e)`: the least load on the upstream for the same time to finish. A delay may be close
    /// to 0.
    Full,
    /// `U(e / 2, e)`.
    Equal,
    /// `min(max, U(base, 3 * previous delay))`.
    Decorrelated,
    /// `U(e - share * e, e + share * e)`, with `e` capped so that the sum stays within `max`.
    /// `share` is above 0 and at most 1.
    PlusMinus(f64),
    /// `e`: the same for all. Clients that failed together retry together, so use it for one
    /// client, in tests, and for waits that something else spreads.
    None,
}

impl Backoff {
    /// Creates a backoff with a factor of 2. A base of 0 is no wait, unless the jitter is
    /// [additive](Jitter::Additive). Delays are capped at 584 years.
    ///
    /// # Errors
    /// `base` is above `max`, or leaves its jitter nothing up to `max`. A jitter range is 0 or
    /// above `max - base`. A share is not a number above 0 and up to 1.
    pub fn new(base: Duration, max: Duration, jitter: Jitter) -> Result<Self, ConfigError> {
        if base > max {
            return Err(ConfigError::new("max", max, "raise it to `base` or more"));
        }
        let refused = |field, value: &dyn fmt::Debug, fix| Err(ConfigError::new(field, value, fix));
        match jitter {
            Jitter::Additive(range) if range.is_zero() || range > max - base => refused(
                "jitter",
                &jitter,
                "use a range above 0 that fits between `base` and `max`",
            ),
            Jitter::PlusMinus(share) if !(share > 0.0 && share <= 1.0) => {
                refused("jitter", &jitter, "use a share above 0 and at most 1")
            }
            Jitter::Decorrelated | Jitter::Exponential if base >= max && !base.is_zero() => {
                refused(
                    "max",
                    &max,
                    "raise it above `base`, or nothing is left to jitter",
                )
            }
            _ => Ok(Self {
                base: saturating_nanos(base),
                max: saturating_nanos(max),
                jitter,
                factor: 2.0,
            }),
        }
    }

    /// Creates a backoff without waits. An upstream that fails gets all attempts at once, so bound
    /// them by a budget.
    #[must_use]
    pub fn none() -> Self {
        Self::constant(Duration::ZERO)
    }

    /// Creates a backoff with the same wait each time, without jitter.
    #[must_use]
    pub fn constant(delay: Duration) -> Self {
        let delay = saturating_nanos(delay);
        Self {
            base: delay,
            max: delay,
            jitter: Jitter::None,
            factor: 1.0,
        }
    }

    /// Sets the factor by which each delay exceeds the one before, up to `max`. Default 2. With 1
    /// all delays are equal. [Decorrelated](Jitter::Decorrelated) jitter ignores it.
    ///
    /// # Errors
    /// The factor is less than 1, infinite, or not a number.
    pub fn factor(mut self, factor: f64) -> Result<Self, ConfigError> {
        if !(factor >= 1.0 && factor.is_finite()) {
            let fix = "use 1 for the same wait each time, or more; 2 is the default";
            return Err(ConfigError::new("factor", factor, fix));
        }
        self.factor = factor;
        Ok(self)
    }

    /// Returns the delay before retry number `attempt`, counted from 0. It is never above `max`.
    /// `previous` is the last delay, or `base` at first, and only decorrelated jitter uses it.
    /// `random` is a uniform number.
    #[must_use]
    pub fn delay(&self, attempt: u32, previous: Duration, random: u64) -> Duration {
        let exponential = saturating_nanos(self.without_jitter(attempt));
        let nanos = match self.jitter {
            Jitter::Exponential => {
                let exponential = exponential.min(self.max / 2);
                exponential + share_of(exponential, random)
            }
            Jitter::Additive(range) => {
                let range = saturating_nanos(range);
                exponential.min(self.max - range) + share_of(range, random)
            }
            Jitter::Full => share_of(exponential, random),
            Jitter::Equal => exponential - exponential / 2 + share_of(exponential / 2, random),
            Jitter::Decorrelated => {
                let most = saturating_nanos(previous)
                    .saturating_mul(3)
                    .clamp(self.base, self.max);
                self.base + share_of(most - self.base, random)
            }
            Jitter::PlusMinus(share) => {
                let center = exponential.min(fraction(self.max, 1.0 / (1.0 + share)));
                let range = fraction(center, share);
                (center - range)
                    .saturating_add(share_of(range.saturating_mul(2), random))
                    .min(self.max)
            }
            Jitter::None => exponential,
        };
        Duration::from_nanos(nanos)
    }

    /// Returns the delay before retry number `attempt`, counted from 0, if there were no jitter. It
    /// is `base`, times the [factor](Self::factor) for each attempt, and never above `max`.
    #[must_use]
    pub fn without_jitter(&self, attempt: u32) -> Duration {
        let nanos = if self.base == 0 || self.factor <= 1.0 {
            self.base
        } else if self.factor == 2.0 {
            1u64.checked_shl(attempt)
                .map_or(u64::MAX, |factor| self.base.saturating_mul(factor))
        } else {
            times(self.base, self.factor, attempt)
        };
        Duration::from_nanos(nanos.min(self.max))
    }

    /// Returns the first delay before jitter.
    #[must_use]
    pub fn base(&self) -> Duration {
        Duration::from_nanos(self.base)
    }

    /// Returns the longest delay.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns the growth that [`factor`](Self::factor) set.
    #[must_use]
    pub fn growth(&self) -> f64 {
        self.factor
    }

    /// Returns the jitter.
    #[must_use]
    pub fn jitter(&self) -> Jitter {
        self.jitter
    }

    /// Returns the width of the range from which the delay of `attempt` is drawn.
    #[must_use]
    pub fn range(&self, attempt: u32) -> Duration {
        let (shortest, longest) = (
            self.delay(attempt, self.base(), 0),
            self.delay(attempt, self.base(), u64::MAX),
        );
        longest.saturating_sub(shortest)
    }

    /// Returns the delay if the upstream has said when to come back: `max(backoff, hint + spread)`.
    ///
    /// Clients that got the same hint would come back in step, so a random part of a range is added
    /// to it. The range is that of the backoff, or a tenth of the hint if that is more. A backoff
    /// that is later anyway is spread already, and stays within `max`. With [no
    /// jitter](Jitter::None) nothing is added.
    #[must_use]
    pub fn after_hint(
        &self,
        attempt: u32,
        backoff: Duration,
        hint: Duration,
        random: u64,
    ) -> Duration {
        if self.jitter == Jitter::None {
            return backoff.max(hint);
        }
        let range = saturating_nanos(self.range(attempt).max(hint / 10));
        let spread = Duration::from_nanos(share_of(range, random));
        backoff.max(hint.saturating_add(spread))
    }
}

/// Shows the settings, and the factor if it is not 2.
impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, max) = (self.base(), self.max());
        let Self { jitter, factor, .. } = self;
        write!(f, "{{ base: {base:?}, max: {max:?}, jitter: {jitter:?}")?;
        if *factor != 2.0 {
            write!(f, ", factor: {factor:?}")?;
        }
        f.write_str(" }")
    }
}

impl Default for Backoff {
    /// Returns delays from 100 ms, a little above a round trip, to 10 s, as long as a user waits,
    /// with exponential jitter.
    fn default() -> Self {
        Self {
            base: 100_000_000,
            max: 10_000_000_000,
            jitter: Jitter::Exponential,
            factor: 2.0,
        }
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns `range * random / 2^64`, which is uniform in `0..range`, without a division.
pub(super) fn share_of(range: u64, random: u64) -> u64 {
    ((u128::from(range) * u128::from(random)) >> 64) as u64
}

/// Returns `base * factor^attempt`, off by rounding only, and saturating.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a cast to an integer saturates, and the factor is at least 1"
)]
fn times(base: u64, factor: f64, attempt: u32) -> u64 {
    let attempt = i32::try_from(attempt).unwrap_or(i32::MAX);
    (base as f64 * factor.powi(attempt)) as u64
}

/// Returns `whole * part`, for a part from 0 to 1, off by rounding only.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "part is at most 1"
)]
fn fraction(whole: u64, part: f64) -> u64 {
    ((whole as f64 * part) as u64).min(whole)
}

#[cfg(all(test, not(keep_loom)))]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    /// Returns a sequence that is uniform enough, and the same in each run.
    fn randoms() -> impl Iterator<Item = u64> {
        (1..=1000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    #[test]
    fn delays_follow_the_formula_and_keep_jitter_at_max() {
        let backoff = Backoff::new(BASE, MAX, Jitter::Additive(BASE)).unwrap();
        let delays =
            |attempt| randoms().map(move |random| backoff.delay(attempt, BASE, random).as_millis());
        assert!(delays(0).all(|delay| (100..=200).contains(&delay)));
        assert!(delays(3).all(|delay| (800..=900).contains(&delay)));
        assert!(delays(10).all(|delay| (900..=1000).contains(&delay)));
        let exact: HashSet<_> = randoms()
            .map(|random| backoff.delay(10, BASE, random))
            .collect();
        assert_eq!(exact.len(), 1000);
    }

    #[test]
    fn the_largest_settings_saturate() {
        let shares = [0.25, 0.625, 0.95, 1.0].map(Jitter::PlusMinus);
        for jitter in [
            Jitter::Exponential,
            Jitter::Full,
            Jitter::Equal,
            Jitter::Decorrelated,
        ]
        .into_iter()
        .chain(shares)
        {
            for base in [BASE, Duration::from_nanos(1 << 63)] {
                let backoff = Backoff::new(base, Duration::MAX, jitter).unwrap();
                for attempt in (0..80).chain([u32::MAX]) {
                    let _ = backoff.delay(attempt, Duration::MAX, u64::MAX);
                }
            }
        }
    }

    #[test]
    fn refuses_settings_that_cannot_work() {
        let refused = |base, max, jitter| Backoff::new(base, max, jitter).unwrap_err().field;
        assert_eq!(refused(MAX, BASE, Jitter::Full), "max");
        assert_eq!(refused(BASE, BASE, Jitter::Exponential), "max");
        assert_eq!(refused(BASE, MAX, Jitter::Additive(MAX)), "jitter");
        assert_eq!(
            refused(BASE, MAX, Jitter::Additive(Duration::ZERO)),
            "jitter"
        );
        for share in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(refused(BASE, MAX, Jitter::PlusMinus(share)), "jitter");
        }
    }

    #[test]
    fn a_base_of_zero_is_no_wait() {
        for jitter in [
            Jitter::Exponential,
            Jitter::Full,
            Jitter::Equal,
            Jitter::Decorrelated,
            Jitter::PlusMinus(0.5),
            Jitter::None,
        ] {
            for max in [Duration::ZERO, MAX] {
                let backoff = Backoff::new(Duration::ZERO, max, jitter).unwrap();
                let delay = |attempt| backoff.delay(attempt, backoff.base(), u64::MAX);
                assert!(
                    (0..80).all(|attempt| delay(attempt).is_zero()),
                    "{jitter:?}"
                );
            }
        }
        let spread = Backoff::new(Duration::ZERO, MAX, Jitter::Additive(BASE)).unwrap();
        assert_eq!(
            spread.delay(9, Duration::ZERO, u64::MAX / 2),
            BASE / 2 - Duration::from_nanos(1)
        );
        assert_eq!(Backoff::none().delay(9, BASE, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_constant_backoff_has_no_jitter() {
        let backoff = Backoff::constant(BASE);
        for attempt in [0, 1, 63, 64, u32::MAX] {
            assert!(randoms().all(|random| backoff.delay(attempt, BASE, random) == BASE));
        }
        assert_eq!(backoff.after_hint(0, BASE, MAX, 7), MAX);
        let longest = Backoff::constant(Duration::MAX).delay(3, MAX, 7);
        assert_eq!(longest, Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_factor_sets_how_steep_it_is() {
        let backoff = Backoff::new(BASE, MAX, Jitter::None).unwrap();
        let delays = |factor| {
            let backoff = backoff.factor(factor).unwrap();
            [0, 1, 2, 80, u32::MAX].map(|attempt| backoff.delay(attempt, BASE, 0).as_millis())
        };
        assert_eq!(delays(1.0), [100; 5]);
        assert_eq!(delays(1.5), [100, 150, 225, 1000, 1000]);
        assert_eq!(delays(2.0), [100, 200, 400, 1000, 1000]);
        assert_eq!(delays(3.0), [100, 300, 900, 1000, 1000]);
        assert_eq!(delays(f64::MAX), [100, 1000, 1000, 1000, 1000]);
        for factor in [0.0, 0.9, -2.0, f64::NAN, f64::INFINITY] {
            assert_eq!(backoff.factor(factor).unwrap_err().field, "factor");
        }
        let shown = format!("{:?}", backoff.factor(3.0).unwrap());
        assert_eq!(shown, "{ base: 100ms, max: 1s, jitter: None, factor: 3.0 }");
    }

    #[test]
    fn a_hint_never_lengthens_a_later_backoff() {
        let backoff = Backoff::default();
        let wait = |hint, random| backoff.after_hint(20, backoff.max(), hint, random);
        assert_eq!(wait(Duration::ZERO, 0), backoff.max());
        assert_eq!(wait(Duration::ZERO, u64::MAX), backoff.max());
        assert_eq!(wait(backoff.max() / 2, u64::MAX), backoff.max());
        assert_eq!(wait(Duration::MAX, u64::MAX), Duration::MAX);
    }

    #[test]
    fn clients_told_the_same_time_come_back_spread() {
        let (backoff, hint) = (Backoff::default(), 2 * MAX);
        let waits = randoms().map(|random| {
            let own = backoff.delay(0, BASE, random.rotate_left(32));
            backoff.after_hint(0, own, hint, random)
        });
        let mut waits: Vec<_> = waits.collect();
        waits.sort_unstable();
        assert!(waits[0] >= hint && waits[999] < hint + hint / 10);
        assert!(waits[990] - waits[10] > hint / 11, "a tenth of the hint");
    }

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::Exponential),
            Just(Jitter::Full),
            Just(Jitter::Equal),
            Just(Jitter::Decorrelated),
            Just(Jitter::None),
            (1u64..1000).prop_map(|millis| Jitter::Additive(Duration::from_millis(millis))),
            (0.01..1.0).prop_map(Jitter::PlusMinus),
        ]
    }

    proptest! {
        #[test]
        fn lies_between_the_bounds_of_its_formula(
            base in 1u64..1000, more in 1000u64..100_000, attempt in 0u32..80, random: u64, jitter in any_jitter(), previous in 0u64..200_000,
            factor in prop_oneof![Just(2.0), 1.0..4.0f64],
        ) {
            let (base, max) = (base as f64 / 1e3, (base + more) as f64 / 1e3);
            let seconds = Duration::from_secs_f64;
            let backoff = Backoff::new(seconds(base), seconds(max), jitter).unwrap().factor(factor).unwrap();
            let previous = previous as f64 / 1e3;
            let exponential = (base * factor.powi(attempt as i32)).min(max);
            let (least, most) = match jitter {
                Jitter::Exponential => (exponential.min(max / 2.0), (2.0 * exponential).min(max)),
                Jitter::Additive(range) => {
                    let capped = exponential.min(max - range.as_secs_f64());
                    (capped, capped + range.as_secs_f64())
                }
                Jitter::Full => (0.0, exponential),
                Jitter::Equal => (exponential / 2.0, exponential),
                Jitter::Decorrelated => (base, (3.0 * previous).clamp(base, max)),
                Jitter::PlusMinus(share) => {
                    let center = exponential.min(max / (1.0 + share));
                    (center * (1.0 - share), center * (1.0 + share))
                }
                Jitter::None => (exponential, exponential),
            };
            let delay = backoff.delay(attempt, seconds(previous), random);
            prop_assert!(delay <= seconds(max));
            let hinted = backoff.after_hint(attempt, delay, Duration::ZERO, random);
            prop_assert!((delay..=seconds(max)).contains(&hinted));
            let rounding = 1e-6;
            prop_assert!((least - rounding..=most + rounding).contains(&delay.as_secs_f64()), "{delay:?} is not in {least}..{most}");
        }
    }
}
