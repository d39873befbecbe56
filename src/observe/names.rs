//! The metrics, each with its name, kind, labels and meaning.

/// A metric that [`Registry::publish`](crate::observe::Registry) emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub kind: MetricKind,
    /// The names of its labels, besides `name`, which all have.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// What a [`Metric`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is what is now.
    Gauge,
}

macro_rules! metrics {
    ($($id:ident $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(pub(crate) const $id: &Metric = &Metric {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All metrics, in the order of the table in [`observe`](crate::observe).
        pub const METRICS: &[&Metric] = &[$($id),*];
    };
}

metrics! {
    CALLS "keep_calls_total" Counter ["layer", "outcome"]
        "Calls by how they ended";
    REJECTIONS "keep_rejections_total" Counter ["layer", "kind"]
        "Calls that were turned away or cut off, by the reason";
    CONFIG "keep_config" Gauge ["layer", "param"]
        "The thresholds in force; times in seconds, shares between 0 and 1";
    CIRCUIT_STATE "keep_circuit_breaker_state" Gauge ["state"]
        "1 for the state that the circuit is in; of keyed circuits, how many are in each";
    CIRCUIT_TRANSITIONS "keep_circuit_breaker_transitions_total" Counter ["from", "to", "reason"]
        "Changes of state";
    CIRCUIT_FAILURES "keep_circuit_breaker_failure_ratio" Gauge []
        "Failed calls of those in the window";
    CIRCUIT_SLOW "keep_circuit_breaker_slow_ratio" Gauge []
        "Slow calls of those in the window";
    CIRCUIT_CALLS "keep_circuit_breaker_window_calls" Gauge []
        "Calls in the window";
    BULKHEAD_IN_FLIGHT "keep_bulkhead_in_flight" Gauge []
        "Calls that run now";
    BULKHEAD_LIMIT "keep_bulkhead_limit" Gauge []
        "How many may run at once; of keys, of each";
    BULKHEAD_QUEUED "keep_bulkhead_queued" Gauge []
        "Calls that wait for a place";
    RETRY_CALLS "keep_retry_calls_total" Counter ["outcome"]
        "Calls by how their attempts ended";
    RETRY_ATTEMPTS "keep_retry_attempts_total" Counter []
        "Attempts beyond the first that were sent";
    RETRY_BUDGET "keep_retry_budget_tokens" Gauge []
        "Retries that the budget would pay for";
    LIMIT_DECISIONS "keep_rate_limit_decisions_total" Counter ["decision"]
        "Calls that were admitted or rejected";
    LIMIT_QUEUED "keep_rate_limit_queued" Gauge []
        "Calls that wait for their turn";
    LIMIT_KEYS "keep_rate_limit_keys" Gauge []
        "Keys that have used some of their burst";
    LIMIT_EVICTIONS "keep_rate_limit_evictions_total" Counter []
        "Keys whose place another one took";
    TIMEOUTS "keep_timeout_total" Counter ["scope"]
        "Calls that took too long";
}
