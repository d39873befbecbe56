//! Events for `tracing`, if that feature is on; nothing otherwise.
//!
//! One event for each transition, each retry (at level `DEBUG`) and each change of settings. Of
//! rejections at most one a second and layer: a line for each rejected call would be the next
//! overload. A call's own span is told of it instead, if it has declared the fields.

use std::time::Duration;

use tokio::{runtime::Handle, task::JoinHandle};

use crate::{Changed, Outcome, Rejected};

#[cfg(feature = "tracing")]
use std::sync::atomic::{AtomicU64, Ordering};

/// When the last rejection was told of, and how many were not since.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    #[cfg(feature = "tracing")]
    next: AtomicU64,
    #[cfg(feature = "tracing")]
    untold: AtomicU64,
}

/// Tells of a rejection, unless one was told of within the last second.
#[cfg(feature = "tracing")]
pub(crate) fn rejected(sampler: &Sampler, rejected: &Rejected) {
    use crate::ambient::clock::since_start;

    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    let now = since_start();
    // Relaxed, both: of two threads in the same second one wins the exchange.
    let next = sampler.next.load(Ordering::Relaxed);
    let second = now.saturating_add(1_000_000_000);
    let wins = || {
        sampler
            .next
            .compare_exchange(next, second, Ordering::Relaxed, Ordering::Relaxed)
    };
    if now < next || wins().is_err() {
        sampler.untold.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let untold = sampler.untold.swap(0, Ordering::Relaxed);
    tracing::info!(
        target: TARGET,
        layer = rejected.layer,
        name = rejected.name,
        dimension = rejected.dimension,
        kind = rejected.kind.as_str(),
        untold,
        "rejected"
    );
}

/// Tells of a threshold that does not fit.
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

/// Tells of a change of state.
#[cfg(feature = "tracing")]
pub(crate) fn transition(
    (layer, name): (&'static str, Option<&'static str>),
    (from, to): (&'static str, &'static str),
    reason: &'static str,
) {
    tracing::warn!(target: TARGET, layer, name, from, to, reason, "transition");
}

/// Tells of a retry that is about to be waited for.
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

/// Tells that faults are injected from now on, for so long.
#[cfg(all(feature = "fault", feature = "tracing"))]
pub(crate) fn faults_started(
    (layer, name): (&'static str, Option<&'static str>),
    reason: &'static str,
    lasting: Duration,
    shadow: bool,
) {
    tracing::warn!(target: TARGET, layer, name, reason, ?lasting, shadow, "faults started");
}

/// Tells that faults are injected no longer, and how many were since the layer was built.
#[cfg(all(feature = "fault", feature = "tracing"))]
pub(crate) fn faults_ended(
    (layer, name): (&'static str, Option<&'static str>),
    reason: &'static str,
    because: &'static str,
    injected: u64,
) {
    tracing::warn!(target: TARGET, layer, name, reason, because, injected, "faults ended");
}

/// Tells of a change of settings.
#[cfg(feature = "tracing")]
pub(crate) fn updated((layer, name): (&'static str, Option<&'static str>), changed: &Changed) {
    if !changed.is_empty() {
        tracing::info!(target: TARGET, layer, name, settings = %changed, "updated");
    }
}

/// Records the number of the attempt that is sent on the caller's span, and how often it was sent
/// before, in OpenTelemetry's word for that.
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

/// Spawns a part of a call elsewhere, where it stays in its caller's span and is told of to its
/// caller's subscriber.
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

/// A load: without a subscriber nothing else is paid.
#[cfg(feature = "tracing")]
#[inline(always)]
fn somebody_listens() -> bool {
    use tracing::level_filters::LevelFilter;

    LevelFilter::current() != LevelFilter::OFF
}

/// Does nothing if the span has no such field.
#[cfg(feature = "tracing")]
#[cold]
fn record(field: &'static str, value: impl tracing::Value) {
    tracing::Span::current().record(field, value);
}

#[cfg(feature = "tracing")]
const TARGET: &str = "tower_keep";

#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn rejected(_: &Sampler, _: &Rejected) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn advice(_: &crate::observe::Advice) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn retry(
    _: Option<&'static str>,
    _: (u32, Duration),
    _: Outcome,
    _: &dyn Fn() -> String,
) {
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn transition(
    _: (&'static str, Option<&'static str>),
    _: (&'static str, &'static str),
    _: &'static str,
) {
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn updated(_: (&'static str, Option<&'static str>), _: &Changed) {}

#[cfg(all(feature = "fault", not(feature = "tracing")))]
pub(crate) fn faults_started(
    _: (&'static str, Option<&'static str>),
    _: &'static str,
    _: Duration,
    _: bool,
) {
}

#[cfg(all(feature = "fault", not(feature = "tracing")))]
pub(crate) fn faults_ended(
    _: (&'static str, Option<&'static str>),
    _: &'static str,
    _: &'static str,
    _: u64,
) {
}
