//! A sample of the rejections for `tracing`: at most one event per second and layer, and one that
//! reports the rest when they end. A line for each rejected call would be the next overload.
//!
//! A task reports the rest. It exists only while rejections are suppressed, checks once a second,
//! and ends after a second without any. Outside tokio's runtime there is no task, and the next
//! event reports the rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};
use tracing::{instrument::WithSubscriber, level_filters::LevelFilter};

use crate::{
    Rejected,
    ambient::clock::{common_now, nanos},
};

/// The rejections of a layer that were reported.
#[derive(Debug, Default)]
pub(crate) struct Sampler(Arc<Sampled>);

/// The counts of a run of rejections. All Relaxed: of two threads in the same second one wins the
/// exchange, and counts that race are reported with the next event.
#[derive(Debug, Default)]
struct Sampled {
    /// The time from which the next rejection may be reported.
    next: AtomicU64,
    /// The rejections since then that no event has reported.
    suppressed: AtomicU64,
    /// The time at which the first rejection of a run was reported, and the number of rejections
    /// since.
    began: AtomicU64,
    run: AtomicU64,
    /// If true, a task waits for the end of the run.
    is_watched: AtomicBool,
}

/// Reports a rejection, unless one was reported within the last second.
#[inline]
pub(crate) fn rejected(sampler: &Sampler, rejected: &Rejected) {
    if LevelFilter::current() != LevelFilter::OFF {
        sample(sampler, rejected);
    }
}

#[cold]
fn sample(Sampler(sampled): &Sampler, rejected: &Rejected) {
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    let now = common_now();
    sampled.run.fetch_add(1, Ordering::Relaxed);
    let next = sampled.next.load(Ordering::Relaxed);
    let second = now.saturating_add(nanos(SECOND));
    let wins = || {
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        sampled
            .next
            .compare_exchange(next, second, order.0, order.1)
    };
    if now < next || wins().is_err() {
        sampled.suppressed.fetch_add(1, Ordering::Relaxed);
        watch(sampled, rejected);
        return;
    }
    if !sampled.is_watched.load(Ordering::Relaxed) {
        sampled.began.store(now, Ordering::Relaxed);
        sampled.run.store(1, Ordering::Relaxed);
    }
    let suppressed = sampled.suppressed.swap(0, Ordering::Relaxed);
    tracing::info!(
        target: TARGET,
        layer = rejected.layer,
        name = rejected.name,
        dimension = rejected.dimension,
        kind = rejected.kind.as_str(),
        suppressed,
        "rejected"
    );
}

/// Starts the task that reports suppressed rejections when they end, unless it runs.
fn watch(sampled: &Arc<Sampled>, rejected: &Rejected) {
    if sampled.is_watched.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    if !sampled.is_watched.swap(true, Ordering::Relaxed) {
        let told = (rejected.layer, rejected.name);
        let task = tell_the_rest(sampled.clone(), told);
        runtime.spawn(task.with_current_subscriber());
    }
}

async fn tell_the_rest(sampled: Arc<Sampled>, (layer, name): (&'static str, Option<&'static str>)) {
    let _unwatched = Unwatched(&sampled);
    let mut seen = sampled.run.load(Ordering::Relaxed);
    loop {
        sleep(SECOND).await;
        let run = sampled.run.load(Ordering::Relaxed);
        if run == seen {
            break;
        }
        seen = run;
    }
    let began = Duration::from_nanos(sampled.began.load(Ordering::Relaxed));
    let lasted = Duration::from_nanos(common_now()).saturating_sub(began);
    let rejected = sampled.run.swap(0, Ordering::Relaxed);
    let suppressed = sampled.suppressed.swap(0, Ordering::Relaxed);
    // The last second had no rejections.
    let lasted = lasted.saturating_sub(SECOND);
    tracing::info!(
        target: TARGET, layer, name, suppressed, rejected, ?lasted, "rejections ended"
    );
}

/// A guard that ends the watch, also if the task is dropped with its runtime. The next suppressed
/// rejection then starts another task.
struct Unwatched<'a>(&'a Sampled);

impl Drop for Unwatched<'_> {
    fn drop(&mut self) {
        self.0.is_watched.store(false, Ordering::Relaxed);
    }
}

/// The target of all events.
pub(crate) const TARGET: &str = "tower_keep";
const SECOND: Duration = Duration::from_secs(1);
