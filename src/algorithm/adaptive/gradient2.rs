//! Gradient2: lets round trips grow to a tolerance, and shrinks the limit as they exceed it.
//!
//! The gradient is `tolerance * baseline / rtt`, kept between a half and 1. While it is 1 the limit
//! grows by `√limit` a window. Below 1 the limit moves a fifth of the way to `limit * gradient`. So
//! it settles where calls take `tolerance` times as long as when none queues.
//!
//! **Use it** where round trips scatter too much for [`Vegas`](super::Vegas), and where some queue
//! is welcome: it keeps an uneven upstream busy at the price of latency.
//!
//! **Where it fails.** Under overload, calls take `tolerance` times as long as they need, by
//! construction. Below a limit of some ten calls, a step of growth is a third of the limit, and
//! latency sways with it.
//!
//! Two faults of the original are avoided. It added its allowance for a queue whatever the
//! gradient, so the limit rose without end under a lasting, modest overload. And its long average
//! took that overload for normal after some time. Here the baseline is [probed](super), so a server
//! where every call takes the five seconds of a timeout is not taken for healthy.
//!
//! Origin: Netflix's concurrency limits. The step of `√limit` is Envoy's.

use std::time::Duration;

use crate::{
    ConfigError,
    algorithm::adaptive::{
        AdaptiveLimit, Window,
        baseline::{Baseline, Next},
        failures::{Failures, LimitStep},
        limit::Current,
    },
    config::number_within,
};

/// A limit that keeps round trips within a tolerance.
#[derive(Debug, Clone)]
pub struct Gradient2 {
    config: Gradient2Config,
    current: Current,
    baseline: Baseline,
    failures: Failures,
}

/// Settings of [`Gradient2`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Gradient2Config {
    /// The limit to start with. Default 20: enough for most upstreams, too much for few.
    pub initial: u32,
    /// The least limit. Default 1.
    pub min: u32,
    /// The average round trip allowed, as a multiple of the baseline. Default 1.5: well above what
    /// windows scatter by, and below twice the latency even when it sways.
    pub tolerance: f64,
}

impl Gradient2 {
    /// Starts at `initial`.
    ///
    /// # Errors
    /// `min` is 0 or above `initial`, or `tolerance` is below 1.
    pub fn new(config: Gradient2Config) -> Result<Self, ConfigError> {
        let fix = "tolerate at least 1 times the best round trip";
        number_within("tolerance", config.tolerance, |n| n >= 1.0, fix)?;
        Ok(Self {
            config,
            current: Current::new(config.initial, config.min)?,
            baseline: Baseline::default(),
            failures: Failures::default(),
        })
    }

    fn steer(&self, baseline: f64, rtt: f64, window: &Window) -> f64 {
        let limit = self.current.limit;
        let gradient = (self.config.tolerance * baseline / rtt).clamp(0.5, 1.0);
        if !window.is_loaded() {
            // The round trip does not depend on a limit that is hardly used.
            limit
        } else if gradient < 1.0 {
            limit - limit * (1.0 - gradient) * SMOOTHING
        } else {
            limit + limit.sqrt()
        }
    }
}

impl AdaptiveLimit for Gradient2 {
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

impl Default for Gradient2 {
    fn default() -> Self {
        Self::new(Gradient2Config::default()).expect("the defaults are valid")
    }
}

impl Default for Gradient2Config {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 1,
            tolerance: 1.5,
        }
    }
}

/// The share of the way that the limit moves in one window.
const SMOOTHING: f64 = 0.2;
