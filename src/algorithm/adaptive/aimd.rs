//! Additive increase, multiplicative decrease: TCP's oldest congestion control, on calls in flight.
//!
//! The limit doubles each window until the first overload, then grows by a constant. Each window
//! with an overload cuts it to nine tenths. Several clients of one upstream end with equal shares
//! under this rule, whatever limits they start with.
//!
//! **Use it** where calls fail when there are too many: 429, `RESOURCE_EXHAUSTED`, 503, a timeout.
//! It needs no idea of a good round trip time, so calls may be as different as they like.
//!
//! **Where it fails.** An upstream that queues without bound never rejects: the limit grows until
//! calls time out, or to the layer's maximum. Set [`slow_after`](AimdConfig::slow_after), or use
//! [`Vegas`](super::Vegas). If the upstream's capacity grows tenfold, the limit follows slowly: by
//! one call a window.
//!
//! Origin: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
//! Avoidance in Computer Networks", 1989. Slow start is from Jacobson, "Congestion Avoidance and
//! Control", 1988.

use std::time::Duration;

use crate::{
    ConfigError,
    algorithm::adaptive::{
        AdaptiveLimit, Window,
        failures::{Failures, LimitStep},
        limit::{BACKOFF, Current},
    },
    config::number_within,
};

/// A limit that grows until the upstream is overloaded, and then backs off.
#[derive(Debug, Clone)]
pub struct Aimd {
    config: AimdConfig,
    current: Current,
    failures: Failures,
    /// The limit up to which it doubles: what the last cut for load left. Infinite before the first
    /// cut.
    known: f64,
    /// `known` from before the current trial, restored if the trial shows that load was not the
    /// cause.
    before: Option<f64>,
}

/// Settings of [`Aimd`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AimdConfig {
    /// The limit to start with. Default 20: enough for most upstreams, too much for few.
    pub initial: u32,
    /// The least limit. Default 1.
    pub min: u32,
    /// The number of calls added after a window without overload. Default 1.
    pub increase: f64,
    /// The share of the limit that is left after a window with overloads. Default 0.9: TCP's half
    /// would leave capacity idle after each cut.
    pub backoff: f64,
    /// A window whose calls took this long on average is overloaded too. Default `None`.
    pub slow_after: Option<Duration>,
}

impl Aimd {
    /// Starts at `initial`.
    ///
    /// # Errors
    /// `min` is 0 or above `initial`, `increase` is not above 0, `backoff` is not between 0 and 1,
    /// or `slow_after` is zero.
    pub fn new(config: AimdConfig) -> Result<Self, ConfigError> {
        let current = Current::new(config.initial, config.min)?;
        let fix = "add some calls, such as 1";
        number_within("increase", config.increase, |n| n > 0.0, fix)?;
        let fix = "keep a share, such as 0.9";
        number_within("backoff", config.backoff, |n| n > 0.0 && n < 1.0, fix)?;
        if config.slow_after == Some(Duration::ZERO) {
            let fix = "set a time that good calls stay below, or `None`";
            return Err(ConfigError::new("slow_after", Duration::ZERO, fix));
        }
        Ok(Self {
            config,
            current,
            failures: Failures::default(),
            known: f64::INFINITY,
            before: None,
        })
    }

    fn grow(&mut self, window: &Window) -> f64 {
        let slow = self.config.slow_after.zip(window.rtt);
        let is_slow = slow.is_some_and(|(after, rtt)| rtt >= after);
        let limit = self.current.limit;
        if is_slow {
            self.known = limit * self.config.backoff;
            self.known
        } else if !window.is_loaded() {
            limit
        } else if limit * 2.0 <= self.known {
            limit * 2.0
        } else {
            limit + self.config.increase
        }
    }
}

impl AdaptiveLimit for Aimd {
    fn initial(&self) -> usize {
        self.current.whole()
    }

    fn update(&mut self, window: &Window) -> usize {
        let next = match self.failures.observe(window, self.current) {
            LimitStep::Steer => {
                self.before = None;
                self.grow(window)
            }
            LimitStep::Hold => self.current.limit,
            LimitStep::Lower(_) => {
                self.before.get_or_insert(self.known);
                let lower = self.current.limit * self.config.backoff;
                if window.successes > 0 {
                    self.known = lower;
                }
                lower
            }
            LimitStep::Return(limit) => {
                self.known = self.before.take().unwrap_or(self.known);
                limit
            }
        };
        self.current.set(next, window)
    }

    fn fresh(&self) -> Box<dyn AdaptiveLimit> {
        Box::new(Self {
            config: self.config,
            current: Current {
                limit: self.config.initial.into(),
                ..self.current
            },
            failures: Failures::default(),
            known: f64::INFINITY,
            before: None,
        })
    }
}

impl Default for Aimd {
    fn default() -> Self {
        Self::new(AimdConfig::default()).expect("the defaults are valid")
    }
}

impl Default for AimdConfig {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 1,
            increase: 1.0,
            backoff: BACKOFF,
            slow_after: None,
        }
    }
}
