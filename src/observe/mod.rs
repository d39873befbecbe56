//! What the layers do, for people and for machines.
//!
//! Every layer counts in plain atomics, by thread where calls would contend, and its handle's
//! snapshot has these [`Totals`]. A layer that was given a name is also known to the [`Registry`],
//! which copies all of it to the [`metrics`] facade:
//!
//! ```
//! # #[cfg(feature = "metrics")] {
//! use tower_keep::observe::Registry;
//!
//! // In the handler of `/metrics`, before the recorder renders, or every few seconds.
//! Registry::global().publish();
//! # }
//! ```
//!
//! No macro of that facade runs on the path of a call. So a recorder that is installed late has
//! missed nothing, and no recorder can slow a call down.
//!
//! | metric | kind | labels besides `name` | meaning |
//! |---|---|---|---|
//! | `tower_keep_calls_total` | counter | `layer`, `outcome` | calls by how they ended: `success`, `failure`, `overload`, `ignored`, `cancelled`, `late`, `timeout`, `rejected` |
//! | `tower_keep_call_duration_seconds` | histogram | `scope`, `outcome` | how long calls took until the head of their response, as a timeout on an `attempt` or a `total` saw them: `success`, `failure`, `overload`, `ignored`, `timeout`, `cancelled`; calls that were answered at once took nothing |
//! | `tower_keep_rejections_total` | counter | `layer`, `kind` | calls that were turned away or cut off, by [kind](crate::RejectedKind::as_str) |
//! | `tower_keep_config` | gauge | `layer`, `param` | the thresholds in force, as lines for graphs; times in seconds, shares from 0 to 1 |
//! | `tower_keep_circuit_breaker_state` | gauge | `state` | 1 for the [state](crate::circuit_breaker::BreakerState::as_str) of the circuit, 0 for the others; of keyed circuits, how many are in each |
//! | `tower_keep_circuit_breaker_transitions_total` | counter | `from`, `to`, `reason` | changes of state, by their [cause](crate::circuit_breaker::Cause::as_str) |
//! | `tower_keep_circuit_breaker_failure_ratio` | gauge | | failed calls of those in the window; of keyed circuits, that of the one that fails most |
//! | `tower_keep_circuit_breaker_slow_ratio` | gauge | | slow calls of those in the window; of keyed circuits, that of the one that fails most |
//! | `tower_keep_circuit_breaker_window_calls` | gauge | | calls in the window; of keyed circuits, that of the one that fails most |
//! | `tower_keep_bulkhead_in_flight` | gauge | | calls that run now; of keys, all together |
//! | `tower_keep_bulkhead_limit` | gauge | | how many may; of keys, how many of each |
//! | `tower_keep_bulkhead_used_ratio` | gauge | | the share of the limit that is in use; of keys, by the one that is fullest: what to alert on |
//! | `tower_keep_adaptive_limit` | gauge | | the limit that was [learned](crate::bulkhead::BulkheadBuilder::adaptive); not of keys |
//! | `tower_keep_adaptive_rtt_seconds` | gauge | `kind` | how long calls take: on `average` in the last window, and as a `baseline` those that do not queue |
//! | `tower_keep_bulkhead_queued` | gauge | | calls that wait for a place |
//! | `tower_keep_bulkhead_reclaimed_total` | counter | | places that were [taken back](crate::bulkhead::BulkheadBuilder::reclaim_after) from calls that held them too long |
//! | `tower_keep_bulkhead_wait_seconds` | histogram | `result` | how long calls waited for a place, of those that did: `admitted`, `rejected` or `cancelled` |
//! | `tower_keep_retry_calls_total` | counter | `outcome` | calls by how their attempts ended: `first_try`, `recovered`, `exhausted`, `budget_denied`, `not_retryable`, `not_replayable`, `not_sent`, `rejected` |
//! | `tower_keep_retry_attempts_total` | counter | `cause` | attempts beyond the first that were sent, by what was wrong with the one before: `failure`, `overload`, `not_sent`, `rejected` |
//! | `tower_keep_retry_backoff_seconds` | histogram | | how long retries were to wait before they were sent |
//! | `tower_keep_retry_budget_tokens` | gauge | | retries that the budget would pay for |
//! | `tower_keep_rate_limit_decisions_total` | counter | `decision` | calls that were `admitted` or `rejected` |
//! | `tower_keep_rate_limit_queued` | gauge | | calls that wait for their turn; not of limits made `per_key`, nor those that wait for a total |
//! | `tower_keep_rate_limit_wait_seconds` | histogram | | how long calls waited for their turn, of those that did |
//! | `tower_keep_rate_limit_keys` | gauge | | keys that have used some of their burst; of a table of keys |
//! | `tower_keep_rate_limit_evictions_total` | counter | | keys whose place another one took, none in debt; of a table of keys |
//! | `tower_keep_rate_limit_leased_units_total` | counter | | units that a [store](crate::store) has granted to this process |
//! | `tower_keep_rate_limit_unspent_units_total` | counter | | units of those that ended before a call spent them |
//! | `tower_keep_rate_limit_store_exchanges_total` | counter | `result` | batches of asks to a store that were `answered`, or `failed` |
//! | `tower_keep_rate_limit_store_up` | gauge | | 0 while the store of a limit that processes share does not answer |
//! | `tower_keep_rate_limit_store_round_trip_seconds` | gauge | | the mean of the store's last answers |
//! | `tower_keep_hedge_sent_total` | counter | | hedges that were sent |
//! | `tower_keep_hedge_wins_total` | counter | `winner` | hedged calls that the `first` attempt, a `hedge` or `none` won |
//! | `tower_keep_hedge_delay_seconds` | gauge | | after how long a call is hedged; absent while that is being learnt |
//! | `tower_keep_fallback_total` | counter | `result` | failed calls that the fallback `answered`, or for which it `failed` too |
//! | `tower_keep_spill_total` | counter | `backend`, `result` | what became of a backend of a [list](crate::fallback::Spill) in a call: `answered`, `unfit`, `cooling`, `rejected`, `failed`, `unwanted`, `unpaid`, `unsendable` |
//! | `tower_keep_faults_injected_total` | counter | `fault` | faults that were [injected](crate::guide::fault) on purpose, by their names |
//! | `tower_keep_faults_would_inject_total` | counter | `fault` | faults that would have been, in shadow mode |
//! | `tower_keep_faults_spared_total` | counter | | calls that were spared, because enough others suffered |
//! | `tower_keep_faults_running` | gauge | `reason` | layers of the name that inject faults now: 0 or 1, unless there are several |
//! | `tower_keep_faults_active` | gauge | | calls that suffer now |
//! | `tower_keep_throttle_probability` | gauge | | the probability that a call is rejected; of keys, the highest |
//! | `tower_keep_shadow_calls_total` | counter | | calls that settings on [trial](crate::gate::Shadow) were asked about |
//! | `tower_keep_would_reject_total` | counter | `kind` | calls that they would have rejected, by [kind](crate::RejectedKind::as_str) |
//! | `tower_keep_settings_watch_alive` | gauge | | 1 while a [file of settings](crate::settings) is followed; `name` is that of the file |
//! | `tower_keep_settings_watch_failing` | gauge | | 1 while what is in the file was not taken |
//! | `tower_keep_settings_last_good_seconds` | gauge | | how long ago the file was last read and found good; every ten seconds, if nobody touches it |
//! | `tower_keep_settings_reads_total` | counter | | how often the file was read |
//! | `tower_keep_settings_texts_total` | counter | `result` | texts of the file that were `applied` and changed something, or were `rejected` |
//! | `tower_keep_drain_in_flight` | gauge | | calls of a [stack](crate::stack) that are in flight, those that wait included |
//! | `tower_keep_draining` | gauge | | 1 while the stack is [drained](crate::stack::ServerHandle::drain) |
//! | `tower_keep_timeout_total` | counter | `scope` | calls that took too long, of a limit on an `attempt` or a `total` |
//!
//! Labels are names and enumerations, never a path, and a key or a host only where a builder says
//! that there are few: ten thousand keyed circuits are six lines. With
//! [`label_keys`](crate::stack::ClientBuilder::label_keys) the gauges of state, ratios, calls in
//! the window, in flight, limit, queued, used and probability have a label `key` in place of one
//! line for all. Its text is a hash unless [`show_keys`](crate::stack::ClientBuilder::show_keys)
//! shows it, and `other` is the worst of all that came too late for a label.
//!
//! A call is counted in `tower_keep_calls_total` at its end, by each layer that learns of it: a
//! rate limit does not, and counts decisions instead. The kinds of rejections that a layer has, and
//! the transitions that circuits make, are there from the start, at 0. Counters of other kinds that
//! have not happened may be absent. A gauge that is absent after it was there, such as a
//! threshold that was turned off, is `NaN`: the facade cannot take it back.
//!
//! **Histograms** have the buckets that [`BUCKETS`] names: give them to the recorder too, as
//! `PrometheusBuilder::new().set_buckets(&BUCKETS)`, or the exporter makes summaries. Each duration
//! is given to the recorder as the mean of those in its bucket since the last publication, so
//! counts by bucket and the sum are right. Only named layers have them.
//!
//! **Cost.** One atomic write a call and layer that threads do not contend for. Publishing costs
//! about 4.5 us a circuit breaker and holds no call up.
//!
//! **OpenTelemetry.** Use a bridge from the `metrics` facade, or scrape with the collector's
//! Prometheus receiver: the [guide](crate::guide::opentelemetry) tells how.
//!
//! **tracing** (feature): one event of target `tower_keep` for each transition and each change of
//! settings. An outage is one `WARN`, `circuit opened`, when it begins: the host or key, the
//! reason, what the window held, the threshold, and how long until probes are let through. It is
//! another, `circuit closed`, when it ends: how long it was, and how many calls were rejected.
//! Probes are `INFO`. Of rejections there is at most one event a second and layer, with how many it
//! stands for besides (`suppressed`). One more tells the rest when they have ended for a
//! second. A key is redacted as above.
//!
//! The span that a call runs in is told of it if it has declared the fields: `tower_keep.attempt`
//! is the number of the last attempt that a retry has sent, and `tower_keep.outcome` is how the
//! call ended (`success`, `failure`, `overload`, `rejected`, `timeout`), as the outermost layer
//! sees it that learns of it. `http.request.resend_count` is OpenTelemetry's name for how often a
//! call was sent again, and is left empty if it was not. Nothing is recorded of calls that were
//! dropped.
//! Without a subscriber this costs a load.
//!
//! ```
//! # #[cfg(feature = "tracing")] {
//! use tracing::field::Empty;
//!
//! let span = tracing::info_span!(
//!     "search",
//!     tower_keep.attempt = Empty,
//!     http.request.resend_count = Empty,
//!     tower_keep.outcome = Empty
//! );
//! # }
//! ```

mod advice;
mod case;
mod durations;
#[cfg(feature = "metrics")]
mod emit;
mod health;
#[cfg(feature = "metrics")]
mod increases;
mod keys;
mod names;
mod origin;
#[cfg(feature = "page")]
mod page;
#[cfg(feature = "metrics")]
mod publish;
#[cfg(feature = "metrics")]
mod recorder;
mod registry;
mod rules;
mod rules_of_calls;
#[cfg(feature = "tracing")]
mod sampler;
#[cfg(feature = "metrics")]
mod samples;
#[cfg(feature = "metrics")]
mod series;
mod state;
mod tally;
mod totals;
pub(crate) mod trace;

pub use advice::{Advice, Evidence};
pub(crate) use durations::Durations;
pub use durations::{BUCKETS, Histogram};
pub(crate) use health::Unwell;
pub use health::{DrainingStack, Health, OpenCircuits};
pub use keys::{KeyInstance, KeyState};
pub(crate) use keys::{OTHER_KEYS, SHOWN_KEYS, Worst, used};
pub(crate) use names::{BULKHEAD_WAIT, CALL_DURATION, LIMIT_WAIT, RETRY_BACKOFF};
pub use names::{METRICS, Metric, MetricKind};
#[cfg(feature = "watch")]
pub(crate) use origin::by_file;
#[cfg(feature = "page")]
pub use page::{Page, PageBody, PageRegistry, page};
pub use registry::Registry;
pub(crate) use registry::register;
pub(crate) use state::Observed;
pub use state::{Circuits, FleetCounts, Instance, LearnedLimit, RecentTransition, State};
pub(crate) use tally::{GateTally, Tally};
pub(crate) use totals::Event;
pub use totals::{Rejections, Totals};
