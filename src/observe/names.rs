//! The metrics, each with its name, kind, labels and meaning.

/// A metric that [`Registry::publish`](crate::observe::Registry) emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// The names of its labels, besides `name`, which all metrics have.
    pub labels: &'static [&'static str],
    /// Its meaning.
    pub help: &'static str,
}

/// The kind of a [`Metric`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// A count that only grows.
    Counter,
    /// A current value.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: MetricKind::Gauge,
        labels,
        help,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Histogram,
        labels,
        help,
    }
}

pub(crate) const CALLS: &Metric = &counter(
    "tower_keep_calls_total",
    &["layer", "outcome"],
    "Calls by how they ended",
);
pub(crate) const REJECTIONS: &Metric = &counter(
    "tower_keep_rejections_total",
    &["layer", "kind"],
    "Calls that were rejected or cut off, by the reason",
);
pub(crate) const CONFIG: &Metric = &gauge(
    "tower_keep_config",
    &["layer", "param"],
    "The thresholds in force; times in seconds, shares between 0 and 1",
);
pub(crate) const CIRCUIT_STATE: &Metric = &gauge(
    "tower_keep_circuit_breaker_state",
    &["state"],
    "1 for the state that the circuit is in; of keyed circuits, how many are in each",
);
pub(crate) const CIRCUIT_TRANSITIONS: &Metric = &counter(
    "tower_keep_circuit_breaker_transitions_total",
    &["from", "to", "reason"],
    "Changes of state",
);
pub(crate) const CIRCUIT_FAILURES: &Metric = &gauge(
    "tower_keep_circuit_breaker_failure_ratio",
    &[],
    "Failed calls of those in the window",
);
pub(crate) const CIRCUIT_SLOW: &Metric = &gauge(
    "tower_keep_circuit_breaker_slow_ratio",
    &[],
    "Slow calls of those in the window",
);
pub(crate) const CIRCUIT_CALLS: &Metric = &gauge(
    "tower_keep_circuit_breaker_window_calls",
    &[],
    "Calls in the window",
);
pub(crate) const BULKHEAD_IN_FLIGHT: &Metric =
    &gauge("tower_keep_bulkhead_in_flight", &[], "Calls that run now");
pub(crate) const BULKHEAD_LIMIT: &Metric = &gauge(
    "tower_keep_bulkhead_limit",
    &[],
    "How many may run at once; of keys, of each",
);
pub(crate) const BULKHEAD_USED: &Metric = &gauge(
    "tower_keep_bulkhead_used_ratio",
    &[],
    "The share of the limit that is in use; of keys, by the fullest",
);
pub(crate) const ADAPTIVE_LIMIT: &Metric = &gauge(
    "tower_keep_adaptive_limit",
    &[],
    "The limit that was learned",
);
pub(crate) const ADAPTIVE_RTT: &Metric = &gauge(
    "tower_keep_adaptive_rtt_seconds",
    &["kind"],
    "How long calls take, on average and when none queues",
);
pub(crate) const BULKHEAD_QUEUED: &Metric = &gauge(
    "tower_keep_bulkhead_queued",
    &[],
    "Calls that wait for a permit",
);
pub(crate) const BULKHEAD_RECLAIMED: &Metric = &counter(
    "tower_keep_bulkhead_reclaimed_total",
    &[],
    "Places that were taken back from calls that held them too long",
);
pub(crate) const BULKHEAD_WAIT: &Metric = &histogram(
    "tower_keep_bulkhead_wait_seconds",
    &["result"],
    "Wait for a permit, of calls that waited",
);
pub(crate) const RETRY_CALLS: &Metric = &counter(
    "tower_keep_retry_calls_total",
    &["outcome"],
    "Calls by how their attempts ended",
);
pub(crate) const RETRY_ATTEMPTS: &Metric = &counter(
    "tower_keep_retry_attempts_total",
    &["cause"],
    "Attempts beyond the first that were sent, by what was wrong with the one before",
);
pub(crate) const RETRY_BACKOFF: &Metric = &histogram(
    "tower_keep_retry_backoff_seconds",
    &[],
    "How long retries were to wait before they were sent",
);
pub(crate) const RETRY_BUDGET: &Metric = &gauge(
    "tower_keep_retry_budget_tokens",
    &[],
    "Retries that the budget would pay for",
);
pub(crate) const LIMIT_DECISIONS: &Metric = &counter(
    "tower_keep_rate_limit_decisions_total",
    &["decision"],
    "Calls that were admitted or rejected",
);
pub(crate) const LIMIT_QUEUED: &Metric = &gauge(
    "tower_keep_rate_limit_queued",
    &[],
    "Calls that wait for a rate limit",
);
pub(crate) const LIMIT_WAIT: &Metric = &histogram(
    "tower_keep_rate_limit_wait_seconds",
    &[],
    "Wait for a rate limit, of calls that waited",
);
pub(crate) const LIMIT_KEYS: &Metric = &gauge(
    "tower_keep_rate_limit_keys",
    &[],
    "Keys that have used some of their burst",
);
pub(crate) const LIMIT_EVICTIONS: &Metric = &counter(
    "tower_keep_rate_limit_evictions_total",
    &[],
    "Keys whose place another one took",
);
pub(crate) const FLEET_LEASED: &Metric = &counter(
    "tower_keep_rate_limit_leased_units_total",
    &[],
    "Units that a store has granted to this process",
);
pub(crate) const FLEET_UNSPENT: &Metric = &counter(
    "tower_keep_rate_limit_unspent_units_total",
    &[],
    "Units of those that ended before a call spent them",
);
pub(crate) const FLEET_EXCHANGES: &Metric = &counter(
    "tower_keep_rate_limit_store_exchanges_total",
    &["result"],
    "Batches of asks to a store, by whether they were answered",
);
pub(crate) const FLEET_UP: &Metric = &gauge(
    "tower_keep_rate_limit_store_up",
    &[],
    "0 while the store of a limit that processes share does not answer",
);
pub(crate) const FLEET_ROUND_TRIP: &Metric = &gauge(
    "tower_keep_rate_limit_store_round_trip_seconds",
    &[],
    "The mean of the store's last answers",
);
pub(crate) const HEDGES: &Metric =
    &counter("tower_keep_hedge_sent_total", &[], "Hedges that were sent");
pub(crate) const HEDGE_WINS: &Metric = &counter(
    "tower_keep_hedge_wins_total",
    &["winner"],
    "Hedged calls by which attempt won",
);
pub(crate) const HEDGE_DELAY: &Metric = &gauge(
    "tower_keep_hedge_delay_seconds",
    &[],
    "After how long a call is hedged",
);
pub(crate) const FALLBACKS: &Metric = &counter(
    "tower_keep_fallback_total",
    &["result"],
    "Failed calls by what the fallback did",
);
pub(crate) const SPILLS: &Metric = &counter(
    "tower_keep_spill_total",
    &["backend", "result"],
    "Backends of a list by what became of them in a call",
);
pub(crate) const FAULTS_INJECTED: &Metric = &counter(
    "tower_keep_faults_injected_total",
    &["fault"],
    "Faults that were injected on purpose",
);
pub(crate) const FAULTS_WOULD: &Metric = &counter(
    "tower_keep_faults_would_inject_total",
    &["fault"],
    "Faults that would have been injected, in shadow mode",
);
pub(crate) const FAULTS_SPARED: &Metric = &counter(
    "tower_keep_faults_spared_total",
    &[],
    "Calls that were spared faults because enough others suffered",
);
pub(crate) const FAULTS_RUNNING: &Metric = &gauge(
    "tower_keep_faults_running",
    &["reason"],
    "Layers that inject faults on purpose now",
);
pub(crate) const FAULTS_ACTIVE: &Metric = &gauge(
    "tower_keep_faults_active",
    &[],
    "Calls that suffer from faults now",
);
pub(crate) const THROTTLE: &Metric = &gauge(
    "tower_keep_throttle_probability",
    &[],
    "The probability that a call is rejected",
);
pub(crate) const SHADOW_CALLS: &Metric = &counter(
    "tower_keep_shadow_calls_total",
    &[],
    "Calls that settings on trial were asked about",
);
pub(crate) const WOULD_REJECT: &Metric = &counter(
    "tower_keep_would_reject_total",
    &["kind"],
    "Calls that settings on trial would have rejected, by the reason",
);
pub(crate) const WATCH_ALIVE: &Metric = &gauge(
    "tower_keep_settings_watch_alive",
    &[],
    "1 while a file of settings is followed",
);
pub(crate) const WATCH_FAILING: &Metric = &gauge(
    "tower_keep_settings_watch_failing",
    &[],
    "1 while what is in the file was not taken",
);
pub(crate) const WATCH_LAST_GOOD: &Metric = &gauge(
    "tower_keep_settings_last_good_seconds",
    &[],
    "How long ago the file was last read and found good",
);
pub(crate) const WATCH_READS: &Metric = &counter(
    "tower_keep_settings_reads_total",
    &[],
    "How often the file was read",
);
pub(crate) const WATCH_TEXTS: &Metric = &counter(
    "tower_keep_settings_texts_total",
    &["result"],
    "Texts of the file by what became of them",
);
pub(crate) const DRAIN_IN_FLIGHT: &Metric = &gauge(
    "tower_keep_drain_in_flight",
    &[],
    "Calls of a stack that are in flight",
);
pub(crate) const DRAINING: &Metric = &gauge(
    "tower_keep_draining",
    &[],
    "1 while the stack takes no new calls",
);
pub(crate) const CALL_DURATION: &Metric = &histogram(
    "tower_keep_call_duration_seconds",
    &["scope", "outcome"],
    "How long calls took, as timeouts saw them",
);
pub(crate) const TIMEOUTS: &Metric = &counter(
    "tower_keep_timeout_total",
    &["scope"],
    "Calls that took too long",
);

/// All metrics, in the order of the table in [`observe`](crate::observe).
pub const METRICS: &[&Metric] = &[
    CALLS,
    CALL_DURATION,
    REJECTIONS,
    CONFIG,
    CIRCUIT_STATE,
    CIRCUIT_TRANSITIONS,
    CIRCUIT_FAILURES,
    CIRCUIT_SLOW,
    CIRCUIT_CALLS,
    BULKHEAD_IN_FLIGHT,
    BULKHEAD_LIMIT,
    BULKHEAD_USED,
    ADAPTIVE_LIMIT,
    ADAPTIVE_RTT,
    BULKHEAD_QUEUED,
    BULKHEAD_RECLAIMED,
    BULKHEAD_WAIT,
    RETRY_CALLS,
    RETRY_ATTEMPTS,
    RETRY_BACKOFF,
    RETRY_BUDGET,
    LIMIT_DECISIONS,
    LIMIT_QUEUED,
    LIMIT_WAIT,
    LIMIT_KEYS,
    LIMIT_EVICTIONS,
    FLEET_LEASED,
    FLEET_UNSPENT,
    FLEET_EXCHANGES,
    FLEET_UP,
    FLEET_ROUND_TRIP,
    HEDGES,
    HEDGE_WINS,
    HEDGE_DELAY,
    FALLBACKS,
    SPILLS,
    FAULTS_INJECTED,
    FAULTS_WOULD,
    FAULTS_SPARED,
    FAULTS_RUNNING,
    FAULTS_ACTIVE,
    THROTTLE,
    SHADOW_CALLS,
    WOULD_REJECT,
    WATCH_ALIVE,
    WATCH_FAILING,
    WATCH_LAST_GOOD,
    WATCH_READS,
    WATCH_TEXTS,
    DRAIN_IN_FLIGHT,
    DRAINING,
    TIMEOUTS,
];
