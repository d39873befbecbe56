//! What is waited for, and what a waiter is told.

use std::sync::Arc;

use super::timer::Timer;

/// What is waited for.
pub(crate) trait Resource {
    /// Takes `units` for a waiter whose turn was expected at `ready_at`, and which may be served a
    /// little late.
    fn acquire(&self, units: u32, ready_at: u64, now: u64) -> Result<(), Blocked>;

    /// How many nanoseconds until `units` fit if `before` others come first; `None` if only a
    /// release can tell.
    fn ready_in(&self, units: u32, before: u64, now: u64) -> Option<u64>;

    /// Gives units back that were acquired for a waiter that has gone.
    fn give_back(&self, units: u32, now: u64);
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
    /// Its units no longer fit at all.
    Forever,
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

/// A place in a queue. It must come back, to [`WaitQueue::poll`] until that is done or to
/// [`WaitQueue::cancel`].
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) number: u64,
    pub(super) units: u32,
    pub(super) latest: u64,
    /// `None` until it is polled with a timer.
    pub(super) alarm: Option<Arc<Timer>>,
}

impl Ticket {
    /// What is acquired when its turn comes.
    #[cfg_attr(keep_loom, allow(dead_code, reason = "the layers are not modelled"))]
    pub(crate) fn units(&self) -> u32 {
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
