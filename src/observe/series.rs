//! What is published: series, their values, and what was published before.

use std::collections::{HashMap, HashSet};

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
    last: HashMap<u64, Last>,
    /// What instances had counted that are gone, and whose they were.
    retired: HashMap<Series, u64>,
    outlived: HashSet<Owner>,
    /// The recorder's keys of each instance, in the order of its samples.
    pub(super) keys: HashMap<u64, Keys>,
}

/// A layer and a name, which two instances can have in common.
pub(super) type Owner = (&'static str, &'static str);
pub(super) type Keys = Vec<(Series, Key)>;
pub(super) type Samples = Vec<(&'static Metric, Series, Value)>;

/// What an instance showed.
#[derive(Debug)]
struct Last {
    owner: Owner,
    samples: Samples,
}

impl Published {
    /// The samples of instances that have their name for themselves, by instance, and those of the
    /// others: together with what is left of those that are gone.
    pub(super) fn merge(
        &mut self,
        observed: Vec<(u64, Owner, Samples)>,
    ) -> (Vec<(u64, Samples)>, Samples) {
        let mut gone = std::mem::take(&mut self.last);
        let mut owners: HashMap<Owner, usize> = HashMap::new();
        for (id, owner, _) in &observed {
            gone.remove(id);
            *owners.entry(*owner).or_default() += 1;
        }
        let mut merged = HashMap::new();
        for (id, Last { owner, samples }) in gone {
            self.keys.remove(&id);
            self.outlived.insert(owner);
            for (metric, series, value) in samples {
                match value {
                    Value::Counter(count) => *self.retired.entry(series).or_default() += count,
                    Value::Gauge(_) => {
                        merged.insert(series, (metric, Value::Gauge(0.0)));
                    }
                }
            }
        }
        let mut own = Vec::new();
        for (id, owner, samples) in observed {
            let shared = owners[&owner] > 1 || self.outlived.contains(&owner);
            if shared {
                for &(metric, series, value) in &samples {
                    merged
                        .entry(series)
                        .and_modify(|(_, sum): &mut (_, Value)| *sum = sum.and(value, metric))
                        .or_insert((metric, value));
                }
            } else {
                own.push((id, samples.clone()));
            }
            self.last.insert(id, Last { owner, samples });
        }
        for (series, (_, value)) in &mut merged {
            if let (Value::Counter(count), Some(before)) = (value, self.retired.get(series)) {
                *count += before;
            }
        }
        let merged = merged.into_iter();
        let merged = merged.map(|(series, (metric, value))| (metric, series, value));
        (own, merged.collect())
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
