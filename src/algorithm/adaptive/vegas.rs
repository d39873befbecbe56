//! Vegas: keeps a few calls queued, counted from what round trips take.
//!
//! Of `n` calls in flight `n * (1 - baseline / rtt)` wait: Little's law, with the round trip that
//! calls take when none queues as the baseline. The limit grows while fewer than `alpha` wait and
//! shrinks when more than `beta` do. So it finds the smallest limit that keeps the upstream busy,
//! and latency stays near its best: this is the one to start with.
//!
//! The original's thresholds of a few packets suit windows of some tens. Here they are `(√limit +
//! limit / 10) / 2` and twice that: at 1000 calls in flight a queue of 10 is 1 % of the round trip,
//! less than it scatters by, and a limit that shrinks for it finds no end. Growth is by `√limit` a
//! window while next to nothing waits, else by 1: 20 to 1000 takes 60 windows.
//!
//! **Where it fails.** Calls of very different length make the average scatter: give each sort a
//! bulkhead of its own, by key. A limit that shares its upstream with others that look at errors
//! only (such as [`Aimd`](super::Aimd)) gives way to them. How the baseline is found, and why
//! neither the fastest call nor a long average will do, is told in `baseline.rs`; the usual Vegas
//! took the fastest call, fell to a fraction of the capacity after a lucky one, and grew on
//! sequential calls.
//!
//! Origin: Brakmo and Peterson, "TCP Vegas: End to End Congestion Avoidance on a Global Internet",
//! 1995; on calls: Netflix's concurrency limits.

use std::time::Duration;

use crate::{
    ConfigError,
    algorithm::adaptive::{
        AdaptiveLimit, Window,
        baseline::{Baseline, Next},
        failures::{Advice, Failures},
        limit::{Current, count},
    },
};

/// Keeps a short queue.
#[derive(Debug, Clone)]
pub struct Vegas {
    config: VegasConfig,
    current: Current,
    baseline: Baseline,
    failures: Failures,
}

/// Settings of [`Vegas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VegasConfig {
    /// The limit to start with. Default 20: enough for most, too much for few.
    pub initial: u32,
    /// The least limit. Default 1.
    pub min: u32,
}

impl Vegas {
    /// Starts at `initial`.
    ///
    /// # Errors
    /// `min` is 0 or above `initial`.
    pub fn new(config: VegasConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            config,
            current: Current::new(config.initial, config.min)?,
            baseline: Baseline::default(),
            failures: Failures::default(),
        })
    }

    fn steer(&self, baseline: f64, rtt: f64, window: &Window) -> f64 {
        let limit = self.current.limit;
        if !window.is_loaded() {
            // What calls take does not depend on a limit that is hardly used.
            return limit;
        }
        // No more can wait than were in flight, whatever the limit.
        let queued = count(window.in_flight.min(window.limit)) * (1.0 - baseline / rtt);
        let alpha = limit.sqrt() / 2.0 + limit / 20.0;
        let beta = 2.0 * alpha;
        if queued > beta {
            // Halfway, because some of what waits may leave by itself; one slow window does not
            // take more than a third.
            limit - ((queued - beta) / 2.0).max(1.0).min(limit / 3.0)
        } else if queued >= alpha {
            limit
        } else if queued < alpha / 2.0 {
            limit + limit.sqrt()
        } else {
            limit + 1.0
        }
    }
}

impl AdaptiveLimit for Vegas {
    fn initial(&self) -> usize {
        self.current.whole()
    }

    fn update(&mut self, window: &Window) -> usize {
        let next = match self.failures.observe(window, self.current) {
            Advice::Steer => match self.baseline.observe(window) {
                Next::Steer(baseline, rtt) => self.steer(baseline, rtt, window),
                Next::Limit(limit) => limit,
                Next::Stay => self.current.limit,
            },
            Advice::Hold => self.current.limit,
            Advice::Lower(limit) | Advice::Return(limit) => {
                self.baseline.interrupt();
                limit
            }
        };
        self.current.set(next, window)
    }

    fn baseline(&self) -> Option<Duration> {
        self.baseline.rtt()
    }

    fn fresh(&self) -> Box<dyn AdaptiveLimit> {
        Box::new(Self {
            current: Current {
                limit: self.config.initial.into(),
                ..self.current
            },
            baseline: Baseline::default(),
            failures: Failures::default(),
            ..*self
        })
    }
}

impl Default for Vegas {
    fn default() -> Self {
        Self::new(VegasConfig::default()).expect("the defaults are valid")
    }
}

impl Default for VegasConfig {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 1,
        }
    }
}
