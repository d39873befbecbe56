//! The calls to a recorder of the `metrics` facade.

use metrics::{Key, Level, Metadata, Recorder};

use crate::observe::{
    Metric, MetricKind,
    increases::Increase,
    series::{Bound, Handle, Samples, Value},
};

pub(super) fn describe(recorder: &dyn Recorder, metric: &Metric) {
    let (name, help) = (metric.name.into(), metric.help.into());
    match metric.kind {
        MetricKind::Counter => recorder.describe_counter(name, None, help),
        MetricKind::Gauge => recorder.describe_gauge(name, None, help),
        MetricKind::Histogram => recorder.describe_histogram(name, None, help),
    }
}

/// Emits the samples of one instance. With `keep`, handles are kept and used again.
pub(super) fn own(recorder: &dyn Recorder, keep: bool, samples: &Samples, bound: &mut Vec<Bound>) {
    for (place, &(metric, series, value)) in samples.iter().enumerate() {
        if bound
            .get(place)
            .is_none_or(|known| !known.series.is(&series))
        {
            bound.truncate(place);
            bound.push(Bound {
                series,
                key: series.key(metric),
                handle: None,
            });
        }
        let Bound { key, handle, .. } = &mut bound[place];
        if keep {
            handle
                .get_or_insert_with(|| register(recorder, key, value))
                .set(value);
        } else {
            register(recorder, key, value).set(value);
        }
    }
}

pub(super) fn register(recorder: &dyn Recorder, key: &Key, value: Value) -> Handle {
    match value {
        Value::Counter(_) => Handle::Counter(recorder.register_counter(key, &METADATA)),
        Value::Gauge(_) => Handle::Gauge(recorder.register_gauge(key, &METADATA)),
    }
}

/// Records the durations that a recorder has not received yet.
pub(super) fn durations(recorder: &dyn Recorder, key: &Key, increases: &[Increase]) {
    if increases.is_empty() {
        return;
    }
    let histogram = recorder.register_histogram(key, &METADATA);
    for Increase { seconds, count } in increases {
        histogram.record_many(*seconds, *count);
    }
}

impl Handle {
    /// Sets the value. A series never changes its kind.
    pub(super) fn set(&self, value: Value) {
        match (self, value) {
            (Self::Counter(counter), Value::Counter(count)) => counter.absolute(count),
            (Self::Gauge(gauge), Value::Gauge(value)) => gauge.set(value),
            _ => {}
        }
    }
}

static METADATA: Metadata<'static> = Metadata::new("tower_keep", Level::INFO, None);
