//! The states of a circuit, and the transitions between them.

use std::time::Duration;

use crate::algorithm::window::Counts;

/// A state of a [`Breaker`](crate::algorithm::Breaker).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum BreakerState {
    /// Admits all calls and counts them.
    Closed,
    /// Rejects all calls until its time is over.
    Open,
    /// Admits a few probes.
    HalfOpen,
    /// Rejects all calls until it is changed by hand.
    ForcedOpen,
    /// Admits all calls and counts nothing.
    Disabled,
    /// Admits all calls and counts them, but never opens.
    MetricsOnly,
}

impl BreakerState {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::Disabled,
        Self::MetricsOnly,
    ];

    /// Returns its name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

impl Cause {
    /// Returns its name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::NoAnswer => "no_answer",
            Self::OpenElapsed => "open_elapsed",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesSlow => "probes_slow",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::LeaseExpired => "lease_expired",
            Self::ByHand => "by_hand",
            Self::Updated => "updated",
        }
    }
}

/// A rejection, and how long until calls are admitted, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitOpen {
    /// The time until probes are admitted while open, or until all calls are during a ramp. `None`
    /// while forced open, and while all probes are in flight.
    pub wait: Option<Duration>,
}

/// A change of state. It goes to the one caller that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The state that was left.
    pub from: BreakerState,
    /// The state that began.
    pub to: BreakerState,
    /// The new state's generation: one more than the old one's, modulo 2^18.
    pub generation: u32,
    /// The cause of the transition.
    pub cause: Cause,
    /// The counts of the window that opened the circuit, or of the ended probes if it leaves
    /// half-open.
    pub counts: Counts,
    /// The time since the circuit was created.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::of")
    )]
    pub at: Duration,
    /// The time that the circuit had been open or half-open, if this transition closes it.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub open_for: Option<Duration>,
    /// The number of calls rejected since it opened, if this transition closes it.
    pub rejected: Option<u64>,
}

/// The cause of a [`Transition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
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
    /// The probes showed an upstream that still fails.
    ProbesFailed,
    /// Too many of the probes were slow.
    ProbesSlow,
    /// The probes showed an upstream that works.
    ProbesSucceeded,
    /// The probes did not come back in time.
    LeaseExpired,
    /// A user changed the state by hand.
    ByHand,
    /// An update restarted the window, in the same state.
    Updated,
}
