//! The publication of the layers' counters to the `metrics` facade.

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
    /// Copies the counters and the state of each instance to the recorder of the `metrics` facade.
    /// Call it before each scrape, or every few seconds.
    ///
    /// A recorder that is installed after the layers were built and used loses nothing. Instances
    /// of the same layer and name count together, also one after the other. Counts between the last
    /// publication and the end of an instance are lost.
    ///
    /// A circuit breaker costs about 4.5 us with the Prometheus exporter (`cargo bench --bench
    /// overhead -- published`), and a table of keys a scan of its slots. Calls are not delayed. The
    /// first publications cost more. So do all publications to a local recorder, about 12 us,
    /// because its handles are not kept. Until the process has a global recorder, each publication
    /// starts a short thread to look for it.
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

    /// Collects a publication in one step: the later of two publications has seen all that the
    /// earlier one has. Otherwise it would treat an instance that it has not seen as gone, and the
    /// next would count that twice.
    ///
    /// `None` within another publication of this thread. A limit that publishes when it is read
    /// would otherwise recurse without end.
    fn observe(&self, recorder: &dyn Recorder) -> Option<Publication> {
        let _observing = Observing::begin()?;
        let (mut published, living, observed, timed) = loop {
            let round = self.lock_published().round;
            // Not under the lock: a limit may be user code.
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
            // Another publication has meanwhile seen later numbers, and was merged.
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
            // Taken out, because a recorder is user code and does not run under the lock. A
            // simultaneous publication makes its own keys.
            bound: std::mem::take(&mut published.bound),
            round: published.round,
        };
        drop(published);
        // Dropping the last reference to an instance may run user code too.
        drop(living);
        Some(publication)
    }

    fn lock_published(&self) -> MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A marker that this thread is observing all instances. Ends on drop.
struct Observing(PhantomData<*const ()>);

impl Observing {
    /// Sets the marker. `None` if this thread is observing already.
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

/// The data for a recorder.
struct Publication {
    own: Vec<(u64, Arc<Samples>)>,
    merged: Samples,
    increases: Vec<(&'static Metric, Series, Vec<Increase>)>,
    bound: HashMap<u64, Vec<Bound>>,
    round: u64,
}

/// Returns the histograms of an instance.
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
                .zip(histogram.labels)
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

/// The publications after which a handle is registered again. An exporter may drop a series that
/// was idle for long, and then values written to its old handle are lost.
const RENEWED_AFTER: u64 = 16;
