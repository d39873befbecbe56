//! What is waited for, and what a waiter is told.

use std::{fmt, sync::Arc};

use super::timer::Timer;

/// A thing that is waited for, in units of one kind or of several.
pub(crate) trait Resource<U: Units = u32> {
    /// Takes `units` for a waiter whose turn was expected at `ready_at`, and which may be served a
    /// little late.
    fn acquire(&self, units: U, ready_at: u64, now: u64) -> Result<(), Blocked>;

    /// How many nanoseconds until `units` fit if `before` others come first; `None` if only a
    /// release can tell.
    fn ready_in(&self, units: U, before: U::Sum, now: u64) -> Option<u64>;

    /// Gives units back that were acquired for a waiter that has gone.
    fn give_back(&self, units: U, now: u64);
}

/// The units of one waiter.
pub(crate) trait Units: Copy + fmt::Debug {
    /// The units of many.
    type Sum: Copy + fmt::Debug;

    /// None.
    const NONE: Self::Sum;

    /// Adds them to those of others, and wraps.
    fn add_to(self, sum: Self::Sum) -> Self::Sum;

    /// Returns by how much a sum is larger than an earlier one.
    fn between(earlier: Self::Sum, later: Self::Sum) -> Self::Sum;
}

impl Units for u32 {
    type Sum = u64;

    const NONE: u64 = 0;

    fn add_to(self, sum: u64) -> u64 {
        sum.wrapping_add(u64::from(self))
    }

    fn between(earlier: u64, later: u64) -> u64 {
        later.wrapping_sub(earlier)
    }
}

/// Units of several kinds, each of which is counted by itself.
impl<const N: usize> Units for [u64; N] {
    type Sum = Self;

    const NONE: Self = [0; N];

    fn add_to(self, sum: Self) -> Self {
        std::array::from_fn(|kind| sum[kind].wrapping_add(self[kind]))
    }

    fn between(earlier: Self, later: Self) -> Self {
        std::array::from_fn(|kind| later[kind].wrapping_sub(earlier[kind]))
    }
}

impl Bounds {
    /// Returns whether a turn may come so much later.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn reaches(&self, wait: u64, now: u64) -> bool {
        now.saturating_add(wait) <= self.until
    }
}

/// What is held too long, and can be taken back.
pub(crate) trait Overdue: fmt::Debug + Send + Sync {
    /// Takes it back and gives it to others. Returns how much it was, and before which moment
    /// there is no more.
    fn take_back(&self, now: u64) -> (usize, u64);

    /// How long may be held has changed.
    fn changed(&self);
}

/// Why the head has to go on waiting.
#[cfg_attr(
    any(keep_loom, not(test)),
    allow(dead_code, reason = "each resource blocks in its way")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// For so many nanoseconds, if nothing changes.
    For(u64),
    /// Until something is released.
    UntilRelease,
    /// The same, or until somebody looks after so many nanoseconds, when something may be overdue.
    UntilOverdue(u64),
    /// Its units no longer fit at all.
    Forever,
}

impl Blocked {
    /// Enters where only a release lets others in, or what is taken back if that is `Some`.
    pub(crate) fn unless(
        enter: impl Fn() -> bool,
        take_back: impl FnOnce() -> Option<(usize, u64)>,
        now: u64,
    ) -> Result<(), Self> {
        if enter() {
            return Ok(());
        }
        match take_back() {
            None => Err(Self::UntilRelease),
            Some((taken, _)) if taken > 0 && enter() => Ok(()),
            Some((_, u64::MAX)) => Err(Self::UntilRelease),
            Some((_, due)) => Err(Self::UntilOverdue(due.saturating_sub(now).max(1))),
        }
    }
}

/// How long and how many may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The last moment at which a turn may come.
    pub(crate) until: u64,
    /// How much later than that a turn may be noticed, because timers are late. Zero where the
    /// moment is a deadline that somebody else holds.
    pub(crate) grace: u64,
    /// How many may wait in this queue.
    pub(crate) max_waiting: usize,
    /// Which waiters this one goes before: those of a lower class.
    pub(crate) class: u8,
}

/// The class of a waiter where all are alike.
pub(crate) const ONE_CLASS: u8 = 0;
/// How many classes there are.
pub(super) const CLASSES: usize = 4;

/// A place in a queue. It must come back, to [`WaitQueueOf::poll`] until that is done or to
/// [`WaitQueueOf::cancel`].
#[derive(Debug)]
pub(crate) struct TicketOf<U> {
    pub(super) number: u64,
    pub(super) units: U,
    pub(super) latest: u64,
    /// `None` until it is polled with a timer.
    pub(super) alarm: Option<Arc<Timer>>,
}

/// A place of a waiter for units of one kind.
pub(crate) type Ticket = TicketOf<u32>;

impl<U: Copy> TicketOf<U> {
    /// What is acquired when its turn comes.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn units(&self) -> U {
        self.units
    }
}

/// What a waiter finds when it polls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Its units are acquired, and its place is gone.
    Acquired,
    /// Its place is gone: its turn comes too late, which is in so many nanoseconds where that is
    /// known.
    TooLate(Option<u64>),
    /// Its place is gone: it can never be served.
    Never,
    /// Poll again at this time, or when woken.
    Queued(Option<u64>),
}
