//! From the layers' counters to the `metrics` facade.

use std::{collections::HashMap, sync::PoisonError};

use metrics::{Key, Label, Level, Metadata, Recorder};

use crate::{
    RejectedKind,
    algorithm::Counts,
    observe::{
        Instance, Metric, MetricKind, Registry, State,
        names::{self, METRICS},
        state::Circuits,
    },
};

/// One line of a metric. All of it is static, so that it costs no allocation to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Series {
    metric: &'static str,
    name: &'static str,
    labels: [&'static str; 3],
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
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

type Samples = Vec<(&'static Metric, Series, Value)>;

impl Registry {
    /// Copies the counters and the state of each instance to the recorder of the `metrics` facade:
    /// to be called before each scrape, or every few seconds.
    ///
    /// A recorder that is installed after the layers were built and used loses nothing. Instances of the same layer and name count together, also one after
    /// the other; what an instance counts between the last publication and its end is lost.
    ///
    /// Costs about 3 us an instance, and the look at each key of a keyed rate limit; calls are not
    /// held up.
    pub fn publish(&self) {
        let mut published = Vec::new();
        for (id, observed) in self.living() {
            let mut samples = Vec::new();
            sample(&observed.observe(), &mut samples);
            published.push((id, samples));
        }
        let samples = self.merge(published);
        metrics::with_recorder(|recorder| {
            METRICS.iter().for_each(|metric| describe(recorder, metric));
            for (metric, series, value) in samples {
                emit(recorder, metric, &series, value);
            }
        });
    }

    /// Adds what instances have in common, and what is left of those that are gone.
    fn merge(&self, observed: Vec<(u64, Samples)>) -> Samples {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Published {
            counters,
            retired,
            gauges,
        } = &mut *published;
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

fn describe(recorder: &dyn Recorder, metric: &Metric) {
    let (name, help) = (metric.name.into(), metric.help.into());
    match metric.kind {
        MetricKind::Counter => recorder.describe_counter(name, None, help),
        MetricKind::Gauge => recorder.describe_gauge(name, None, help),
    }
}

fn emit(recorder: &dyn Recorder, metric: &Metric, series: &Series, value: Value) {
    let key = series.key(metric);
    match value {
        Value::Counter(count) => recorder.register_counter(&key, &METADATA).absolute(count),
        Value::Gauge(value) => recorder.register_gauge(&key, &METADATA).set(value),
    }
}

impl Series {
    fn key(&self, metric: &Metric) -> Key {
        let own = metric.labels.iter().zip(self.labels);
        let labels: Vec<_> = std::iter::once(Label::from_static_parts("name", self.name))
            .chain(own.map(|(label, value)| Label::from_static_parts(label, value)))
            .collect();
        Key::from_parts(self.metric, labels)
    }
}

/// All samples of an instance.
fn sample(instance: &Instance, samples: &mut Samples) {
    let Instance {
        layer,
        name,
        totals,
        config,
        state,
    } = instance;
    let mut add = |metric: &'static Metric, labels: [&'static str; 3], value| {
        let series = Series {
            metric: metric.name,
            name,
            labels,
        };
        samples.push((metric, series, value));
    };
    let timed_out = totals.rejected.of(RejectedKind::TimedOut);
    let outcomes = [
        ("success", totals.success),
        ("failure", totals.failure),
        ("overload", totals.overload),
        ("ignored", totals.ignored),
        ("cancelled", totals.cancelled),
        ("late", totals.late),
        ("timeout", timed_out),
        ("rejected", totals.rejected.local()),
    ];
    let learns = matches!(state, State::CircuitBreaker(_) | State::Bulkhead { .. });
    for (outcome, count) in outcomes {
        if learns || count > 0 {
            add(names::CALLS, [layer, outcome, ""], Value::Counter(count));
        }
    }
    for (kind, count) in totals.rejected.iter().filter(|(_, count)| *count > 0) {
        add(
            names::REJECTIONS,
            [layer, kind.as_str(), ""],
            Value::Counter(count),
        );
    }
    for (param, value) in config {
        add(names::CONFIG, [layer, param, ""], Value::Gauge(*value));
    }
    sample_state(instance, &mut add);
}

/// What only a pattern has.
fn sample_state(
    Instance { totals, state, .. }: &Instance,
    add: &mut impl FnMut(&'static Metric, [&'static str; 3], Value),
) {
    let none = ["", "", ""];
    match state {
        State::CircuitBreaker(circuits) => sample_circuits(circuits, add),
        State::Bulkhead {
            in_flight,
            limit,
            queued,
        } => {
            add(names::BULKHEAD_IN_FLIGHT, none, gauge(*in_flight));
            add(names::BULKHEAD_LIMIT, none, gauge(*limit));
            add(names::BULKHEAD_QUEUED, none, gauge(*queued));
        }
        State::RateLimit {
            queued,
            keys,
            evictions,
        } => {
            let rejected = totals.rejected.local();
            for (decision, count) in [("admitted", totals.admitted), ("rejected", rejected)] {
                add(
                    names::LIMIT_DECISIONS,
                    [decision, "", ""],
                    Value::Counter(count),
                );
            }
            add(names::LIMIT_QUEUED, none, gauge(*queued));
            if let Some(keys) = keys {
                add(names::LIMIT_KEYS, none, gauge(*keys));
            }
            if let Some(evictions) = evictions {
                add(names::LIMIT_EVICTIONS, none, Value::Counter(*evictions));
            }
        }
        State::Retry {
            calls,
            attempts,
            budget,
        } => {
            for (outcome, count) in calls {
                add(
                    names::RETRY_CALLS,
                    [outcome, "", ""],
                    Value::Counter(*count),
                );
            }
            add(names::RETRY_ATTEMPTS, none, Value::Counter(*attempts));
            if let Some(budget) = budget {
                add(names::RETRY_BUDGET, none, gauge(*budget));
            }
        }
        State::Timeout { total } => {
            let scope = if *total { "total" } else { "attempt" };
            let over = totals.rejected.iter().map(|(_, count)| count).sum();
            add(names::TIMEOUTS, [scope, "", ""], Value::Counter(over));
        }
    }
}

fn sample_circuits(
    circuits: &Circuits,
    add: &mut impl FnMut(&'static Metric, [&'static str; 3], Value),
) {
    for (state, count) in &circuits.states {
        add(
            names::CIRCUIT_STATE,
            [state.as_str(), "", ""],
            gauge(*count),
        );
    }
    for (from, to, cause, count) in &circuits.transitions {
        let labels = [from.as_str(), to.as_str(), cause.as_str()];
        add(names::CIRCUIT_TRANSITIONS, labels, Value::Counter(*count));
    }
    if let Some(window) = circuits.window {
        let none = ["", "", ""];
        add(names::CIRCUIT_CALLS, none, gauge(window.total()));
        add(
            names::CIRCUIT_FAILURES,
            none,
            share(window.failures, window),
        );
        add(names::CIRCUIT_SLOW, none, share(window.slow, window));
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
fn gauge(value: u64) -> Value {
    Value::Gauge(value as f64)
}

/// Of the window's calls; 0 of none.
#[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
fn share(part: u64, window: Counts) -> Value {
    Value::Gauge(part as f64 / window.total().max(1) as f64)
}

static METADATA: Metadata<'static> = Metadata::new("tower_keep", Level::INFO, None);
