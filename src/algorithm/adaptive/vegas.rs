//! Vegas: keeps a few calls queued, counted from round trip times.
//!
//! By Little's law, `n * (1 - baseline / rtt)` of `n` calls in flight wait, where the baseline is
//! the round trip when none queues. The limit grows while fewer than `alpha` wait and shrinks when
//! more than `beta` do. So it finds the smallest limit that keeps the upstream busy, and latency
//! stays near its best. Start with this algorithm.
//!
//! The original's thresholds of a few packets suit windows of some tens. Here they are
//! `(√limit + limit / 10) / 2` and twice that. At 1000 calls in flight, a queue of 10 is 1 % of the
//! round trip, which is less than it scatters by. A limit that shrinks for that never settles. The
//! limit grows by `√limit` a window while next to nothing waits, else by 1: 20 to 1000 takes 60
//! windows.
//!
//! **Where it fails.** Calls of very different length make the average scatter: give each kind a
//! bulkhead of its own, by key. If limits that look at errors only (such as [`Aimd`](super::Aimd))
//! share the upstream, this one gives way to them. `baseline.rs` tells how the baseline is found,
//! and why neither the fastest call nor a long average will do. The usual Vegas took the fastest
//! call: it fell to a fraction of the capacity after a lucky one, and grew on sequential calls.
//!
//! Origin: Brakmo and Peterson, 1995, "TCP Vegas: End to End Congestion Avoidance on a Global
//! Internet". Netflix's concurrency limits brought it to calls.

use std::time::Duration;

use crate::{
    ConfigError,
    algorithm::adaptive::{
        AdaptiveLimit, Window,
        baseline::{Baseline, Next},
        failures::{Failures, LimitStep},
        limit::{Current, count},
    },
};

/// A limit that keeps a short queue at the upstream.
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
    /// The limit to start with. Default 20: enough for most upstreams, too much for few.
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
            // The round trip does not depend on a limit that is hardly used.
            return limit;
        }
        // No more can wait than were in flight, whatever the limit.
        let queued = count(window.in_flight.min(window.limit)) * (1.0 - baseline / rtt);
        let alpha = limit.sqrt() / 2.0 + limit / 20.0;
        let beta = 2.0 * alpha;
        if queued > beta {
            // Halfway, because some waiting calls may leave by themselves. One slow window removes
            // a third of the limit at most.
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
            LimitStep::Steer => match self.baseline.observe(window) {
                Next::Steer(baseline, rtt) => self.steer(baseline, rtt, window),
                Next::Limit(limit) => limit,
                Next::Stay => self.current.limit,
            },
            LimitStep::Hold => self.current.limit,
            LimitStep::Lower(limit) | LimitStep::Return(limit) => {
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
