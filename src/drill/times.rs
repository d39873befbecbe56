//! Service times: how long one call keeps a worker busy.

use std::time::Duration;

use super::random::Random;
use crate::ambient::clock::nanos;

/// Returns a duration in milliseconds.
#[must_use]
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Returns a duration in seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Service times: a [`Duration`] if all are equal, [`Lognormal`], [`Exponential`] or [`Uniform`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times(Law);

/// Service times as in most real systems: some calls take several times the median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lognormal {
    median: Duration,
    sigma: f64,
}

/// Memoryless service times, as queueing theory assumes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exponential {
    mean: Duration,
}

/// Service times that are uniform between two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uniform {
    least: Duration,
    most: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Law {
    Fixed(Duration),
    Lognormal(Lognormal),
    Exponential(Exponential),
    Uniform(Uniform),
}

impl Lognormal {
    /// Makes times with this median: half of all calls take less. The spread is a
    /// [sigma](Self::sigma) of 0.5.
    #[must_use]
    pub fn median(median: Duration) -> Self {
        Self { median, sigma: 0.5 }
    }

    /// Sets the deviation of the logarithm. With 0.5 the slowest hundredth takes 3.2 times the
    /// median, with 1 it takes 10 times that.
    #[must_use]
    pub fn sigma(mut self, sigma: f64) -> Self {
        self.sigma = sigma;
        self
    }
}

impl Exponential {
    /// Makes times with this mean.
    #[must_use]
    pub fn mean(mean: Duration) -> Self {
        Self { mean }
    }
}

impl Uniform {
    /// Makes times between the shortest and the longest.
    #[must_use]
    pub fn between(least: Duration, most: Duration) -> Self {
        Self { least, most }
    }
}

impl Times {
    /// Returns one draw in nanoseconds, longer than usual by `factor`.
    pub(super) fn draw(&self, random: &mut Random, factor: f64) -> u64 {
        let (usual, spread) = match self.0 {
            Law::Fixed(time) => (time, 1.0),
            Law::Lognormal(law) => (law.median, (law.sigma * random.normal()).exp()),
            Law::Exponential(law) => (law.mean, random.exponential()),
            Law::Uniform(law) => {
                let range = law.most.saturating_sub(law.least);
                (law.least + range.mul_f64(random.unit()), 1.0)
            }
        };
        in_nanos(usual.as_secs_f64() * spread * factor)
    }

    /// Returns the mean, in seconds.
    pub(super) fn mean(&self) -> f64 {
        match self.0 {
            Law::Fixed(time) => time.as_secs_f64(),
            Law::Lognormal(law) => law.median.as_secs_f64() * (law.sigma * law.sigma / 2.0).exp(),
            Law::Exponential(law) => law.mean.as_secs_f64(),
            Law::Uniform(law) => (law.least + law.most).as_secs_f64() / 2.0,
        }
    }
}

/// Returns seconds in nanoseconds. Saturates at the longest time that a clock can hold.
pub(super) fn in_nanos(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or(u64::MAX, nanos)
}

impl From<Duration> for Times {
    fn from(time: Duration) -> Self {
        Self(Law::Fixed(time))
    }
}

impl From<Lognormal> for Times {
    fn from(law: Lognormal) -> Self {
        Self(Law::Lognormal(law))
    }
}

impl From<Exponential> for Times {
    fn from(law: Exponential) -> Self {
        Self(Law::Exponential(law))
    }
}

impl From<Uniform> for Times {
    fn from(law: Uniform) -> Self {
        Self(Law::Uniform(law))
    }
}
