//! What a user sets.

use std::{fmt, time::Duration};

/// When to open, for how long, and how to close again.
///
/// Four conditions can open the circuit, each on its own: the share of failures, the share of slow
/// calls, a run of failures, and calls that all were dropped without an answer. The first that
/// holds does, and the transition names it.
///
/// ```
/// use tower_keep::algorithm::BreakerConfig;
///
/// let mut config = BreakerConfig::default();
/// config.min_calls = 50;
/// config.consecutive_failures = Some(10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// The calls that the shares are taken of. Default: those of the last 10 s. With another length
    /// of time an update starts the window anew; a window of calls keeps its length.
    pub window: Window,
    /// How many calls the window must hold before their shares mean anything. Default 20. A window
    /// of fewer calls is judged when it is full.
    pub min_calls: u32,
    /// The share of failures at which the circuit opens, above 0 and up to 1. Default 0.5: a peer
    /// that fails every other call costs more than it gives. `None`: failures open it only by their
    /// run.
    pub failure_rate: Option<f64>,
    /// Which calls are slow, and what share of them opens the circuit. Default `None`: none are.
    pub slow_calls: Option<SlowCalls>,
    /// How many failures in a row open the circuit, however few calls there were. Default `None`:
    /// any number.
    pub consecutive_failures: Option<u32>,
    /// Whether a call that was dropped unfinished has failed. Default `false`: it counts as a slow
    /// call when it already was one, and otherwise only for `open_on_no_answer`.
    pub cancelled_as_failure: bool,
    /// Whether a window opens the circuit in which at least `min_calls` calls were dropped
    /// unfinished and none was answered: so looks a peer that hangs to callers with a timeout of
    /// their own outside. Default `true`. Beside answered calls dropped ones stay neutral, and a
    /// dropped probe only gives its slot back. Of a window of calls the run since the last answer
    /// counts.
    pub open_on_no_answer: bool,
    /// How long the circuit stays open. Default 30 s; at least 1 ms, at most 30 days.
    pub open_for: Duration,
    /// Whether the open time doubles each time, up to `max_open`, until closed has held for a
    /// whole window. Default `false`.
    pub growing: bool,
    /// Whether open times differ from circuit to circuit, so that a fleet whose circuits opened
    /// together does not probe in step. A fixed one lasts up to a tenth longer, as does the time
    /// that the peer asked for; a growing one is drawn from its upper half. Default `true`.
    pub jitter: bool,
    /// The longest the circuit stays open, whether by growth or because the peer asked for it
    /// (`Retry-After`). Default (`None`): ten times `open_for`. With `jitter`, a time that would
    /// reach it is drawn from the tenth below.
    pub max_open: Option<Duration>,
    /// How many calls are let through in half-open. Default 3, at most 511.
    pub probes: u16,
    /// What the probes must show. Default [`Verdict::Rate`].
    pub verdict: Verdict,
    /// How long probes may stay out, all of them, before the circuit opens again, so that hung
    /// probes cannot hold it half-open forever. Default (`None`): as long as `open_for`.
    pub lease: Option<Duration>,
    /// How long after the probes have closed it the circuit takes to admit everything again: from a
    /// tenth of all calls to all of them. Default zero: at once.
    pub ramp: Duration,
}

/// Of which calls the shares are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// Those of so much time: at least 10 ms, at most a day. Successes cost no write that threads
    /// share.
    Time(Duration),
    /// The last so many, 1 to 1 048 576, however long ago they were: for peers that are called
    /// rarely. Every call writes words that all threads share.
    Calls(u32),
}

/// Which calls are slow, and how many are too many.
///
/// **Not for brown-outs.** With an `after` that callers would have waited for, a slow upstream
/// becomes one that is down. Each probe that succeeds slowly opens the circuit again. A drill has
/// 26 % of the calls answered so, and all without it
/// ([guide](crate::guide::choosing#what-drills-have-shown)).
#[derive(Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// A call that takes this long is slow, whatever its result. From 1 ms to a day. Best is about
    /// the time that callers wait for at most. With another one an update starts the window anew.
    pub after: Duration,
    /// The share of slow calls at which the circuit opens, above 0 and up to 1.
    pub rate: f64,
}

/// How the probes of half-open are judged. A share of slow ones that would open the circuit keeps
/// it open under either.
///
/// The verdict is given as soon as the results still to come cannot change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Verdict {
    /// The circuit opens again if the probes' failure rate reaches `failure_rate`, else it closes.
    /// The default: a peer that fails less often than that would not open a closed circuit either,
    /// so it must not keep one open. Without a `failure_rate`, as [`AnyFailure`](Self::AnyFailure).
    #[default]
    Rate,
    /// The first failure opens the circuit again; it closes when all probes have succeeded. Against
    /// a peer that always fails a share of its calls, a false trip lasts several times as long.
    AnyFailure,
}

/// As it is set.
impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(length) => write!(f, "{length:?}"),
            Self::Calls(calls) => write!(f, "{calls} calls"),
        }
    }
}

/// As it is set.
impl fmt::Debug for SlowCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, rate } = self;
        write!(f, "{{ after: {after:?}, rate: {rate} }}")
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Window::Time(Duration::from_secs(10)),
            min_calls: 20,
            failure_rate: Some(0.5),
            slow_calls: None,
            consecutive_failures: None,
            cancelled_as_failure: false,
            open_on_no_answer: true,
            open_for: Duration::from_secs(30),
            growing: false,
            jitter: true,
            max_open: None,
            probes: 3,
            verdict: Verdict::Rate,
            lease: None,
            ramp: Duration::ZERO,
        }
    }
}
