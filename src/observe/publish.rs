//! From the layers' counters to the `metrics` facade.

use std::sync::{MutexGuard, PoisonError};

use metrics::{Key, Level, Metadata, Recorder};

use crate::{
    RejectedKind,
    algorithm::Counts,
    observe::{
        Instance, Metric, MetricKind, Registry, State,
        names::{self, METRICS},
        series::{Published, Samples, Series, Value},
        state::Circuits,
    },
};

impl Registry {
    /// Copies the counters and the state of each instance to the recorder of the `metrics` facade:
    /// to be called before each scrape, or every few seconds.
    ///
    /// A recorder that is installed after the layers were built and used loses nothing. Instances
    /// of the same layer and name count together, also one after the other; what an instance counts
    /// between the last publication and its end is lost.
    ///
    /// A circuit breaker costs about 13 us with the Prometheus exporter, 5 of them here (`cargo
    /// bench --bench overhead -- published`), and a table of keys the look at each of its slots;
    /// calls are not held up.
    pub fn publish(&self) {
        let mut observed = Vec::new();
        for (id, one) in self.living() {
            let instance = one.observe();
            let mut samples = Vec::with_capacity(32);
            sample(&instance, &mut samples);
            observed.push((id, (instance.layer, instance.name), samples));
        }
        let mut published = self.lock_published();
        let (own, merged) = published.merge(observed);
        // Taken out, because a recorder is foreign code and does not run under the lock. Who
        // publishes at the same time makes keys of its own.
        let mut keys = std::mem::take(&mut published.keys);
        drop(published);
        metrics::with_recorder(|recorder| {
            METRICS.iter().for_each(|metric| describe(recorder, metric));
            for (id, samples) in own {
                let keys = keys.entry(id).or_default();
                for (place, (metric, series, value)) in samples.into_iter().enumerate() {
                    if keys.get(place).is_none_or(|(known, _)| *known != series) {
                        keys.truncate(place);
                        keys.push((series, series.key(metric)));
                    }
                    emit(recorder, &keys[place].1, value);
                }
            }
            for (metric, series, value) in merged {
                emit(recorder, &series.key(metric), value);
            }
        });
        self.lock_published().keys = keys;
    }

    fn lock_published(&self) -> MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(recorder: &dyn Recorder, metric: &Metric) {
    let (name, help) = (metric.name.into(), metric.help.into());
    match metric.kind {
        MetricKind::Counter => recorder.describe_counter(name, None, help),
        MetricKind::Gauge => recorder.describe_gauge(name, None, help),
    }
}

fn emit(recorder: &dyn Recorder, key: &Key, value: Value) {
    match value {
        Value::Counter(count) => recorder.register_counter(key, &METADATA).absolute(count),
        Value::Gauge(value) => recorder.register_gauge(key, &METADATA).set(value),
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
    let learns = matches!(
        state,
        State::CircuitBreaker(_) | State::Bulkhead { .. } | State::Throttle { .. }
    );
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
            if let Some(queued) = queued {
                add(names::LIMIT_QUEUED, none, gauge(*queued));
            }
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
        State::Fallback { answered, failed } => {
            for (result, count) in [("answered", answered), ("failed", failed)] {
                add(names::FALLBACKS, [result, "", ""], Value::Counter(*count));
            }
        }
        State::Throttle { probability } => {
            add(names::THROTTLE, none, Value::Gauge(*probability));
        }
        State::Hedge { sent, wins, delay } => {
            add(names::HEDGES, none, Value::Counter(*sent));
            for (winner, count) in wins {
                add(names::HEDGE_WINS, [winner, "", ""], Value::Counter(*count));
            }
            if let Some(delay) = delay {
                add(names::HEDGE_DELAY, none, Value::Gauge(*delay));
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
