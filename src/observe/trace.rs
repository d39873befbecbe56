//! The events for `tracing`, or nothing without that feature.
//!
//! One event for each transition, each retry (at level `DEBUG`) and each change of settings. An
//! outage is one `WARN` when the circuit opens and one when it closes. Events between them are
//! `INFO`. Rejections are [sampled](super::sampler). A call's own span is updated too, if it has
//! declared the fields.

use std::time::Duration;

use tokio::{runtime::Handle, task::JoinHandle};

#[cfg(not(feature = "tracing"))]
use crate::Rejected;
use crate::{Changed, Outcome, observe::origin};

#[cfg(feature = "tracing")]
pub(crate) use super::sampler::{Sampler, TARGET, rejected};

/// A change of a circuit's state. Fields that are `None` are left out.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "tracing"),
    expect(dead_code, reason = "only `tracing` is told")
)]
pub(crate) struct Transition<'a> {
    pub(crate) message: &'static str,
    /// If true, the event is a `WARN`, and an `INFO` otherwise.
    pub(crate) is_warning: bool,
    pub(crate) layer: &'static str,
    pub(crate) name: Option<&'static str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) reason: &'static str,
    /// The contents of the window, or the results of the probes.
    pub(crate) calls: Option<u64>,
    pub(crate) failures: Option<u64>,
    pub(crate) slow: Option<u64>,
    pub(crate) dropped: Option<u64>,
    /// The setting that was reached.
    pub(crate) threshold: Option<&'a str>,
    /// The time until probes are admitted.
    pub(crate) open_for: Option<Duration>,
    /// The time for which calls were rejected, and their number.
    pub(crate) outage: Option<Duration>,
    pub(crate) rejected: Option<u64>,
}

/// Writes an event for a transition.
#[cfg(feature = "tracing")]
pub(crate) fn transition(event: &Transition<'_>) {
    let Transition {
        message,
        layer,
        name,
        key,
        from,
        to,
        reason,
        calls,
        failures,
        slow,
        dropped,
        threshold,
        rejected,
        ..
    } = *event;
    let open_for = event.open_for.map(tracing::field::debug);
    let outage = event.outage.map(tracing::field::debug);
    // A level is part of an event's static description, so there is one event for each.
    if event.is_warning {
        tracing::warn!(
            target: TARGET,
            layer, name, key, from, to, reason, calls, failures, slow, dropped, threshold, open_for,
            outage, rejected,
            "{message}"
        );
    } else {
        tracing::info!(
            target: TARGET,
            layer, name, key, from, to, reason, calls, failures, slow, dropped, threshold, open_for,
            outage, rejected,
            "{message}"
        );
    }
}

/// Reports a threshold that does not fit.
#[cfg(feature = "tracing")]
pub(crate) fn advice(advice: &crate::observe::Advice) {
    tracing::warn!(
        target: TARGET,
        layer = advice.layer,
        name = advice.name,
        setting = advice.setting,
        now = advice.now,
        better = advice.better,
        alert = advice.alert,
        "advice: {advice}"
    );
}

/// Reports that a backend of a list does not answer, and why.
#[cfg(feature = "tracing")]
pub(crate) fn passed_over(
    name: Option<&'static str>,
    backend: &'static str,
    reason: &dyn std::fmt::Display,
) {
    tracing::debug!(target: TARGET, layer = "spill", name, backend, %reason, "passed over");
}

/// Reports a retry before its wait.
#[cfg(feature = "tracing")]
pub(crate) fn retry(
    name: Option<&'static str>,
    (attempt, wait): (u32, Duration),
    outcome: Outcome,
    words: &dyn Fn() -> String,
) {
    if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        let result = words();
        tracing::debug!(
            target: TARGET, layer = "retry", name, attempt, ?wait, ?outcome, result, "retrying"
        );
    }
}

/// Reports that faults are injected from now on, and for how long.
#[cfg(all(feature = "fault", feature = "tracing"))]
pub(crate) fn faults_started(
    (layer, name): (&'static str, Option<&'static str>),
    reason: &'static str,
    lasting: Duration,
    shadow: bool,
) {
    tracing::warn!(target: TARGET, layer, name, reason, ?lasting, shadow, "faults started");
}

/// Reports a fault that is injected into a call, on the call's span.
#[cfg(all(feature = "fault", feature = "tracing"))]
pub(crate) fn fault_injected(
    (layer, name): (&'static str, Option<&'static str>),
    fault: &'static str,
) {
    tracing::debug!(target: TARGET, layer, name, fault, "fault injected");
}

/// Reports that no more faults are injected, and how many were since the layer was built.
#[cfg(all(feature = "fault", feature = "tracing"))]
pub(crate) fn faults_ended(
    (layer, name): (&'static str, Option<&'static str>),
    reason: &'static str,
    because: &'static str,
    injected: u64,
) {
    tracing::warn!(target: TARGET, layer, name, reason, because, injected, "faults ended");
}

/// Reports a change of settings, and records its origin.
pub(crate) fn updated((layer, name): (&'static str, Option<&'static str>), changed: &Changed) {
    origin::note((layer, name), changed);
    #[cfg(feature = "tracing")]
    if !changed.is_empty() {
        tracing::info!(target: TARGET, layer, name, settings = %changed, "updated");
    }
}

/// Records the number of the sent attempt on the caller's span. Also records how often it was sent
/// before, under OpenTelemetry's name.
#[inline(always)]
pub(crate) fn attempt(number: u32) {
    #[cfg(feature = "tracing")]
    if somebody_listens() {
        record("tower_keep.attempt", number);
        if number > 1 {
            record("http.request.resend_count", number - 1);
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = number;
}

/// Records how a call ended on the caller's span. Of several layers the outermost is the last.
#[inline(always)]
pub(crate) fn outcome(outcome: &'static str) {
    #[cfg(feature = "tracing")]
    if somebody_listens() {
        record("tower_keep.outcome", outcome);
    }
    #[cfg(not(feature = "tracing"))]
    let _ = outcome;
}

/// Spawns a part of a call elsewhere. It stays in its caller's span, and events go to the caller's
/// subscriber.
pub(crate) fn spawn<F>(runtime: &Handle, call: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    #[cfg(feature = "tracing")]
    if somebody_listens() {
        use tracing::instrument::{Instrument, WithSubscriber};

        return runtime.spawn(call.in_current_span().with_current_subscriber());
    }
    runtime.spawn(call)
}

/// Returns whether a subscriber listens. Costs a load, which is all that a call pays without one.
#[cfg(feature = "tracing")]
#[inline(always)]
fn somebody_listens() -> bool {
    use tracing::level_filters::LevelFilter;

    LevelFilter::current() != LevelFilter::OFF
}

/// Records a field. Does nothing if the span has no such field.
#[cfg(feature = "tracing")]
#[cold]
fn record(field: &'static str, value: impl tracing::Value) {
    tracing::Span::current().record(field, value);
}

/// A placeholder without `tracing`.
#[cfg(not(feature = "tracing"))]
#[derive(Debug, Default)]
pub(crate) struct Sampler;

#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn rejected(_: &Sampler, _: &Rejected) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn advice(_: &crate::observe::Advice) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn passed_over(_: Option<&'static str>, _: &'static str, _: &dyn std::fmt::Display) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn retry(
    _: Option<&'static str>,
    _: (u32, Duration),
    _: Outcome,
    _: &dyn Fn() -> String,
) {
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn transition(_: &Transition<'_>) {}

#[cfg(all(feature = "fault", not(feature = "tracing")))]
pub(crate) fn faults_started(
    _: (&'static str, Option<&'static str>),
    _: &'static str,
    _: Duration,
    _: bool,
) {
}

#[cfg(all(feature = "fault", not(feature = "tracing")))]
pub(crate) fn fault_injected(_: (&'static str, Option<&'static str>), _: &'static str) {}

#[cfg(all(feature = "fault", not(feature = "tracing")))]
pub(crate) fn faults_ended(
    _: (&'static str, Option<&'static str>),
    _: &'static str,
    _: &'static str,
    _: u64,
) {
}
