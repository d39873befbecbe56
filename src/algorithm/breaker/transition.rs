//! The states of a circuit, and what leads from one to the next.

use std::time::Duration;

/// A state of a [`Breaker`](crate::algorithm::Breaker).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// Lets all calls through and counts them.
    Closed,
    /// Refuses all calls until its time is over.
    Open,
    /// Lets a few probes through.
    HalfOpen,
    /// Refuses all calls until told otherwise.
    ForcedOpen,
    /// Lets all calls through and counts nothing.
    Disabled,
    /// Lets all calls through and counts them, but never opens.
    MetricsOnly,
}

/// A refusal, and how long until calls are let through, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitOpen {
    /// Until probes are let through while open, until all calls are during a ramp; `None` while
    /// forced open, and while the probes are out.
    pub wait: Option<Duration>,
}

/// A change of state. Whoever receives it made it, and nobody else receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state that was left.
    pub from: BreakerState,
    /// The state that began.
    pub to: BreakerState,
    /// The new state's generation: one more than the old one's, modulo 2^18.
    pub generation: u32,
    /// What brought it about.
    pub cause: Cause,
}

/// Why a [`Transition`] came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Too large a share of the window's calls failed.
    FailureRate,
    /// Too large a share of the window's calls were slow.
    SlowRate,
    /// Too many calls in a row failed.
    ConsecutiveFailures,
    /// Enough calls were dropped unfinished, and none was answered.
    NoAnswer,
    /// The time of the open state was over.
    OpenElapsed,
    /// The probes showed a peer that still fails.
    ProbesFailed,
    /// Too many of the probes were slow.
    ProbesSlow,
    /// The probes showed a peer that works.
    ProbesSucceeded,
    /// The probes did not come back in time.
    LeaseExpired,
    /// Somebody asked for it.
    ByHand,
}
