//! What is known of an instance at one moment, as data.

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
    /// As given to `.name(..)`.
    pub name: &'static str,
    /// What it has counted since it was built.
    pub totals: Totals,
    /// Its thresholds, by the names of their setters. Times are in seconds, shares between 0 and 1.
    pub config: Vec<(&'static str, f64)>,
    /// What only its pattern has.
    pub state: State,
    /// How long calls took or waited.
    pub histograms: Vec<Histogram>,
    /// The keys that are worst off, at most ten, or all that have a label in metrics. Empty without
    /// keys, and of rate limits, whose tables keep none.
    pub keys: Vec<KeyInstance>,
    /// If true, the gauges of the metrics are by key.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) is_by_key: bool,
}

impl Instance {
    pub(crate) fn new(tally: &Tally, config: Vec<(&'static str, f64)>, state: State) -> Self {
        Self {
            totals: tally.totals(),
            histograms: tally.histograms(),
            ..Self::of((tally.layer, tally.name), config, state)
        }
    }

    /// One that has no tally.
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

    /// With what keys have of their own.
    pub(crate) fn with_keys(self, (keys, is_by_key): (Vec<KeyInstance>, bool)) -> Self {
        Self {
            keys,
            is_by_key,
            ..self
        }
    }
}

/// The part of a rate limit that asks the store which processes share.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetCounts {
    /// Units that the store has granted to this process, so far.
    pub leased: u64,
    /// Units of them that ended before a call spent them, so far.
    pub unspent: u64,
    /// Batches of asks that were answered, so far.
    pub answered: u64,
    /// Batches of asks without an answer, so far.
    pub failed: u64,
    /// True while the store does not answer.
    pub is_down: bool,
    /// The mean of the last answers in seconds, `None` before the first.
    pub round_trip: Option<f64>,
}

/// What an instance has that is its pattern's own.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum State {
    /// Of a circuit breaker, or of the circuits of all keys.
    CircuitBreaker(Circuits),
    /// Of a bulkhead, or of those of all keys together.
    Bulkhead {
        /// Calls that run now.
        in_flight: u64,
        /// How many may; of keys, how many of each.
        limit: u64,
        /// Calls that wait.
        queued: u64,
        /// The share of the limit that is in use. Of keys, by the one that is fullest.
        used: f64,
        /// How the limit is learned, if it is, and if there is but one.
        learned: Option<LearnedLimit>,
    },
    /// Of a rate limit, or of those of all keys.
    RateLimit {
        /// Calls that wait; `None` of limits of any kind for each key, which have a queue each.
        queued: Option<u64>,
        /// Keys that have used some of their burst; `None` without keys.
        keys: Option<u64>,
        /// Keys whose place another one took, so far; `None` without keys.
        evictions: Option<u64>,
        /// The part that asks a store, if processes share the limit.
        fleet: Option<FleetCounts>,
    },
    /// Of a retry.
    Retry {
        /// How its calls ended, so far, by their names in the metrics.
        calls: Vec<(&'static str, u64)>,
        /// Attempts beyond the first that were sent, so far, by what was wrong with the one before.
        attempts: Vec<(&'static str, u64)>,
        /// How many retries the budget would pay for; `None` without a budget.
        budget: Option<u64>,
    },
    /// Of a fallback.
    Fallback {
        /// Failed calls that were answered otherwise, so far.
        answered: u64,
        /// Failed calls for which the fallback failed too, so far.
        failed: u64,
    },
    /// Of a list of backends.
    Spill {
        /// What became of each in calls so far: its name, the result's, and how often.
        backends: Vec<(&'static str, &'static str, u64)>,
    },
    /// Of a throttle, or of those of all keys.
    Throttle {
        /// The probability that a call is rejected now; of keys, the highest.
        probability: f64,
    },
    /// Of a hedge.
    Hedge {
        /// Hedges that were sent, so far.
        sent: u64,
        /// How hedged calls ended, so far: won by the `first` attempt, a `hedge`, or `none`.
        wins: Vec<(&'static str, u64)>,
        /// After how many seconds a hedge is sent now; `None` while that is being learnt.
        delay: Option<f64>,
    },
    /// Faults that are injected on purpose.
    #[cfg(feature = "fault")]
    Faults {
        /// True while they are injected.
        running: bool,
        /// The reason that the layer was given.
        reason: &'static str,
        /// Calls that suffer now.
        active: u64,
        /// Faults that were injected, so far, by their names.
        injected: Vec<(&'static str, u64)>,
        /// Faults that would have been injected, so far, by their names.
        would_inject: Vec<(&'static str, u64)>,
        /// Calls that were spared, so far, because enough others suffered.
        spared: u64,
    },
    /// Of gates on [trial](crate::gate::Shadow).
    Shadow {
        /// Calls that they were asked about, so far.
        calls: u64,
        /// Those that they would have rejected, so far.
        would_reject: Rejections,
        /// Those that they would have let wait, so far.
        would_wait: u64,
    },
    /// Of a file of settings that is followed.
    Watch {
        /// Whether it is followed still.
        alive: bool,
        /// Whether what is in the file now was not taken.
        failing: bool,
        /// How many seconds ago it was last read and found good.
        last_good: Option<f64>,
        /// How often it was read, so far.
        reads: u64,
        /// How often it has changed something, so far.
        changes: u64,
        /// How many errors there were, so far.
        errors: u64,
    },
    /// The state of a stack that can be [drained](crate::stack::ServerHandle::drain).
    Drain {
        /// Calls in flight, those that wait included.
        in_flight: u64,
        /// Whether new calls are rejected.
        draining: bool,
    },
    /// Of a timeout.
    Timeout {
        /// Whether it limits the call with all its attempts.
        total: bool,
    },
}

/// What a limit on calls in flight is learned from, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LearnedLimit {
    /// How long calls took on average in the last window; `None` before the first.
    pub rtt: Option<f64>,
    /// What the algorithm takes for the time of a call that does not queue; `None` if it does not
    /// look at times.
    pub baseline: Option<f64>,
}

/// The circuits of a layer.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Circuits {
    /// How many are in each state.
    pub states: Vec<(BreakerState, u64)>,
    /// What the window holds; of keyed circuits, which have one each, that of the one that fails
    /// most.
    pub window: Option<Counts>,
    /// The number of times that each transition was made, so far. Those that a circuit makes by
    /// itself are listed from the start.
    pub transitions: Vec<(BreakerState, BreakerState, Cause, u64)>,
    /// The last sixteen transitions, the oldest first.
    pub recent: Vec<RecentTransition>,
}

/// A transition of one of the circuits of a layer, with what explains it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecentTransition {
    /// The key of the circuit, as its builder [shows](KeyInstance::key) it. `None` of the only
    /// circuit, or that which keys share.
    pub key: Option<String>,
    /// The change of state.
    pub transition: Transition,
    /// The setting that was reached, by the name of its setter.
    pub threshold: Option<String>,
    /// The seconds until probes are let through, of one that opens.
    pub open_for: Option<f64>,
    /// The seconds since then.
    pub ago: f64,
    /// The moment, in nanoseconds of the process's clock.
    #[cfg_attr(feature = "serde", serde(skip))]
    #[cfg_attr(
        not(feature = "page"),
        allow(dead_code, reason = "only the page tells")
    )]
    pub(crate) moment: u64,
}

/// What the registry asks of a layer.
pub(crate) trait Observed: Send + Sync {
    fn layer(&self) -> &'static str;

    fn name(&self) -> Option<&'static str>;

    /// The layer as it is now. Runs no user code.
    fn observe(&self) -> Instance;

    /// Returns whether there is anything to observe yet.
    fn is_there(&self) -> bool {
        true
    }

    /// What is not well with it, if anything is.
    fn unwell(&self) -> Option<Unwell> {
        None
    }
}
