//! What all limits on a rate have in common, so that a layer, a map of keys or a store can take any
//! of them.

use std::{fmt, time::Duration};

use crate::{algorithm::Rate, config::ConfigError};

#[cfg(all(test, not(keep_loom)))]
mod tests;

/// A limit on a rate: it says of each call whether it fits now, and if not, when.
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
/// Every method is one atomic step for its caller, or a few of which each errs towards admitting
/// less. Of `now` see [the module](super): it counts from when the first layer was built that has
/// the limit.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no rate limit",
    note = "`TokenBucket`, `LeakyBucket`, `SlidingLog`, `SlidingRing`, `SlidingCounter` and `All` are; a `Rate` alone goes to `RateLimitLayer::builder(rate)`"
)]
pub trait Limit: fmt::Debug + Send + Sync {
    /// Takes `cost` units, or none. What costs nothing is free, whatever is owed or closed.
    ///
    /// # Errors
    /// [`OverLimit`], and when to come back.
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit>;

    /// Takes `cost` units for a caller whose turn was at `due`, and who has waited and was woken a
    /// little late.
    ///
    /// A limit that would lose what a timer's ticks add to each wait may let its time count from
    /// `due`, by at most [`TIMER_TICK`], for what it decides now. By default lateness is lost.
    ///
    /// # Errors
    /// [`OverLimit`]: another call has come first.
    fn acquire_late(&self, cost: u32, due: u64, now: u64) -> Result<(), OverLimit> {
        let _ = due;
        self.acquire(cost, now)
    }

    /// How long until `units` more could all have been admitted, one after the other, if no other
    /// call comes.
    fn wait(&self, units: u64, now: u64) -> Duration;

    /// How long until a call of that cost fits, if `before` units come first and no other call
    /// does.
    ///
    /// That of all of them together, but for limits that admit a call before all its units have
    /// their time.
    fn wait_for(&self, cost: u32, before: u64, now: u64) -> Duration {
        if cost == 0 {
            return Duration::ZERO;
        }
        self.wait(before.saturating_add(u64::from(cost)), now)
    }

    /// Gives back units that were acquired and not used.
    fn refund(&self, cost: u32, now: u64);

    /// Takes units that have been used already, whether or not they fit: a debt that later calls
    /// wait for.
    fn charge(&self, cost: u32, now: u64);

    /// Admits nothing before `until`, because a peer has said so. A limit that is closed for longer
    /// stays so.
    fn close_until(&self, until: u64, now: u64);

    /// Forgets what was used, what is owed and until when it is closed: it decides as a fresh one.
    /// For people who know better; calls that race it may be forgotten too.
    ///
    /// By default it refunds as much as it can, which does not reopen a closed limit.
    fn reset(&self, now: u64) {
        self.refund(u32::MAX, now);
    }

    /// How many units would be admitted now.
    fn available(&self, now: u64) -> u32;

    /// The most that are ever admitted at once.
    fn burst(&self) -> u32;

    /// The highest cost that is ever admitted. The burst, but for limits that make the next calls
    /// wait instead.
    fn largest_cost(&self) -> u32 {
        self.burst()
    }

    /// How much longer than what was taken a refund may stay counted: nothing, if it is as though
    /// the units had never been taken. The sliding windows forget their oldest units, and keep the
    /// younger for up to a window. [`All`](super::All) takes of the exact ones first.
    fn refund_lag(&self) -> Duration {
        Duration::ZERO
    }

    /// A layer begins to use it, at a moment on a clock that all layers have in common. Returns the
    /// moment from which `now` counts: that of the first layer, if several share it.
    ///
    /// By default each layer counts from its own start. Keep the first moment, in a `OnceLock` say,
    /// in a limit that layers of different ages are to share.
    fn begin(&self, at: u64) -> u64 {
        at
    }

    /// How much in how long, as it is now.
    fn rate(&self) -> Rate;

    /// Whether a new limit in its place would decide no differently: nothing is used, nothing owed,
    /// and it is not closed.
    ///
    /// A map may then forget it without loss.
    fn is_fresh(&self, now: u64) -> bool {
        self.wait(u64::from(self.burst()), now).is_zero()
    }

    /// One of the limits that this one is made of, counted from 0; `None` if there are no more, or
    /// it is not made of others.
    fn part(&self, index: usize) -> Option<&dyn Limit> {
        let _ = index;
        None
    }

    /// Changes rate and burst in one step, for all that share them. What was used stays used.
    ///
    /// # Errors
    /// Settings that the constructor would refuse, or that this kind of limit cannot change.
    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError>;
}

/// A call that does not fit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLimit {
    /// It fits after exactly `wait`, if no other call comes first.
    Until {
        /// Rounded up to a whole nanosecond, so that waiting it is enough.
        wait: Duration,
    },
    /// It costs more than the whole burst: it never fits.
    CostAboveBurst,
}

impl OverLimit {
    pub(crate) fn until(wait: u64) -> Self {
        Self::Until {
            wait: Duration::from_nanos(wait),
        }
    }
}

/// How late a timer may be, in nanoseconds: tokio's rounds up to a whole millisecond, and looks
/// once in each.
pub const TIMER_TICK: u64 = 2_000_000;
