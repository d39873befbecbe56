//! The published series, their values, and what was published before.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ptr,
    sync::Arc,
};

use metrics::{Counter, Gauge, Key, Label};

use crate::observe::names::{self, Metric};

/// One line of a metric. All of it is static, so making one allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) metric: &'static str,
    pub(super) name: &'static str,
    pub(super) labels: [&'static str; 3],
    /// The label `key`, if the layer's keys are labels. Otherwise empty.
    pub(super) by_key: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Counter(u64),
    Gauge(f64),
}

/// The last publication. With it, counters never fall, and gauges do not outlive their layer.
#[derive(Debug, Default)]
pub(super) struct Published {
    last: HashMap<u64, Last>,
    /// The final counts of instances that are gone. `outlived` has their owners.
    retired: HashMap<Series, u64>,
    outlived: HashSet<Owner>,
    /// The recorder's keys and handles of each instance, in the order of its samples.
    pub(super) bound: HashMap<u64, Vec<Bound>>,
    /// The number of publications so far.
    pub(super) round: u64,
}

/// A series with its key and handle in the recorder.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) series: Series,
    pub(super) key: Key,
    /// Only for the global recorder, which is never replaced.
    pub(super) handle: Option<Handle>,
}

#[derive(Debug)]
pub(super) enum Handle {
    Counter(Counter),
    Gauge(Gauge),
}

/// A layer and a name, which several instances may share.
pub(super) type Owner = (&'static str, &'static str);
pub(super) type Samples = Vec<(&'static Metric, Series, Value)>;

/// The last samples of an instance.
#[derive(Debug)]
struct Last {
    owner: Owner,
    samples: Arc<Samples>,
    /// Gauges that it once had and has no longer, such as a threshold that was turned off. The
    /// facade cannot remove a gauge, so each recorder receives `NaN`.
    absent: Vec<(&'static Metric, Series)>,
}

impl Published {
    /// Merges a publication. Returns the samples of instances that have their name alone, per
    /// instance. The samples of the others are merged by name, with the rest of instances that are
    /// gone.
    pub(super) fn merge(
        &mut self,
        observed: Vec<(u64, Owner, Samples)>,
    ) -> (Vec<(u64, Arc<Samples>)>, Samples) {
        let room = HashMap::with_capacity(observed.len());
        let mut gone = std::mem::replace(&mut self.last, room);
        let mut owners: HashMap<Owner, usize> = HashMap::new();
        let mut living = HashMap::with_capacity(observed.len());
        for (id, owner, _) in &observed {
            living.extend(gone.remove(id).map(|last| (*id, last)));
            *owners.entry(*owner).or_default() += 1;
        }
        // Ordered: a recorder sees the same sequence in each run.
        let mut merged = BTreeMap::new();
        for (id, Last { owner, samples, .. }) in gone {
            self.bound.remove(&id);
            self.outlived.insert(owner);
            for &(metric, series, value) in samples.iter() {
                match value {
                    Value::Counter(count) => *self.retired.entry(series).or_default() += count,
                    Value::Gauge(_) => {
                        merged.insert(series, (metric, metric.of_nothing()));
                    }
                }
            }
        }
        let mut own = Vec::new();
        for (id, owner, samples) in observed {
            let samples = Arc::new(samples);
            let shared = owners[&owner] > 1 || self.outlived.contains(&owner);
            if shared {
                for &(metric, series, value) in samples.iter() {
                    merged
                        .entry(series)
                        .and_modify(|(_, sum): &mut (_, Value)| *sum = sum.and(value, metric))
                        .or_insert((metric, value));
                }
            } else {
                own.push((id, Arc::clone(&samples)));
            }
            let absent = living.remove(&id).map(|last| last.absent_from(&samples));
            let absent = absent.unwrap_or_default();
            self.last.insert(
                id,
                Last {
                    owner,
                    samples,
                    absent,
                },
            );
        }
        // Last, because another instance of the name may still have the gauge.
        for &(metric, series) in self.last.values().flat_map(|last| &last.absent) {
            let absent = (metric, Value::Gauge(f64::NAN));
            merged.entry(series).or_insert(absent);
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

    /// Puts [`bound`](Self::bound) back after a publication. Instances may be gone since.
    pub(super) fn put_back(&mut self, mut bound: HashMap<u64, Vec<Bound>>) {
        bound.retain(|id, _| self.last.contains_key(id));
        self.bound = bound;
    }
}

impl Last {
    /// Returns the gauges that were there up to now and are not among `samples`.
    fn absent_from(self, samples: &Samples) -> Vec<(&'static Metric, Series)> {
        let same = self.samples.len() == samples.len()
            && self
                .samples
                .iter()
                .zip(samples)
                .all(|(old, new)| old.1.is(&new.1));
        if same {
            return self.absent;
        }
        let present: HashSet<Series> = samples.iter().map(|sample| sample.1).collect();
        let shown = self.samples.iter().filter_map(|&(metric, series, value)| {
            matches!(value, Value::Gauge(_)).then_some((metric, series))
        });
        let shown = shown.chain(self.absent);
        shown
            .filter(|(_, series)| !present.contains(series))
            .collect()
    }
}

impl Value {
    /// Combines the value with that of another instance of the same name.
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
    /// Returns the gauge of an instance that is gone: 0 for counts such as calls in flight, `NaN`
    /// for others.
    fn of_nothing(&self) -> Value {
        Value::Gauge(if self.adds_up() { 0.0 } else { f64::NAN })
    }

    /// Returns whether the values of two instances are added. If not, the larger one counts.
    fn adds_up(&self) -> bool {
        ![
            names::CONFIG,
            names::CIRCUIT_FAILURES,
            names::CIRCUIT_SLOW,
            names::ADAPTIVE_RTT,
            names::HEDGE_DELAY,
            names::THROTTLE,
            names::BULKHEAD_USED,
            names::WATCH_LAST_GOOD,
        ]
        .contains(&self)
    }
}

impl Series {
    /// Compares addresses, which is fast. If equal texts have two addresses, the only cost is
    /// another registration.
    pub(super) fn is(&self, other: &Self) -> bool {
        let labels = self.labels.iter().zip(other.labels);
        ptr::eq(self.metric, other.metric)
            && ptr::eq(self.name, other.name)
            && ptr::eq(self.by_key, other.by_key)
            && labels.into_iter().all(|(own, other)| ptr::eq(*own, other))
    }

    pub(super) fn key(&self, metric: &Metric) -> Key {
        let own = metric.labels.iter().zip(self.labels);
        let by_key = (!self.by_key.is_empty()).then_some(("key", self.by_key));
        let labels: Vec<_> = std::iter::once(("name", self.name))
            .chain(own.map(|(label, value)| (*label, value)))
            .chain(by_key)
            .map(|(label, value)| Label::from_static_parts(label, value))
            .collect();
        Key::from_parts(self.metric, labels)
    }
}
