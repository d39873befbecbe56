//! The trait that all limits on a rate share, so that a layer, a map of keys or a store takes any
//! of them.

use std::{fmt, time::Duration};

use crate::{algorithm::Rate, config::ConfigError};

#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A limit on a rate. It decides whether a call fits now, and if not, when it will fit.
///
/// | limit | admits | memory |
/// |---|---|---|
/// | [`TokenBucket`](super::TokenBucket) | a burst, then evenly at the rate | 128 bytes, which are its cache lines |
/// | [`LeakyBucket`](super::LeakyBucket) | evenly at the rate, no burst | 40 bytes |
/// | [`SlidingLog`](super::SlidingLog) | at most N in any window, exactly | 8 bytes for each of N |
/// | [`SlidingRing`](super::SlidingRing) | at most N in any window, capacity returns a little late | 8 bytes for each part |
/// | [`SlidingCounter`](super::SlidingCounter) | about N in a window | 48 bytes |
/// | [`All`](super::All) | what each of several limits admits | theirs |
///
/// Every method is one atomic step for its caller, or a few steps that each err towards admitting
/// less. `now` is as in [the module](super). It counts from when the first layer with this limit
/// was built.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no rate limit",
    note = "`TokenBucket`, `LeakyBucket`, `SlidingLog`, `SlidingRing`, `SlidingCounter` and `All` are; a `Rate` alone goes to `RateLimitLayer::builder(rate)`"
)]
pub trait Limit: fmt::Debug + Send + Sync {
    /// Takes `cost` units, or none. A cost of 0 is free, even if the limit is in debt or closed.
    ///
    /// # Errors
    /// [`OverLimit`], with the time until the call fits.
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit>;

    /// Takes `cost` units for a waiter that was due at `due`, and was woken a little late.
    ///
    /// A limit that would lose the lateness of timers on every wait may count this decision as of
    /// `due`, but at most [`TIMER_TICK`] before `now`. By default the lateness is lost.
    ///
    /// # Errors
    /// [`OverLimit`] if another call has come first.
    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        let _ = due;
        self.acquire(cost, now)
    }

    /// Returns how long until `units` more units could all be admitted, one after the other, if no
    /// other call arrives.
    fn wait(&self, units: u64, now: u64) -> Duration;

    /// Returns how long until a call of that cost fits, if `before` units are admitted first and no
    /// other call arrives.
    ///
    /// By default this is the wait for all these units together. Limits that admit a call before
    /// all its units are due override it.
    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        if cost == 0 {
            return Duration::ZERO;
        }
        self.wait(before.saturating_add(u64::from(cost)), now)
    }

    /// Gives back units that were acquired and not used.
    fn refund(&self, cost: u32, now: u64);

    /// Takes units that have been used already, whether or not they fit. They may become a debt,
    /// which later calls wait for.
    fn charge(&self, cost: u32, now: u64);

    /// Admits nothing before `until`, because the upstream said so. A limit that is closed for
    /// longer stays so.
    fn close_until(&self, until: u64, now: u64);

    /// Clears what was used, what is owed and until when the limit is closed, so that it decides as
    /// a fresh one. For operators. Calls that race it may be forgotten too.
    ///
    /// By default it refunds as much as it can, which does not reopen a closed limit.
    fn reset(&self, now: u64) {
        self.refund(u32::MAX, now);
    }

    /// Returns how many units would be admitted now.
    fn available(&self, now: u64) -> u32;

    /// Returns the most units that are ever admitted at once.
    fn burst(&self) -> u32;

    /// Returns the highest cost that is ever admitted. By default this is the burst. Limits that
    /// make the next calls wait instead override it.
    fn largest_cost(&self) -> u32 {
        self.burst()
    }

    /// Returns how long refunded units may still count: zero if a refund takes effect at once. A
    /// sliding window removes its oldest units, so the younger ones count for up to a window more.
    /// [`All`](super::All) acquires from the limits with zero lag first.
    fn refund_lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the moment from which `now` counts for a layer that begins to use this limit at
    /// `at`, on a clock that all layers share. If several layers share the limit, it is the start
    /// of the first.
    ///
    /// By default each layer counts from its own start. A limit that layers of different ages share
    /// must keep the first moment, for example in a `OnceLock`.
    fn begin(&self, at: u64) -> u64 {
        at
    }

    /// Returns the current rate.
    fn rate(&self) -> Rate;

    /// Returns whether a new limit in its place would decide the same: nothing is used or owed, and
    /// it is not closed.
    ///
    /// A map may then forget it without loss.
    fn is_fresh(&self, now: u64) -> bool {
        self.wait(u64::from(self.burst()), now).is_zero()
    }

    /// Returns one of the limits that this one consists of, counted from 0. Returns `None` if there
    /// are no more, or if it does not consist of others.
    fn part(&self, index: usize) -> Option<&dyn Limit> {
        let _ = index;
        None
    }

    /// Changes rate and burst in one step, for every user of this limit. Used units stay used.
    ///
    /// # Errors
    /// Settings that the constructor rejects, or that this kind of limit cannot change.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError>;
}

/// The rejection of a call that does not fit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLimit {
    /// The call fits after exactly `wait`, if no other call comes first.
    Until {
        /// The wait, rounded up to a whole nanosecond, so that waiting for it is enough.
        wait: Duration,
    },
    /// The cost is above the whole burst: the call never fits.
    CostAboveBurst,
}

impl OverLimit {
    pub(crate) fn until(wait: u64) -> Self {
        Self::Until {
            wait: Duration::from_nanos(wait),
        }
    }
}

/// The lateness to expect of a timer, in nanoseconds: tokio's rounds up to a whole millisecond, and
/// checks once in each.
pub const TIMER_TICK: u64 = 2_000_000;
