//! The times at which calls are made.

use std::{sync::Arc, time::Duration};

use super::{
    random::{Purpose, Random},
    times::in_nanos,
    trouble::Timeline,
};
use crate::ambient::clock::nanos;

/// The times of one source's calls: [`Poisson`], [`Steady`], [`Bursts`] or [`Recorded`].
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(Law);

/// Calls of many independent callers: a mean rate, with random clusters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Poisson {
    per_second: f64,
}

/// Calls at even intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steady {
    per_second: f64,
}

/// Bursts of calls at the same moment: a batch job, a cache that expires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    calls: u32,
    every: Duration,
}

/// Calls at the times of a recording, such as an access log, from the start of the drill. Calls
/// after its end are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// In order.
    moments: Arc<[Duration]>,
}

#[derive(Debug, Clone, PartialEq)]
enum Law {
    Poisson(f64),
    Steady(f64),
    Bursts(Bursts),
    Recorded(Recorded),
}

impl Poisson {
    /// Makes calls at this mean rate.
    #[must_use]
    pub fn per_second(calls: impl Into<f64>) -> Self {
        let per_second = calls.into();
        Self { per_second }
    }
}

impl Steady {
    /// Makes calls at this rate.
    #[must_use]
    pub fn per_second(calls: impl Into<f64>) -> Self {
        let per_second = calls.into();
        Self { per_second }
    }
}

impl Bursts {
    /// Makes bursts of this many calls, once a second.
    #[must_use]
    pub fn of(calls: u32) -> Self {
        let every = Duration::from_secs(1);
        Self { calls, every }
    }

    /// Sets the time from one burst to the next.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }
}

impl Recorded {
    /// Makes calls at these times, in any order.
    #[must_use]
    pub fn at(moments: impl IntoIterator<Item = Duration>) -> Self {
        let mut moments: Vec<_> = moments.into_iter().collect();
        moments.sort_unstable();
        let moments = moments.into();
        Self { moments }
    }

    fn per_second(&self) -> f64 {
        let last = self.moments.last().map_or(0.0, Duration::as_secs_f64);
        self.moments.len() as f64 / last.max(1.0)
    }
}

impl Pattern {
    /// Returns the same pattern with more calls, or fewer.
    pub(super) fn times(&self, factor: f64) -> Self {
        Self(match &self.0 {
            Law::Poisson(rate) => Law::Poisson(rate * factor),
            Law::Steady(rate) => Law::Steady(rate * factor),
            Law::Bursts(bursts) => Law::Bursts(Bursts {
                every: bursts.every.div_f64(factor),
                ..*bursts
            }),
            // In less time, because each call exists once.
            Law::Recorded(recorded) => {
                let moments = recorded.moments.iter();
                Law::Recorded(Recorded::at(moments.map(|at| at.div_f64(factor))))
            }
        })
    }

    /// Returns the mean rate.
    pub(super) fn per_second(&self) -> f64 {
        match &self.0 {
            Law::Poisson(rate) | Law::Steady(rate) => *rate,
            Law::Bursts(bursts) => f64::from(bursts.calls) / bursts.every.as_secs_f64(),
            Law::Recorded(recorded) => recorded.per_second(),
        }
    }

    /// Returns whether its rate is finite and above zero.
    pub(super) fn is_sound(&self) -> bool {
        self.per_second().is_finite() && self.per_second() > 0.0
    }
}

/// The times of one source, in nanoseconds, one after the other.
#[derive(Debug)]
pub(super) struct Arrivals {
    law: Law,
    random: Random,
    /// The number of arrivals so far.
    count: u64,
    /// The last one, in seconds.
    at: f64,
}

impl Arrivals {
    pub(super) fn new(pattern: Pattern, seed: u64, source: u64) -> Self {
        Self {
            law: pattern.0,
            random: Random::new(seed, Purpose::Traffic(source)),
            count: 0,
            at: 0.0,
        }
    }

    /// Returns the next time. The rate changes with the timeline's bursts: a second that is ten
    /// times as busy uses up ten times as much of a gap.
    pub(super) fn next(&mut self, timeline: &Timeline) -> u64 {
        let (gap, rate) = match &self.law {
            Law::Poisson(rate) => (self.random.exponential(), *rate),
            Law::Steady(rate) => (1.0, *rate),
            Law::Bursts(bursts) => {
                let moment = bursts.every
                    * u32::try_from(self.count / u64::from(bursts.calls.max(1)))
                        .unwrap_or(u32::MAX);
                self.count += 1;
                return in_nanos(moment.as_secs_f64());
            }
            Law::Recorded(recorded) => {
                let number = usize::try_from(self.count).unwrap_or(usize::MAX);
                self.count += 1;
                return recorded
                    .moments
                    .get(number)
                    .copied()
                    .map_or(u64::MAX, nanos);
            }
        };
        self.count += 1;
        let mut left = gap / rate;
        loop {
            let (factor, until) = timeline.traffic_at(self.at);
            let room = (until - self.at) * factor;
            if left <= room {
                self.at += left / factor;
                return in_nanos(self.at);
            }
            left -= room;
            self.at = until;
        }
    }
}

/// Returns the times of recorded calls, and their requests by number.
pub(super) fn recording<R: Clone>(mut calls: Vec<(Duration, R)>) -> (Recorded, impl Fn(u64) -> R) {
    calls.sort_by_key(|(moment, _)| *moment);
    let moments = Recorded::at(calls.iter().map(|(moment, _)| *moment));
    let request = move |number| {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        calls[number.min(calls.len() - 1)].1.clone()
    };
    (moments, request)
}

impl From<Poisson> for Pattern {
    fn from(law: Poisson) -> Self {
        Self(Law::Poisson(law.per_second))
    }
}

impl From<Steady> for Pattern {
    fn from(law: Steady) -> Self {
        Self(Law::Steady(law.per_second))
    }
}

impl From<Recorded> for Pattern {
    fn from(law: Recorded) -> Self {
        Self(Law::Recorded(law))
    }
}

impl From<Bursts> for Pattern {
    fn from(law: Bursts) -> Self {
        Self(Law::Bursts(law))
    }
}
