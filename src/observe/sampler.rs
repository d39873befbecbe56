//! A sample of the rejections for `tracing`: at most one event a second and layer, and one that
//! tells the rest when they end. A line for each rejected call would be the next overload.
//!
//! The rest is told by a task, which is there only while rejections come that no event tells of.
//! It looks once a second, and ends after a second without any. Outside of tokio's runtime there
//! is none, and the rest is told with the next rejection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};
use tracing::instrument::WithSubscriber;

use crate::{
    Rejected,
    ambient::clock::{nanos, since_start},
};

/// The rejections of a layer that were told.
#[derive(Debug, Default)]
pub(crate) struct Sampler(Arc<Sampled>);

/// Relaxed, all: of two threads in the same second one wins the exchange, and counts that race are
/// told with the next event.
#[derive(Debug, Default)]
struct Sampled {
    /// When the next rejection may be told of.
    next: AtomicU64,
    /// Rejections since then that no event has told of.
    suppressed: AtomicU64,
    /// When the first of a run was told of, and how many there were since.
    began: AtomicU64,
    run: AtomicU64,
    /// If true, a task waits for the end of the run.
    is_watched: AtomicBool,
}

/// Tells of a rejection, unless one was told of within the last second.
pub(crate) fn rejected(Sampler(sampled): &Sampler, rejected: &Rejected) {
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    let now = since_start();
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

/// Sees to it that what was suppressed is told when the rejections end.
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
    let lasted = Duration::from_nanos(since_start()).saturating_sub(began);
    let rejected = sampled.run.swap(0, Ordering::Relaxed);
    let suppressed = sampled.suppressed.swap(0, Ordering::Relaxed);
    // The last second had none.
    let lasted = lasted.saturating_sub(SECOND);
    tracing::info!(
        target: TARGET, layer, name, suppressed, rejected, ?lasted, "rejections ended"
    );
}

/// The next rejection that is suppressed begins another task, also after this one was dropped with
/// its runtime.
struct Unwatched<'a>(&'a Sampled);

impl Drop for Unwatched<'_> {
    fn drop(&mut self) {
        self.0.is_watched.store(false, Ordering::Relaxed);
    }
}

/// The target of all events.
pub(crate) const TARGET: &str = "tower_keep";
const SECOND: Duration = Duration::from_secs(1);
