//! From the layers' counters to the `metrics` facade.

use std::{
    cell::Cell,
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, MutexGuard, PoisonError},
};

use metrics::Recorder;

use crate::observe::{
    Instance, Metric, Registry, emit,
    increases::{Increase, Timed},
    names::METRICS,
    recorder::is_global,
    samples::sample,
    series::{Bound, Published, Samples, Series},
};

impl Registry {
    /// Copies the counters and the state of each instance to the recorder of the `metrics` facade:
    /// to be called before each scrape, or every few seconds.
    ///
    /// A recorder that is installed after the layers were built and used loses nothing. Instances
    /// of the same layer and name count together, also one after the other; what an instance counts
    /// between the last publication and its end is lost.
    ///
    /// A circuit breaker costs about 4.5 us with the Prometheus exporter (`cargo bench --bench
    /// overhead -- published`), and a table of keys the look at each of its slots; calls are not
    /// held up. The first publications cost more, and so do all of them to a local recorder, whose
    /// handles are not kept: about 12 us. Until the process has a global recorder, each publication
    /// starts a short thread to ask for it.
    pub fn publish(&self) {
        metrics::with_recorder(|recorder| {
            let Some(publication) = self.observe(recorder) else {
                return;
            };
            let Publication {
                own,
                merged,
                increases,
                mut bound,
                round,
            } = publication;
            METRICS
                .iter()
                .for_each(|metric| emit::describe(recorder, metric));
            let keep = is_global(recorder);
            for (id, samples) in own {
                let bound = bound.entry(id).or_default();
                if keep && (id + round) % RENEWED_AFTER == 0 {
                    bound.iter_mut().for_each(|bound| bound.handle = None);
                }
                emit::own(recorder, keep, &samples, bound);
            }
            for (metric, series, value) in merged {
                emit::register(recorder, &series.key(metric), value).set(value);
            }
            for (metric, series, increases) in increases {
                emit::durations(recorder, &series.key(metric), &increases);
            }
            self.lock_published().put_back(bound);
        });
    }

    /// What there is to say, in one step: the later of two publications has seen all that the
    /// earlier one has. It would otherwise take an instance that it has not seen for one that is
    /// gone, and the next would count it twice. `None` within another publication of this thread,
    /// by a limit that publishes when it is asked: that would never end.
    fn observe(&self, recorder: &dyn Recorder) -> Option<Publication> {
        let _observing = Observing::begin()?;
        let (mut published, living, observed, timed) = loop {
            let round = self.lock_published().round;
            // Without the lock: a limit may be a user's own.
            let living = self.living();
            let (mut observed, mut timed) = (Vec::with_capacity(living.len()), Vec::new());
            for (id, one) in &living {
                let instance = one.observe();
                let mut samples = Vec::with_capacity(32);
                sample(&instance, &mut samples);
                observed.push((*id, (instance.layer, instance.name), samples));
                timed.extend(times(*id, instance));
            }
            let published = self.lock_published();
            if published.round == round {
                break (published, living, observed, timed);
            }
            // Another publication has seen later numbers meanwhile, and was merged.
        };
        let (own, merged) = published.merge(observed);
        let address = std::ptr::from_ref(recorder).addr();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let increases = told.tell(address, timed);
        drop(told);
        published.round += 1;
        let publication = Publication {
            own,
            merged,
            increases,
            // Taken out, because a recorder is user code and does not run under the lock. Who
            // publishes at the same time makes keys of its own.
            bound: std::mem::take(&mut published.bound),
            round: published.round,
        };
        drop(published);
        // The last of an instance may be user code too.
        drop(living);
        Some(publication)
    }

    fn lock_published(&self) -> MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at all instances by this thread, until it is dropped.
struct Observing(PhantomData<*const ()>);

impl Observing {
    /// `None` if this thread is at it already.
    fn begin() -> Option<Self> {
        let before = OBSERVING.replace(true);
        (!before).then_some(Self(PhantomData))
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        OBSERVING.set(false);
    }
}

thread_local! {
    static OBSERVING: Cell<bool> = const { Cell::new(false) };
}

/// What a recorder is given.
struct Publication {
    own: Vec<(u64, Arc<Samples>)>,
    merged: Samples,
    increases: Vec<(&'static Metric, Series, Vec<Increase>)>,
    bound: HashMap<u64, Vec<Bound>>,
    round: u64,
}

/// The histograms of an instance.
fn times(id: u64, instance: Instance) -> impl Iterator<Item = Timed> {
    let name = instance.name;
    instance
        .histograms
        .into_iter()
        .filter_map(move |histogram| {
            let metric = *METRICS
                .iter()
                .find(|metric| metric.name == histogram.metric)?;
            let mut labels = [""; 3];
            labels
                .iter_mut()
                .zip(&histogram.labels)
                .for_each(|(to, from)| *to = from);
            let series = Series {
                metric: metric.name,
                name,
                labels,
                by_key: "",
            };
            Some((id, metric, series, histogram))
        })
}

/// After how many publications a handle is asked for again: an exporter may forget a series that
/// was idle for long, and then what is written to its old handle is lost.
const RENEWED_AFTER: u64 = 16;
