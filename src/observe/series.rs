//! What is published: series, their values, and what was published before.

use std::collections::HashMap;

use metrics::{Key, Label};

use crate::observe::names::{self, Metric};

/// One line of a metric. All of it is static, so that it costs no allocation to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) metric: &'static str,
    pub(super) name: &'static str,
    pub(super) labels: [&'static str; 3],
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Counter(u64),
    Gauge(f64),
}

/// What was published last, so that counters never fall and gauges do not outlive their layer.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// By instance.
    counters: HashMap<u64, Vec<(Series, u64)>>,
    /// What instances had counted that are gone.
    retired: HashMap<Series, u64>,
    gauges: Vec<(Series, &'static Metric)>,
}

pub(super) type Samples = Vec<(&'static Metric, Series, Value)>;

impl Published {
    /// Adds what instances have in common, and what is left of those that are gone.
    pub(super) fn merge(&mut self, observed: Vec<(u64, Samples)>) -> Samples {
        let Published {
            counters,
            retired,
            gauges,
        } = self;
        let mut last = std::mem::take(counters);
        let mut merged = HashMap::new();
        for (id, samples) in observed {
            last.remove(&id);
            let own = counters.entry(id).or_default();
            for (metric, series, value) in samples {
                if let Value::Counter(count) = value {
                    own.push((series, count));
                }
                merged
                    .entry(series)
                    .and_modify(|(_, sum): &mut (_, Value)| *sum = sum.and(value, metric))
                    .or_insert((metric, value));
            }
        }
        for (series, count) in last.into_values().flatten() {
            *retired.entry(series).or_default() += count;
        }
        for (series, (_, value)) in &mut merged {
            if let (Value::Counter(count), Some(before)) = (value, retired.get(series)) {
                *count += before;
            }
        }
        for (series, metric) in std::mem::take(gauges) {
            merged.entry(series).or_insert((metric, Value::Gauge(0.0)));
        }
        let gauge = |(series, (metric, value)): (&Series, &(&'static Metric, Value))| {
            matches!(value, Value::Gauge(_)).then_some((*series, *metric))
        };
        let now = merged.iter().filter_map(gauge).collect();
        for (series, metric) in std::mem::replace(gauges, now) {
            merged.entry(series).or_insert((metric, Value::Gauge(0.0)));
        }
        let samples = merged.into_iter();
        samples
            .map(|(series, (metric, value))| (metric, series, value))
            .collect()
    }
}

impl Value {
    /// Together with that of another instance of the same name.
    fn and(self, other: Self, metric: &Metric) -> Self {
        match (self, other) {
            (Self::Counter(one), Self::Counter(two)) => Self::Counter(one + two),
            (Self::Gauge(one), Self::Gauge(two)) if metric.adds_up() => Self::Gauge(one + two),
            (Self::Gauge(one), Self::Gauge(two)) => Self::Gauge(one.max(two)),
            _ => other,
        }
    }
}

impl Metric {
    /// Whether two instances have twice as much of it.
    fn adds_up(&self) -> bool {
        ![names::CONFIG, names::CIRCUIT_FAILURES, names::CIRCUIT_SLOW].contains(&self)
    }
}

impl Series {
    pub(super) fn key(&self, metric: &Metric) -> Key {
        let own = metric.labels.iter().zip(self.labels);
        let labels: Vec<_> = std::iter::once(Label::from_static_parts("name", self.name))
            .chain(own.map(|(label, value)| Label::from_static_parts(label, value)))
            .collect();
        Key::from_parts(self.metric, labels)
    }
}
