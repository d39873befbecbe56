//! The data of an instance at one moment.

use crate::{
    algorithm::{BreakerState, Cause, Counts, Transition},
    observe::{Histogram, KeyInstance, Rejections, Tally, Totals, Unwell},
};

/// A named layer at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Instance {
    /// The pattern: `"circuit_breaker"`.
    pub layer: &'static str,
    /// The name given to `.name(..)`.
    pub name: &'static str,
    /// The counts since it was built.
    pub totals: Totals,
    /// Its thresholds, by the names of their setters. Times are in seconds, shares between 0 and 1.
    pub config: Vec<(&'static str, f64)>,
    /// The data that only its pattern has.
    pub state: State,
    /// The durations of calls, or of their waits.
    pub histograms: Vec<Histogram>,
    /// The keys in the worst state, at most ten, or all that have a label in metrics. Empty without
    /// keys, and for rate limits, whose tables store no keys.
    pub keys: Vec<KeyInstance>,
    /// If true, the gauges of the metrics are per key.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) is_by_key: bool,
}

impl Instance {
    // Inlined, as is `with_keys`: it is large, and so made where it is kept.
    #[inline]
    pub(crate) fn new(tally: &Tally, config: Vec<(&'static str, f64)>, state: State) -> Self {
        Self {
            totals: tally.totals(),
            histograms: tally.histograms(),
            ..Self::of((tally.layer, tally.name), config, state)
        }
    }

    /// Makes one without a tally.
    pub(crate) fn of(
        (layer, name): (&'static str, Option<&'static str>),
        config: Vec<(&'static str, f64)>,
        state: State,
    ) -> Self {
        Self {
            layer,
            name: name.unwrap_or_default(),
            totals: Totals::default(),
            config,
            state,
            histograms: Vec::new(),
            keys: Vec::new(),
            is_by_key: false,
        }
    }

    /// Adds the data of its keys.
    #[inline]
    pub(crate) fn with_keys(self, (keys, is_by_key): (Vec<KeyInstance>, bool)) -> Self {
        Self {
            keys,
            is_by_key,
            ..self
        }
    }
}

/// The counts of a rate limit on a store that processes share.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetCounts {
    /// Units that the store has granted to this process so far.
    pub leased: u64,
    /// Granted units that expired before a call spent them, so far.
    pub unspent: u64,
    /// Batches of requests that were answered so far.
    pub answered: u64,
    /// Batches of requests without an answer so far.
    pub failed: u64,
    /// If true, the store does not answer.
    pub is_down: bool,
    /// The mean round trip of the last answers in seconds. `None` before the first.
    pub round_trip: Option<f64>,
}

/// The data that only an instance's pattern has.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum State {
    /// A circuit breaker, or the circuits of all keys.
    CircuitBreaker(Circuits),
    /// A bulkhead, or the bulkheads of all keys together.
    Bulkhead {
        /// The calls in flight.
        in_flight: u64,
        /// The most calls in flight, or of each key.
        limit: u64,
        /// The calls in the wait queue.
        queued: u64,
        /// The share of the limit that is in use, or that of the fullest key.
        used: f64,
        /// The numbers that the limit is learned from, if it is learned and there is only one.
        learned: Option<LearnedLimit>,
    },
    /// A rate limit, or the limits of all keys.
    RateLimit {
        /// The calls in the wait queue. `None` for keyed limits of any kind, which have a queue
        /// each.
        queued: Option<u64>,
        /// Keys that have used some of their burst. `None` without keys.
        keys: Option<u64>,
        /// Keys that were replaced by another so far. `None` without keys.
        evictions: Option<u64>,
        /// The counts of the store, if processes share the limit.
        fleet: Option<FleetCounts>,
    },
    /// A retry.
    Retry {
        /// The results of its calls so far, by their names in the metrics.
        calls: Vec<(&'static str, u64)>,
        /// Attempts beyond the first that were sent so far, by the problem of the one before.
        attempts: Vec<(&'static str, u64)>,
        /// The retries that the budget would pay for. `None` without a budget.
        budget: Option<u64>,
    },
    /// A fallback.
    Fallback {
        /// Failed calls that got another answer so far.
        answered: u64,
        /// Failed calls for which the fallback failed too, so far.
        failed: u64,
    },
    /// A list of backends.
    Spill {
        /// The results of each backend so far: its name, the result's name, and the count.
        backends: Vec<(&'static str, &'static str, u64)>,
    },
    /// A throttle, or the throttles of all keys.
    Throttle {
        /// The probability that a call is rejected now, or the highest of all keys.
        probability: f64,
    },
    /// A hedge.
    Hedge {
        /// Hedges that were sent, so far.
        sent: u64,
        /// The results of hedged calls so far: won by the `first` attempt, a `hedge`, or `none`.
        wins: Vec<(&'static str, u64)>,
        /// The delay of a hedge now, in seconds. `None` until it is learned.
        delay: Option<f64>,
    },
    /// Faults that are injected on purpose.
    #[cfg(feature = "fault")]
    Faults {
        /// If true, faults are being injected.
        running: bool,
        /// The reason given to the layer.
        reason: &'static str,
        /// The calls that are affected now.
        active: u64,
        /// Faults that were injected, so far, by their names.
        injected: Vec<(&'static str, u64)>,
        /// Faults that would have been injected, so far, by their names.
        would_inject: Vec<(&'static str, u64)>,
        /// Calls that were spared so far, because enough others were affected.
        spared: u64,
    },
    /// Gates on [trial](crate::gate::Shadow).
    Shadow {
        /// Calls that were checked against them so far.
        calls: u64,
        /// Calls that they would have rejected so far.
        would_reject: Rejections,
        /// Calls that they would have queued so far.
        would_wait: u64,
    },
    /// A file of settings that is watched.
    Watch {
        /// If true, the file is still watched.
        alive: bool,
        /// If true, the current content of the file is not applied.
        failing: bool,
        /// The seconds since it was last read and found valid.
        last_good: Option<f64>,
        /// The number of reads so far.
        reads: u64,
        /// The number of reads so far that changed something.
        changes: u64,
        /// The number of errors so far.
        errors: u64,
    },
    /// A stack that can be [drained](crate::stack::ServerHandle::drain).
    Drain {
        /// The calls in flight, queued ones included.
        in_flight: u64,
        /// If true, new calls are rejected.
        draining: bool,
    },
    /// A timeout.
    Timeout {
        /// If true, it limits the call with all its attempts.
        total: bool,
    },
}

/// The times that a limit on calls in flight is learned from, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LearnedLimit {
    /// The mean time of a call in the last window. `None` before the first.
    pub rtt: Option<f64>,
    /// The algorithm's estimate for a call that is not queued. `None` if it uses no times.
    pub baseline: Option<f64>,
}

/// The circuits of a layer.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Circuits {
    /// The number of circuits in each state.
    pub states: [(BreakerState, u64); BreakerState::ALL.len()],
    /// The content of the window. Keyed circuits have one each: that of the circuit that fails
    /// most.
    pub window: Option<Counts>,
    /// The number of times that each transition happened so far. The transitions that a circuit
    /// makes by itself are listed from the start.
    pub transitions: Vec<(BreakerState, BreakerState, Cause, u64)>,
    /// The last sixteen transitions, the oldest first.
    pub recent: Vec<RecentTransition>,
}

/// A transition of one of the circuits of a layer, with what explains it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecentTransition {
    /// The key of the circuit, as its builder [shows](KeyInstance::key) it. `None` for an only
    /// circuit, or the circuit that keys share.
    pub key: Option<String>,
    /// The change of state.
    pub transition: Transition,
    /// The setting that was reached, by the name of its setter.
    pub threshold: Option<String>,
    /// The seconds until probes are admitted, if it opens.
    pub open_for: Option<f64>,
    /// The seconds since the transition.
    pub ago: f64,
    /// The time of the transition, in nanoseconds of the process's clock.
    #[cfg_attr(feature = "serde", serde(skip))]
    #[cfg_attr(
        not(feature = "page"),
        allow(dead_code, reason = "only the page tells")
    )]
    pub(crate) moment: u64,
}

/// The interface between the registry and a layer.
pub(crate) trait Observed: Send + Sync {
    fn layer(&self) -> &'static str;

    fn name(&self) -> Option<&'static str>;

    /// Returns the layer's data now. Runs no user code.
    fn observe(&self) -> Instance;

    /// Returns whether there is anything to observe yet.
    fn is_there(&self) -> bool {
        true
    }

    /// Returns its problem, if it is unhealthy.
    fn unwell(&self) -> Option<Unwell> {
        None
    }
}
