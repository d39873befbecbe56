//! One of several limits, with a time of its own.

use std::time::Duration;

use crate::{
    algorithm::{Limit, OverLimit, Rate},
    config::ConfigError,
    sync::{AtomicU64, Ordering},
};

/// A limit whose time may have begun before that of the whole, because other layers share it.
#[derive(Debug)]
pub(super) struct Part {
    limit: Box<dyn Limit>,
    /// The nanoseconds by which its time is ahead of the whole's, in two's complement. Relaxed:
    /// each caller sets the same value, and before its first call.
    ahead: AtomicU64,
}

impl Part {
    pub(super) fn new(limit: impl Limit + 'static) -> Self {
        Self {
            limit: Box::new(limit),
            ahead: AtomicU64::new(0),
        }
    }

    /// Begins the whole's time at that moment.
    pub(super) fn follow(&self, start: u64) {
        let ahead = start.wrapping_sub(self.limit.begin(start));
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Converts a moment of the whole's time to its own.
    fn time(&self, now: u64) -> u64 {
        let ahead = self.ahead.load(Ordering::Relaxed);
        match ahead >> 63 {
            0 => now.saturating_add(ahead),
            _ => now.saturating_sub(ahead.wrapping_neg()),
        }
    }
}

impl Limit for Part {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.limit.acquire(cost, self.time(now))
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        self.limit
            .acquire_late(cost, self.time(due), self.time(now))
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.limit.wait(units, self.time(now))
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        self.limit.wait_for(cost, before, self.time(now))
    }

    fn refund(&self, cost: u32, now: u64) {
        self.limit.refund(cost, self.time(now));
    }

    fn charge(&self, cost: u32, now: u64) {
        self.limit.charge(cost, self.time(now));
    }

    fn close_until(&self, until: u64, now: u64) {
        self.limit.close_until(self.time(until), self.time(now));
    }

    fn reset(&self, now: u64) {
        self.limit.reset(self.time(now));
    }

    fn available(&self, now: u64) -> u32 {
        self.limit.available(self.time(now))
    }

    fn burst(&self) -> u32 {
        self.limit.burst()
    }

    fn largest_cost(&self) -> u32 {
        self.limit.largest_cost()
    }

    fn refund_lag(&self) -> Duration {
        self.limit.refund_lag()
    }

    fn begin(&self, at: u64) -> u64 {
        self.limit.begin(at)
    }

    fn rate(&self) -> Rate {
        self.limit.rate()
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.limit.is_fresh(self.time(now))
    }

    fn part(&self, index: usize) -> Option<&dyn Limit> {
        self.limit.part(index)
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.limit.update(rate, burst)
    }
}
