//! The conversion of an instance to samples of the metrics.

use crate::{
    RejectedKind,
    algorithm::{BreakerState, Counts},
    observe::{
        FleetCounts, Instance, KeyInstance, KeyState, LearnedLimit, Metric, State, names,
        series::{Samples, Series, Value},
        state::Circuits,
        used,
    },
};

/// Adds all samples of an instance.
pub(super) fn sample(instance: &Instance, samples: &mut Samples) {
    let Instance {
        layer,
        name,
        totals,
        config,
        state,
        ..
    } = instance;
    let mut add = |metric: &'static Metric, labels: [&'static str; 3], value| {
        let series = Series {
            metric: metric.name,
            name,
            labels,
            by_key: "",
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
    // Present from the start: a rate does not see an increase from absent to 1.
    let is_known = |kind| kinds(state).contains(&kind);
    let rejected = totals.rejected.iter();
    for (kind, count) in rejected.filter(|(kind, count)| *count > 0 || is_known(*kind)) {
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
    for key in &instance.keys {
        sample_key(key, name, samples);
    }
}

/// Returns the kinds of rejections that a layer has.
fn kinds(state: &State) -> &'static [RejectedKind] {
    use RejectedKind::{
        BulkheadFull, CircuitOpen, CostTooHigh, DeadlineExceeded, Draining, RateLimited, StoreDown,
        Throttled, TimedOut,
    };
    match state {
        State::CircuitBreaker(_) => &[CircuitOpen],
        State::Bulkhead { .. } => &[BulkheadFull, DeadlineExceeded],
        State::RateLimit { fleet: Some(_), .. } => {
            &[RateLimited, CostTooHigh, DeadlineExceeded, StoreDown]
        }
        State::RateLimit { .. } => &[RateLimited, CostTooHigh, DeadlineExceeded],
        State::Throttle { .. } => &[Throttled],
        State::Timeout { .. } => &[DeadlineExceeded, TimedOut],
        State::Drain { .. } => &[Draining],
        _ => &[],
    }
}

/// Adds the gauges of a key that is a label.
fn sample_key(key: &KeyInstance, name: &'static str, samples: &mut Samples) {
    let Some(by_key) = key.label else { return };
    let mut add = |metric: &'static Metric, label: &'static str, value| {
        let series = Series {
            metric: metric.name,
            name,
            labels: [label, "", ""],
            by_key,
        };
        samples.push((metric, series, value));
    };
    match &key.state {
        KeyState::Circuit { state, window, .. } => {
            for known in BreakerState::ALL {
                let is_in = u64::from(known == *state);
                add(names::CIRCUIT_STATE, known.as_str(), gauge(is_in));
            }
            add(names::CIRCUIT_CALLS, "", gauge(window.total()));
            add(names::CIRCUIT_FAILURES, "", share(window.failures, *window));
            add(names::CIRCUIT_SLOW, "", share(window.slow, *window));
        }
        KeyState::Bulkhead {
            in_flight,
            limit,
            queued,
        } => {
            add(names::BULKHEAD_IN_FLIGHT, "", gauge(*in_flight));
            add(names::BULKHEAD_LIMIT, "", gauge(*limit));
            add(names::BULKHEAD_QUEUED, "", gauge(*queued));
            let used = Value::Gauge(used(*in_flight, *limit));
            add(names::BULKHEAD_USED, "", used);
        }
        KeyState::Throttle { probability } => {
            add(names::THROTTLE, "", Value::Gauge(*probability));
        }
    }
}

/// Adds the counts of a limit that processes share.
fn fleet_samples(
    fleet: &FleetCounts,
    add: &mut impl FnMut(&'static Metric, [&'static str; 3], Value),
) {
    let none = ["", "", ""];
    add(names::FLEET_LEASED, none, Value::Counter(fleet.leased));
    add(names::FLEET_UNSPENT, none, Value::Counter(fleet.unspent));
    for (result, count) in [("answered", fleet.answered), ("failed", fleet.failed)] {
        add(
            names::FLEET_EXCHANGES,
            [result, "", ""],
            Value::Counter(count),
        );
    }
    add(names::FLEET_UP, none, gauge(u64::from(!fleet.is_down)));
    if let Some(round_trip) = fleet.round_trip {
        add(names::FLEET_ROUND_TRIP, none, Value::Gauge(round_trip));
    }
}

/// Adds the samples that only one pattern has.
fn sample_state(
    Instance {
        totals,
        state,
        is_by_key,
        ..
    }: &Instance,
    add: &mut impl FnMut(&'static Metric, [&'static str; 3], Value),
) {
    let none = ["", "", ""];
    match state {
        State::CircuitBreaker(circuits) => sample_circuits(circuits, *is_by_key, add),
        // Each key has its own gauges.
        State::Bulkhead { .. } | State::Throttle { .. } if *is_by_key => {}
        State::Bulkhead {
            in_flight,
            limit,
            queued,
            used,
            learned,
        } => {
            add(names::BULKHEAD_IN_FLIGHT, none, gauge(*in_flight));
            add(names::BULKHEAD_LIMIT, none, gauge(*limit));
            add(names::BULKHEAD_QUEUED, none, gauge(*queued));
            if totals.reclaimed > 0 {
                let reclaimed = Value::Counter(totals.reclaimed);
                add(names::BULKHEAD_RECLAIMED, none, reclaimed);
            }
            add(names::BULKHEAD_USED, none, Value::Gauge(*used));
            if let Some(LearnedLimit { rtt, baseline }) = learned {
                add(names::ADAPTIVE_LIMIT, none, gauge(*limit));
                for (kind, rtt) in [("average", rtt), ("baseline", baseline)] {
                    if let Some(rtt) = rtt {
                        add(names::ADAPTIVE_RTT, [kind, "", ""], Value::Gauge(*rtt));
                    }
                }
            }
        }
        State::RateLimit {
            queued,
            keys,
            evictions,
            fleet,
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
            if let Some(fleet) = fleet {
                fleet_samples(fleet, add);
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
            for (cause, count) in attempts {
                add(
                    names::RETRY_ATTEMPTS,
                    [cause, "", ""],
                    Value::Counter(*count),
                );
            }
            if let Some(budget) = budget {
                add(names::RETRY_BUDGET, none, gauge(*budget));
            }
        }
        State::Fallback { answered, failed } => {
            for (result, count) in [("answered", answered), ("failed", failed)] {
                add(names::FALLBACKS, [result, "", ""], Value::Counter(*count));
            }
        }
        State::Spill { backends } => {
            for (backend, result, count) in backends {
                add(names::SPILLS, [backend, result, ""], Value::Counter(*count));
            }
        }
        #[cfg(feature = "fault")]
        State::Faults {
            running,
            reason,
            active,
            injected,
            would_inject,
            spared,
        } => {
            for (fault, count) in injected {
                let labels = [*fault, "", ""];
                add(names::FAULTS_INJECTED, labels, Value::Counter(*count));
            }
            for (fault, count) in would_inject.iter().filter(|(_, count)| *count > 0) {
                let labels = [*fault, "", ""];
                add(names::FAULTS_WOULD, labels, Value::Counter(*count));
            }
            add(names::FAULTS_SPARED, none, Value::Counter(*spared));
            let labels = [*reason, "", ""];
            add(names::FAULTS_RUNNING, labels, gauge(u64::from(*running)));
            add(names::FAULTS_ACTIVE, none, gauge(*active));
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
        State::Shadow {
            calls,
            would_reject,
            ..
        } => {
            add(names::SHADOW_CALLS, none, Value::Counter(*calls));
            for (kind, count) in would_reject.iter().filter(|(_, count)| *count > 0) {
                let labels = [kind.as_str(), "", ""];
                add(names::WOULD_REJECT, labels, Value::Counter(count));
            }
        }
        State::Watch {
            alive,
            failing,
            last_good,
            reads,
            changes,
            errors,
        } => {
            add(names::WATCH_ALIVE, none, gauge(u64::from(*alive)));
            add(names::WATCH_FAILING, none, gauge(u64::from(*failing)));
            if let Some(ago) = last_good {
                add(names::WATCH_LAST_GOOD, none, Value::Gauge(*ago));
            }
            add(names::WATCH_READS, none, Value::Counter(*reads));
            for (result, count) in [("applied", changes), ("rejected", errors)] {
                let labels = [result, "", ""];
                add(names::WATCH_TEXTS, labels, Value::Counter(*count));
            }
        }
        State::Drain {
            in_flight,
            draining,
        } => {
            add(names::DRAIN_IN_FLIGHT, none, gauge(*in_flight));
            add(names::DRAINING, none, gauge(u64::from(*draining)));
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
    is_by_key: bool,
    add: &mut impl FnMut(&'static Metric, [&'static str; 3], Value),
) {
    for (from, to, cause, count) in &circuits.transitions {
        let labels = [from.as_str(), to.as_str(), cause.as_str()];
        add(names::CIRCUIT_TRANSITIONS, labels, Value::Counter(*count));
    }
    // The rest is per key.
    if is_by_key {
        return;
    }
    for (state, count) in &circuits.states {
        add(
            names::CIRCUIT_STATE,
            [state.as_str(), "", ""],
            gauge(*count),
        );
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

/// Returns the share of the window's calls, or 0 if it has none.
#[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
fn share(part: u64, window: Counts) -> Value {
    Value::Gauge(part as f64 / window.total().max(1) as f64)
}
