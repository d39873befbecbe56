//! The settings of a circuit breaker.

use std::{fmt, time::Duration};

/// Settings that say when a circuit opens, for how long, and how it closes again.
///
/// Four conditions can open the circuit, each on its own: a share of failures, a share of slow
/// calls, a run of failures, or only calls that were dropped unanswered. The first that holds opens
/// it, and the transition names it.
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
    /// The calls of which the shares are computed. Default: those of the last 10 s. An update to
    /// another length of time restarts the window. A window of calls keeps its length.
    pub window: Window,
    /// The number of calls that the window must hold before it is judged. Default 20. A window of
    /// fewer calls is judged when it is full.
    pub min_calls: u32,
    /// The share of failures at which the circuit opens, above 0 and up to 1. Default 0.5: an
    /// upstream that fails every other call costs more than it gives. With `None`, failures open it
    /// only by their run.
    pub failure_rate: Option<f64>,
    /// The threshold of slow calls, and the share of them that opens the circuit. Default `None`:
    /// no call is slow.
    pub slow_calls: Option<SlowCalls>,
    /// The number of failures in a row that opens the circuit, however few calls there were.
    /// Default `None`: no number does.
    pub consecutive_failures: Option<u32>,
    /// If true, a call that was dropped unfinished has failed. Default `false`: it counts as slow
    /// if it already was, and otherwise only for `open_on_no_answer`.
    pub cancelled_as_failure: bool,
    /// If true, the circuit opens when at least `min_calls` calls of the window were dropped
    /// unfinished and none was answered. That is how an upstream that hangs looks to callers with a
    /// timeout of their own outside. Default `true`. Beside answered calls, dropped calls stay
    /// neutral, and a dropped probe only gives its slot back. In a window of calls, those dropped
    /// since the last answer count.
    pub open_on_no_answer: bool,
    /// The time for which the circuit stays open. Default 30 s, at least 1 ms, at most 30 days.
    pub open_for: Duration,
    /// If true, the open time doubles with each opening, up to `max_open`, until closed has held
    /// for a whole window. Default `false`.
    pub growing: bool,
    /// If true, open times differ from circuit to circuit, so that a fleet whose circuits opened
    /// together does not probe in step. A fixed time is up to a tenth longer, and so is the time
    /// that the upstream asked for. A growing time is drawn from its upper half. Default `true`.
    pub jitter: bool,
    /// The longest open time, whether it grew or the upstream asked for it (`Retry-After`). Default
    /// (`None`): ten times `open_for`, at most 30 days. With `jitter`, a fixed or requested time
    /// that would reach it is drawn from the tenth below.
    pub max_open: Option<Duration>,
    /// The number of calls admitted in half-open. Default 3, at most 511.
    pub probes: u16,
    /// The rule that judges the probes. Default [`Verdict::Rate`].
    pub verdict: Verdict,
    /// The longest time that probes may be in flight, counted from the newest, before the circuit
    /// opens again. It applies once no further probe may be admitted, so that hung probes cannot
    /// hold the circuit half-open. Default (`None`): as long as `open_for`. Must be above the time
    /// of the slowest good answer, or no probe would ever close the circuit.
    pub lease: Option<Duration>,
    /// The time after closing by probes in which the circuit comes to admit everything again, from
    /// a tenth of all calls to all of them. Default zero: at once.
    pub ramp: Duration,
}

/// The calls of which the shares are computed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// The calls of the last such time: at least 10 ms, at most a day. Successes cost no write that
    /// threads share.
    Time(Duration),
    /// The last so many calls, 1 to 1 048 576, however long ago they were: for upstreams that are
    /// called rarely. Every call writes words that all threads share.
    Calls(u32),
}

/// The threshold of slow calls, and the share of them that is too high.
///
/// **Not for brown-outs.** If callers would have waited longer than `after`, it turns a slow
/// upstream into one that is down. Each probe that succeeds slowly opens the circuit again. In a
/// drill, 26 % of the calls were answered this way, and all without it
/// ([guide](crate::guide::choosing#what-drills-have-shown)).
#[derive(Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// The duration from which a call is slow, whatever its result. From 1 ms to a day. Best is
    /// about the longest time that callers wait. An update to another one restarts the window.
    pub after: Duration,
    /// The share of slow calls at which the circuit opens, above 0 and up to 1.
    pub rate: f64,
}

/// The rule that judges the probes of half-open. Under either rule, a share of slow probes that
/// would open the circuit keeps it open.
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
    /// The default: an upstream that fails less often would not open a closed circuit either, so it
    /// must not keep one open. Without a `failure_rate` this is [`AnyFailure`](Self::AnyFailure).
    #[default]
    Rate,
    /// The first failure opens the circuit again. It closes when all probes have succeeded. If an
    /// upstream always fails a share of its calls, a false trip lasts several times as long.
    AnyFailure,
}

/// Shows the setting.
impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(length) => write!(f, "{length:?}"),
            Self::Calls(calls) => write!(f, "{calls} calls"),
        }
    }
}

/// Shows the settings.
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
