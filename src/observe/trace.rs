//! Events for `tracing`, if that feature is on; nothing otherwise.
//!
//! One event for each transition and each change of settings. Of rejections at most one a second
//! and layer: a line for each rejected call would be the next overload.

use crate::{Changed, Rejected};

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
    use crate::time::since_start;

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
        kind = rejected.kind.as_str(),
        untold,
        "rejected"
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

/// Tells of a change of settings.
#[cfg(feature = "tracing")]
pub(crate) fn updated((layer, name): (&'static str, Option<&'static str>), changed: &Changed) {
    if !changed.is_empty() {
        tracing::info!(target: TARGET, layer, name, settings = %changed, "updated");
    }
}

#[cfg(feature = "tracing")]
const TARGET: &str = "tower_keep";

#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn rejected(_: &Sampler, _: &Rejected) {}

#[cfg(not(feature = "tracing"))]
pub(crate) fn transition(
    _: (&'static str, Option<&'static str>),
    _: (&'static str, &'static str),
    _: &'static str,
) {
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn updated(_: (&'static str, Option<&'static str>), _: &Changed) {}
