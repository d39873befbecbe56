//! The length of a delay.

use std::{ops::Range, time::Duration};

use crate::{ConfigError, ambient::clock, fault::fate::Draw};

/// The length of a delay: fixed, uniform, or with the long tail of real latencies.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::fault::Delay;
///
/// let ms = Duration::from_millis;
/// let delays = [
///     Delay::fixed(ms(200)),
///     Delay::uniform(ms(100)..ms(300)),
///     Delay::median(ms(200)).p99(ms(2000)),
/// ];
/// # let _ = delays;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay(Shape);

/// The median of a [`Delay`] whose tail is not set yet.
#[derive(Debug, Clone, Copy)]
#[must_use = "say how long the tail is with `p99`"]
pub struct Median(Duration);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Fixed(Duration),
    Uniform(Duration, Duration),
    Lognormal { median: Duration, p99: Duration },
}

impl Delay {
    /// Makes a delay of always this length.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self(Shape::Fixed(delay))
    }

    /// Makes a delay that is uniform over the range.
    #[must_use]
    pub fn uniform(range: Range<Duration>) -> Self {
        Self(Shape::Uniform(range.start, range.end))
    }

    /// Starts a lognormal delay with this median: half of the delays are shorter.
    pub fn median(median: Duration) -> Median {
        Median(median)
    }

    pub(super) fn checked(self) -> Result<Self, ConfigError> {
        match self.0 {
            Shape::Uniform(start, end) if start >= end => Err(ConfigError::new(
                "delay",
                start..end,
                "begin the range below its end, or use `Delay::fixed`",
            )),
            Shape::Lognormal { median, .. } if median.is_zero() => Err(ConfigError::new(
                "median",
                median,
                "give half of the delays some time, such as 200ms",
            )),
            Shape::Lognormal { median, p99 } if p99 < median => Err(ConfigError::new(
                "p99",
                p99,
                "make it at least the median: 99 % of the delays are shorter than it",
            )),
            _ => Ok(self),
        }
    }

    /// Returns the delay of one call.
    pub(super) fn draw(self, draw: Draw) -> Duration {
        let (first, second) = draw.for_delay();
        match self.0 {
            Shape::Fixed(delay) => delay,
            Shape::Uniform(start, end) => {
                start.saturating_add(scaled(end.saturating_sub(start), first))
            }
            Shape::Lognormal { median, p99 } => {
                let sigma = (p99.as_secs_f64() / median.as_secs_f64()).ln() / P99;
                scaled(median, (sigma * normal(first, second)).exp())
            }
        }
    }
}

impl Median {
    /// Sets the 99th percentile: one delay in a hundred is longer.
    #[must_use]
    pub fn p99(self, p99: Duration) -> Delay {
        Delay(Shape::Lognormal {
            median: self.0,
            p99,
        })
    }
}

impl From<Duration> for Delay {
    fn from(delay: Duration) -> Self {
        Self::fixed(delay)
    }
}

/// Returns a multiple. Saturates: a delay ends with the run at the latest.
fn scaled(duration: Duration, factor: f64) -> Duration {
    let nanos = clock::nanos(duration) as f64 * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a factor is not negative, and the cast saturates"
    )]
    Duration::from_nanos(nanos as u64)
}

/// Returns a normally distributed number, of mean 0 and deviation 1, from two uniform ones (Box and
/// Muller).
fn normal(first: f64, second: f64) -> f64 {
    let radius = (-2.0 * (1.0 - first).ln()).sqrt();
    radius * (std::f64::consts::TAU * second).cos()
}

/// The 99th percentile of the normal distribution.
const P99: f64 = 2.326_347_874_040_841;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::fate::of_fault;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn drawn(delay: Delay) -> Vec<Duration> {
        let fault = of_fault(1, "delay", 0);
        let draw = |number| delay.draw(Draw::new(fault, number, 1));
        let mut drawn: Vec<_> = (0..100_000).map(draw).collect();
        drawn.sort();
        drawn
    }

    #[test]
    fn delays_have_the_median_and_p99_that_were_set() {
        let drawn = drawn(Delay::median(MS(200)).p99(MS(2000)));
        let (median, p99) = (drawn[50_000].as_secs_f64(), drawn[99_000].as_secs_f64());
        assert!((median / 0.2 - 1.0).abs() < 0.02, "{median}");
        assert!((p99 / 2.0 - 1.0).abs() < 0.05, "{p99}");
    }

    #[test]
    fn uniform_delays_fill_their_range() {
        let drawn = drawn(Delay::uniform(MS(100)..MS(300)));
        assert!(drawn[0] >= MS(100) && drawn[0] < MS(101));
        assert!(drawn[99_999] < MS(300) && drawn[99_999] > MS(299));
        assert!(drawn[50_000].abs_diff(MS(200)) < MS(2));
    }

    #[test]
    fn lengths_that_cannot_be_are_errors() {
        let error = |delay: Delay| delay.checked().unwrap_err().field;
        assert_eq!(error(Delay::uniform(MS(3)..MS(3))), "delay");
        assert_eq!(error(Delay::median(Duration::ZERO).p99(MS(1))), "median");
        assert_eq!(error(Delay::median(MS(2)).p99(MS(1))), "p99");
        let longest = Delay::median(Duration::MAX).p99(Duration::MAX);
        assert!(*drawn(longest.checked().unwrap()).last().unwrap() > MS(1));
        assert!(
            drawn(Delay::fixed(Duration::ZERO))
                .iter()
                .all(Duration::is_zero)
        );
    }
}
