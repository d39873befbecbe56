//! From the layers' counters to the `metrics` facade.

use std::{
    cell::Cell,
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, MutexGuard, PoisonError},
};

use metrics::Recorder;

use crate::{
    RejectedKind,
    algorithm::Counts,
    observe::{
        Instance, LearnedLimit, Metric, Registry, State, emit,
        increases::{Increase, Timed},
        names::{self, METRICS},
        recorder::is_global,
        series::{Bound, Published, Samples, Series, Value},
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
            };
            Some((id, metric, series, histogram))
        })
}

/// All samples of an instance.
fn sample(instance: &Instance, samples: &mut Samples) {
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
            learned,
        } => {
            add(names::BULKHEAD_IN_FLIGHT, none, gauge(*in_flight));
            add(names::BULKHEAD_LIMIT, none, gauge(*limit));
            add(names::BULKHEAD_QUEUED, none, gauge(*queued));
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

/// After how many publications a handle is asked for again: an exporter may forget a series that
/// was idle for long, and then what is written to its old handle is lost.
const RENEWED_AFTER: u64 = 16;
