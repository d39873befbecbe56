//! The parts of a call that a timeout covers.

use std::time::Duration;

/// The parts of a call that its time covers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Covers {
    /// All attempts and their waits: a total timeout.
    pub(super) attempts: bool,
    /// The wait for the inner service's readiness.
    pub(super) readiness: bool,
    /// The response's body.
    pub(super) body: bool,
    /// The limit for the body's first byte, if it has its own.
    pub(super) first_byte: Option<Duration>,
    /// The limit between two frames, if there is one.
    pub(super) between_frames: Option<Duration>,
    /// The timeout with which this one shares its timer. Not a part of a call.
    pub(super) timer: TimerShare,
}

/// A shared timer for a stack's two timeouts. While an attempt waits, its timer wakes the task. The
/// total timeout, which is never earlier, makes no timer.
///
/// Only within a stack: there only layers of this crate are between the two, and they poll an
/// attempt on the task of its call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "stacks are there with HTTP")
)]
pub(super) enum TimerShare {
    /// Shares no timer.
    #[default]
    Alone,
    /// Announces its own timer.
    Attempt,
    /// Relies on announced timers.
    Total,
}
