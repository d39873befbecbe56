//! Observation: what the layers do, for people and for machines.
//!
//! Every layer counts in plain atomics, per thread where calls would contend, and its handle's
//! snapshot has these [`Totals`]. A layer with a name is also registered in the [`Registry`], which
//! copies all of its numbers to the [`metrics`] facade:
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
//! | `tower_keep_call_duration_seconds` | histogram | `scope`, `outcome` | how long calls took until the head of their response, as a timeout on an `attempt` or a `total` measured them: `success`, `failure`, `overload`, `ignored`, `timeout`, `cancelled`; 0 for calls that were answered at once |
//! | `tower_keep_rejections_total` | counter | `layer`, `kind` | calls that were rejected or cut off, by [kind](crate::RejectedKind::as_str) |
//! | `tower_keep_config` | gauge | `layer`, `param` | the thresholds in force, as lines for graphs; times in seconds, shares from 0 to 1 |
//! | `tower_keep_circuit_breaker_state` | gauge | `state` | 1 for the [state](crate::circuit_breaker::BreakerState::as_str) of the circuit, 0 for the others; of keyed circuits, how many are in each |
//! | `tower_keep_circuit_breaker_transitions_total` | counter | `from`, `to`, `reason` | changes of state, by their [cause](crate::circuit_breaker::Cause::as_str) |
//! | `tower_keep_circuit_breaker_failure_ratio` | gauge | | failed calls of those in the window; of keyed circuits, the one that fails most |
//! | `tower_keep_circuit_breaker_slow_ratio` | gauge | | slow calls of those in the window; of keyed circuits, the one that fails most |
//! | `tower_keep_circuit_breaker_window_calls` | gauge | | calls in the window; of keyed circuits, the one that fails most |
//! | `tower_keep_bulkhead_in_flight` | gauge | | calls in flight; of keys, all together |
//! | `tower_keep_bulkhead_limit` | gauge | | the most calls in flight; of keys, of each |
//! | `tower_keep_bulkhead_used_ratio` | gauge | | the share of the limit that is in use; of keys, of the fullest: the one to alert on |
//! | `tower_keep_adaptive_limit` | gauge | | the limit that was [learned](crate::bulkhead::BulkheadBuilder::adaptive); not of keys |
//! | `tower_keep_adaptive_rtt_seconds` | gauge | `kind` | how long calls take: the `average` of the last window, and the `baseline` of calls that are not queued |
//! | `tower_keep_bulkhead_queued` | gauge | | calls that wait for a permit |
//! | `tower_keep_bulkhead_reclaimed_total` | counter | | permits that were [reclaimed](crate::bulkhead::BulkheadBuilder::reclaim_after) from calls that held them too long |
//! | `tower_keep_bulkhead_wait_seconds` | histogram | `result` | how long calls waited for a permit, if they waited: `admitted`, `rejected` or `cancelled` |
//! | `tower_keep_retry_calls_total` | counter | `outcome` | calls by how their attempts ended: `first_try`, `recovered`, `exhausted`, `budget_denied`, `not_retryable`, `not_replayable`, `not_sent`, `rejected` |
//! | `tower_keep_retry_attempts_total` | counter | `cause` | attempts beyond the first that were sent, by the problem of the one before: `failure`, `overload`, `not_sent`, `rejected` |
//! | `tower_keep_retry_backoff_seconds` | histogram | | the planned waits of retries before they were sent |
//! | `tower_keep_retry_budget_tokens` | gauge | | retries that the budget would pay for |
//! | `tower_keep_rate_limit_decisions_total` | counter | `decision` | calls that were `admitted` or `rejected` |
//! | `tower_keep_rate_limit_queued` | gauge | | calls that wait in the queue; not of limits made `per_key`, nor calls that wait for a total |
//! | `tower_keep_rate_limit_wait_seconds` | histogram | | how long calls waited in the queue, if they waited |
//! | `tower_keep_rate_limit_keys` | gauge | | keys that have used some of their burst; of a table of keys |
//! | `tower_keep_rate_limit_evictions_total` | counter | | keys that were replaced by another, none of them in debt; of a table of keys |
//! | `tower_keep_rate_limit_leased_units_total` | counter | | units that a [store](crate::store) has granted to this process |
//! | `tower_keep_rate_limit_unspent_units_total` | counter | | granted units that expired before a call spent them |
//! | `tower_keep_rate_limit_store_exchanges_total` | counter | `result` | batches of requests to a store that were `answered`, or `failed` |
//! | `tower_keep_rate_limit_store_up` | gauge | | 0 while the store of a shared limit does not answer |
//! | `tower_keep_rate_limit_store_round_trip_seconds` | gauge | | the mean round trip of the store's last answers |
//! | `tower_keep_hedge_sent_total` | counter | | hedges that were sent |
//! | `tower_keep_hedge_wins_total` | counter | `winner` | hedged calls that the `first` attempt, a `hedge` or `none` won |
//! | `tower_keep_hedge_delay_seconds` | gauge | | the delay before a call is hedged; absent until it is learned |
//! | `tower_keep_fallback_total` | counter | `result` | failed calls that the fallback `answered`, or for which it `failed` too |
//! | `tower_keep_spill_total` | counter | `backend`, `result` | results of the backends of a [list](crate::fallback::Spill): `answered`, `unfit`, `cooling`, `rejected`, `failed`, `unwanted`, `unpaid`, `unsendable`, `out_of_time` |
//! | `tower_keep_faults_injected_total` | counter | `fault` | faults that were [injected](crate::guide::fault) on purpose, by their names |
//! | `tower_keep_faults_would_inject_total` | counter | `fault` | faults that would have been injected, in shadow mode |
//! | `tower_keep_faults_spared_total` | counter | | calls that were spared, because enough others were affected |
//! | `tower_keep_faults_running` | gauge | `reason` | layers of the name that inject faults now: 0 or 1, unless there are several |
//! | `tower_keep_faults_active` | gauge | | calls that are affected now |
//! | `tower_keep_throttle_probability` | gauge | | the probability that a call is rejected; of keys, the highest |
//! | `tower_keep_shadow_calls_total` | counter | | calls that were checked against settings on [trial](crate::gate::Shadow) |
//! | `tower_keep_would_reject_total` | counter | `kind` | calls that those settings would have rejected, by [kind](crate::RejectedKind::as_str) |
//! | `tower_keep_settings_watch_alive` | gauge | | 1 while a [file of settings](crate::settings) is watched; `name` is that of the file |
//! | `tower_keep_settings_watch_failing` | gauge | | 1 while the content of the file is not applied |
//! | `tower_keep_settings_last_good_seconds` | gauge | | the time since the file was last read and found valid; it is read at least every ten seconds |
//! | `tower_keep_settings_reads_total` | counter | | how often the file was read |
//! | `tower_keep_settings_texts_total` | counter | `result` | contents of the file that were `applied` and changed something, or were `rejected` |
//! | `tower_keep_drain_in_flight` | gauge | | calls of a [stack](crate::stack) in flight, queued ones included |
//! | `tower_keep_draining` | gauge | | 1 while the stack is [drained](crate::stack::ServerHandle::drain) |
//! | `tower_keep_timeout_total` | counter | `scope` | calls that took too long, and those whose deadline had passed before, of a limit on an `attempt` or a `total` |
//!
//! Labels are names and enumerations, never a path. A key or a host is a label only if a builder
//! says that there are few: ten thousand keyed circuits are six lines.
//!
//! With [`label_keys`](crate::stack::ClientBuilder::label_keys) some gauges have a label `key`, in
//! place of one line for all keys. They are those of state, ratios, calls in the window, in flight,
//! limit, queued, used and probability. The label is a hash, unless
//! [`show_keys`](crate::stack::ClientBuilder::show_keys) shows the key. `other` is the worst of all
//! keys that got no label because the labels were used up.
//!
//! A call is counted in `tower_keep_calls_total` at its end, by each layer that learns its result.
//! A rate limit learns none, so of its calls only the `rejected` ones are there. The others are
//! `admitted` in `tower_keep_rate_limit_decisions_total`.
//!
//! The kinds of rejections that a layer has, and the transitions that circuits make, are present
//! from the start, at 0. Counters of other kinds that have not happened may be absent. A gauge that
//! disappears, such as that of a threshold that was turned off, becomes `NaN`, because the facade
//! cannot remove it.
//!
//! **Histograms** have the buckets in [`BUCKETS`]. Give them to the recorder too, as
//! `PrometheusBuilder::new().set_buckets(&BUCKETS)`, or the exporter makes summaries. The recorder
//! receives each duration as the mean of its bucket since the last publication, so counts per
//! bucket and the sum are right. Only named layers have histograms.
//!
//! **Cost.** One atomic write per call and layer, for which threads do not contend. Publishing
//! costs about 4.5 us per circuit breaker and delays no call.
//!
//! **OpenTelemetry.** Use a bridge from the `metrics` facade, or scrape with the collector's
//! Prometheus receiver: see the [guide](crate::guide::opentelemetry).
//!
//! **tracing** (feature): one event of target `tower_keep` for each transition and each change of
//! settings. An outage is one `WARN`, `circuit opened`, when it begins. It has the host or key, the
//! reason, the window's counts, the threshold, and the time until probes are admitted. When it ends
//! there is another `WARN`, `circuit closed`, with its duration and how many calls were rejected.
//! Probes are `INFO`.
//!
//! | event | level | fields besides `layer` and `name` |
//! |---|---|---|
//! | `circuit opened`, `circuit closed` | `WARN` | as above |
//! | other transitions | `INFO` | `key`, `from`, `to`, `reason` |
//! | `updated` | `INFO` | `settings`: what has changed |
//! | `retrying` | `DEBUG` | `attempt`, `wait`, `outcome`, `result` in words |
//! | `passed over` | `DEBUG` | `backend` of a [list](crate::fallback::Spill), `reason` |
//! | `faults started` | `WARN` | `reason`, `lasting`, `shadow` |
//! | `fault injected` | `DEBUG` | `fault`, on the span of the call |
//! | `faults ended` | `WARN` | `reason`, `because`, `injected` |
//! | `advice: ..`, by [`log_advice`](Registry::log_advice) | `WARN` | `setting`, `now`, `better`, `alert` |
//!
//! Rejections have at most one event per second and layer, with the number of others since the last
//! one (`suppressed`). One more reports the rest when they have ended for a second. A key is
//! redacted as above.
//!
//! The span of a call is updated if it has declared these fields:
//!
//! - `tower_keep.attempt`: the number of the last attempt that a retry has sent.
//! - `tower_keep.outcome`: how the call ended (`success`, `failure`, `overload`, `rejected`,
//!   `timeout`), as seen by the outermost layer that learns it.
//! - `http.request.resend_count`: OpenTelemetry's name for how often a call was sent again. Empty
//!   if it was not.
//!
//! Nothing is recorded for calls that were dropped. Without a subscriber this costs a load.
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
mod evidence;
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
mod rules_of_circuits;
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
