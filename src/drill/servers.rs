//! The settings of a modelled upstream.

use std::time::Duration;

use super::times::Times;

/// An upstream: workers, a queue before them, and how long a call takes.
///
/// ```
/// use tower_keep::drill::{Lognormal, Servers, ms};
///
/// // 8 workers of some 44 calls a second each; more than 100 that wait are answered 503.
/// let shop = Servers::new(8).service(Lognormal::median(ms(20))).queue(100);
/// # let _ = shop;
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "give it to `Drill::upstream`"]
pub struct Servers {
    pub(super) workers: u32,
    pub(super) queue: usize,
    pub(super) service: Times,
    pub(super) load_factor: f64,
    pub(super) order: Order,
    pub(super) gives_up: bool,
}

/// The order in which workers take the waiting calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    First,
    Last,
}

impl Servers {
    /// Makes an upstream with this many workers. Each call takes 20 ms, and any number may wait.
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            queue: usize::MAX,
            service: Duration::from_millis(20).into(),
            load_factor: 0.0,
            order: Order::First,
            gives_up: false,
        }
    }

    /// Sets the time that a call takes a worker. Default 20 ms each.
    pub fn service(mut self, times: impl Into<Times>) -> Self {
        self.service = times.into();
        self
    }

    /// Sets how many calls may wait. More are answered at once as an overload (a 503 over HTTP).
    /// Default: any number, like most servers without such a setting.
    pub fn queue(mut self, calls: usize) -> Self {
        self.queue = calls;
        self
    }

    /// Slows calls down while others run. With all workers busy they take `factor` times longer
    /// *more*, like threads that share a processor. Default 0.
    pub fn slower_under_load(mut self, factor: f64) -> Self {
        self.load_factor = factor.max(0.0);
        self
    }

    /// Takes the newest call, not the one that has waited longest. Default: the oldest.
    pub fn last_first(mut self) -> Self {
        self.order = Order::Last;
        self
    }

    /// Stops work for callers that have left. Default: continues, like most servers, though the
    /// answers are never read.
    pub fn gives_up(mut self) -> Self {
        self.gives_up = true;
        self
    }

    /// Returns the most calls per second that it can do, on average.
    pub(super) fn per_second(&self) -> f64 {
        f64::from(self.workers) / (self.service.mean() * (1.0 + self.load_factor))
    }
}
