//! The trait of limits that learn, and the window of results that they learn from.

use std::{fmt, time::Duration};

use crate::ConfigError;

/// A limit that moves with what a window of calls has shown.
#[diagnostic::on_unimplemented(
    message = "`{Self}` learns no limit",
    note = "`Aimd`, `Vegas` and `Gradient2` do"
)]
pub trait AdaptiveLimit: fmt::Debug + Send + Sync {
    /// Returns the limit to start with.
    fn initial(&self) -> usize;

    /// Returns the next limit. Windows arrive one at a time and in order. The result is used as at
    /// least 1 and at most [`Window::max`].
    fn update(&mut self, window: &Window) -> usize;

    /// Returns the estimated round trip of a call that does not queue, or `None` if none was timed
    /// or the algorithm ignores round trips.
    fn baseline(&self) -> Option<Duration> {
        None
    }

    /// Returns a limit with the same settings that has learned nothing.
    fn fresh(&self) -> Box<dyn AdaptiveLimit>;
}

/// The results of the calls under one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// The limit in force.
    pub limit: usize,
    /// The most that it may become.
    pub max: usize,
    /// The most calls that were in flight at once, as seen whenever one ended.
    pub in_flight: usize,
    /// If true, a caller found no room.
    pub was_full: bool,
    /// The number of calls that succeeded.
    pub successes: u32,
    /// The number of calls that the upstream rejected, saying that there were too many.
    pub overloads: u32,
    /// The number of calls that failed otherwise, with an error or by a timeout.
    pub failures: u32,
    /// The time in which all of them ended.
    pub elapsed: Duration,
    /// The mean duration of the successes, or `None` if there were none.
    pub rtt: Option<Duration>,
}

impl Window {
    /// Returns whether the limit may have held calls back, so that a higher one may help.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.was_full || (self.in_flight >= 2 && self.in_flight >= self.limit.div_ceil(2))
    }

    /// Returns whether more than one call in a hundred met an overload.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        u64::from(self.overloads) * 100 > u64::from(self.calls())
    }

    /// Returns the number of calls.
    pub(super) fn calls(&self) -> u32 {
        let failed = self.overloads.saturating_add(self.failures);
        self.successes.saturating_add(failed)
    }

    /// Returns the share of calls that failed, overloads not included.
    pub(super) fn failed(&self) -> f64 {
        f64::from(self.failures) / f64::from(self.calls().max(1))
    }

    /// Returns the successes per second, if time has passed.
    pub(super) fn goodput(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (seconds > 0.0).then(|| f64::from(self.successes) / seconds)
    }
}

/// A limit with its fraction, kept between its bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    pub(super) limit: f64,
    pub(super) min: f64,
}

impl Current {
    pub(super) fn new(initial: u32, min: u32) -> Result<Self, ConfigError> {
        if min == 0 {
            return Err(ConfigError::new("min", min, "allow at least 1 call"));
        }
        if initial < min {
            let fix = "start at `min` or above";
            return Err(ConfigError::new("initial", initial, fix));
        }
        Ok(Self {
            limit: initial.into(),
            min: min.into(),
        })
    }

    /// Sets the limit within its bounds, and returns it in whole calls.
    pub(super) fn set(&mut self, limit: f64, window: &Window) -> usize {
        // Not `clamp`, which panics if the layer's maximum is below the minimum.
        self.limit = limit.max(self.min).min(count(window.max));
        self.whole()
    }

    pub(super) fn whole(&self) -> usize {
        whole(self.limit)
    }
}

/// Converts a number of calls for calculations. Above 2^53 it is rounded to the nearest `f64`.
#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
pub(super) fn count(calls: usize) -> f64 {
    calls as f64
}

/// Returns the limit in whole calls, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and the fraction is to be cut off"
)]
pub(super) fn whole(limit: f64) -> usize {
    (limit as usize).max(1)
}

/// The share of a limit that is left when the upstream rejects calls.
pub(super) const BACKOFF: f64 = 0.9;
