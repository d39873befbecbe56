//! A limit that an upstream keeps, followed by what its responses report.
//!
//! An upstream that enforces a quota reports in each response how much of it is left, and when it
//! is whole again. A client that reacts only once nothing is left has by then sent too much: all
//! calls in flight beyond the quota fail. A client that copies the number that is left forgets that
//! the quota refills, and sends nothing until the next response. So the quota is modelled as what
//! it is, a token bucket, and each response sets its state ([`WideBucket::told`]).
//!
//! **Guarantee.** No response keeps the bucket empty for longer than until the reset that it
//! reports, or the longest one that is believed. The bucket only ever lowers what the limit beside
//! it admits.

use std::time::Duration;

use crate::{
    algorithm::{Limit, OverLimit, Rate, token_bucket::narrow, wide_bucket::WideBucket},
    config::ConfigError,
};

/// An upstream's quota as last reported. Admits everything until a first report.
#[derive(Debug)]
pub(crate) struct Followed(WideBucket);

impl Followed {
    pub(crate) fn new() -> Self {
        Self(WideBucket::open())
    }

    /// Sets the units that are left: see [`WideBucket::told`].
    pub(crate) fn told(&self, limit: u64, remaining: u64, times: (u64, u64), now: u64) {
        self.0.told(limit, remaining, times, now);
    }
}

impl Limit for Followed {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.acquire_late(cost, now, now)
    }

    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        // A cost above an upstream's whole quota is for the upstream to reject. The quota may be
        // wrong, and it would never be corrected if no such call were sent.
        let cost = u64::from(cost).min(self.0.burst());
        self.0.take_late(cost, due, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        Duration::from_nanos(self.0.wait(units, now))
    }

    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        let cost = u64::from(cost).min(self.0.burst());
        if cost == 0 {
            return Duration::ZERO;
        }
        self.wait(before.saturating_add(cost), now)
    }

    fn refund(&self, cost: u32, now: u64) {
        self.0.give_back(u64::from(cost).min(self.0.burst()), now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.0.charge(cost.into(), now);
    }

    /// Does nothing: the limit beside it closes. A pause is no part of the quota, and would outlast
    /// it.
    fn close_until(&self, _: u64, _: u64) {}

    fn reset(&self, now: u64) {
        self.0.reset(now);
    }

    fn available(&self, now: u64) -> u32 {
        narrow(self.0.available(now))
    }

    fn burst(&self) -> u32 {
        narrow(self.0.burst())
    }

    /// Returns the maximum, because any cost is admitted: see [`acquire_late`](Self::acquire_late).
    fn largest_cost(&self) -> u32 {
        u32::MAX
    }

    fn rate(&self) -> Rate {
        self.0.rate()
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.0.update(rate, burst.into())
    }
}
