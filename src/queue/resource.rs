//! The resources that calls wait for, and the answers to waiters.

use std::{fmt, sync::Arc};

use super::timer::Timer;

/// A resource with units of one kind or of several, which calls wait for.
pub(crate) trait Resource<U: Units = u32> {
    /// Takes `units` for a waiter that was expected to be served at `ready_at`, and may be served a
    /// little late.
    fn acquire(&self, units: U, ready_at: u64, now: u64) -> Result<(), Blocked>;

    /// Returns in how many nanoseconds `units` fit if `before` other units come first. `None` if
    /// only a release can free them.
    fn ready_in(&self, units: U, before: U::Sum, now: u64) -> Option<u64>;

    /// Gives back units that were acquired for a waiter that has gone.
    fn give_back(&self, units: U, now: u64);
}

/// The units of one waiter.
pub(crate) trait Units: Copy + fmt::Debug {
    /// The type of a sum over many waiters.
    type Sum: Copy + fmt::Debug;

    /// The empty sum.
    const NONE: Self::Sum;

    /// Adds these units to a sum. Wraps.
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

/// Units of several kinds, each counted separately.
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
    /// Returns whether a turn in `wait` nanoseconds is in time.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn reaches(&self, wait: u64, now: u64) -> bool {
        now.saturating_add(wait) <= self.until
    }
}

/// A holder of units that may be held too long, and can be taken back.
pub(crate) trait Overdue: fmt::Debug + Send + Sync {
    /// Takes back what is overdue and frees it for others. Returns how much it was, and the
    /// earliest moment at which more may be overdue.
    fn take_back(&self, now: u64) -> (usize, u64);

    /// Receives a change of how long units may be held.
    fn changed(&self);
}

/// The reason why the head continues to wait.
#[cfg_attr(
    any(keep_loom, not(test)),
    allow(dead_code, reason = "each resource blocks in its way")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// A wait of this many nanoseconds, if nothing changes.
    For(u64),
    /// A wait until a release.
    UntilRelease,
    /// A wait until a release, or until a poll after this many nanoseconds, when units may be
    /// overdue.
    UntilOverdue(u64),
    /// The units can never fit now.
    Forever,
}

impl Blocked {
    /// Enters where only a release frees units, or after overdue units were taken back if
    /// `take_back` returns `Some`.
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

/// The bounds on a wait: how long, and how many waiters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The last moment at which a turn is in time.
    pub(crate) until: u64,
    /// The tolerance after `until` within which a turn may be noticed, since timers are late. Zero
    /// where `until` is a deadline that is kept elsewhere.
    pub(crate) grace: u64,
    /// The maximum number of waiters in this queue.
    pub(crate) max_waiting: usize,
    /// The class of the waiter. A waiter goes before those of a lower class.
    pub(crate) class: u8,
}

/// The class of all waiters where there is no difference.
pub(crate) const ONE_CLASS: u8 = 0;
/// The number of classes.
pub(super) const CLASSES: usize = 4;

/// A place in a queue. It must be polled with [`WaitQueueOf::poll`] until the wait ends, or be
/// passed to [`WaitQueueOf::cancel`].
#[derive(Debug)]
pub(crate) struct TicketOf<U> {
    pub(super) number: u64,
    pub(super) units: U,
    pub(super) latest: u64,
    /// `None` until the ticket is polled with a timer.
    pub(super) alarm: Option<Arc<Timer>>,
}

/// A ticket for units of one kind.
pub(crate) type Ticket = TicketOf<u32>;

impl<U: Copy> TicketOf<U> {
    /// Returns the units that are acquired when the turn comes.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn units(&self) -> U {
        self.units
    }
}

/// The result of a poll of a ticket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The units are acquired, and the ticket is used up.
    Acquired,
    /// The wait has ended, because the turn comes too late: in so many nanoseconds, where that is
    /// known.
    TooLate(Option<u64>),
    /// The wait has ended, because the units can never be acquired.
    Never,
    /// The call still waits. Poll again at this time, or when woken.
    Queued(Option<u64>),
}
