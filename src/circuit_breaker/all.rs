//! The counts of all circuits of one layer together, evicted ones included.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    algorithm::{BreakerConfig, BreakerState, Cause, Counts, Transition, Window},
    ambient::clock::common_now,
    circuit_breaker::explained::{CircuitChange, Effect},
    config::Editions,
    observe::{
        Circuits, Instance, KeyInstance, Observed, OpenCircuits, RecentTransition, State, Tally,
        Unwell, trace,
    },
};

/// A circuit whose window a layer shows. A keyed layer shows that of the key that fails most.
pub(super) trait Shown: Send + Sync {
    /// Returns the counts of its window.
    fn counts(&self) -> Counts;

    /// Returns the settings in force.
    fn config(&self) -> BreakerConfig;

    /// Returns the state of a circuit that no call has used, and that is not to be counted.
    fn unused(&self) -> Option<BreakerState>;

    /// Returns the keys in the worst state, and whether keys are labels in metrics.
    fn keys(&self) -> (Vec<KeyInstance>, bool);

    /// Returns how many circuits are not closed, and how long ago the first of them left closed.
    fn open(&self) -> (usize, Duration);
}

/// The state that the circuits of a layer share.
pub(super) struct AllCircuits {
    pub(super) tally: Arc<Tally>,
    /// The number of circuits in each state. Relaxed: a statistic.
    states: [AtomicI64; BreakerState::ALL.len()],
    /// Locked for transitions and by readers.
    seen: Mutex<TransitionTotals>,
    /// Set once the layer is built.
    shown: OnceLock<Weak<dyn Shown>>,
    /// The settings of all circuits that have none of their own.
    pub(super) configs: Editions<BreakerConfig>,
    /// If true, the process can do nothing without the upstream.
    critical: bool,
}

/// The transitions of all circuits.
#[derive(Default)]
struct TransitionTotals {
    counts: Vec<(BreakerState, BreakerState, Cause, u64)>,
    /// The last transitions, the oldest first.
    recent: VecDeque<CircuitChange>,
}

impl TransitionTotals {
    fn recent(&self) -> Vec<RecentTransition> {
        if self.recent.is_empty() {
            return Vec::new();
        }
        let now = common_now();
        let ago = |moment| Duration::from_nanos(now.saturating_sub(moment)).as_secs_f64();
        let recent = self.recent.iter().map(|change| RecentTransition {
            key: change.key.as_ref().map(ToString::to_string),
            transition: change.transition,
            threshold: change.threshold.clone(),
            open_for: change.open_for.map(|time| time.as_secs_f64()),
            ago: ago(change.moment),
            moment: change.moment,
        });
        recent.collect()
    }
}

impl AllCircuits {
    pub(super) fn new(
        config: BreakerConfig,
        (name, critical): (Option<&'static str>, bool),
    ) -> Self {
        Self {
            tally: Arc::new(Tally::new("circuit_breaker", name)),
            critical,
            states: std::array::from_fn(|_| AtomicI64::new(0)),
            seen: Mutex::default(),
            shown: OnceLock::new(),
            configs: Editions::new(config),
        }
    }

    pub(super) fn shows(&self, circuit: Weak<dyn Shown>) {
        // Called once, so it cannot fail.
        let _ = self.shown.set(circuit);
    }

    pub(super) fn began(&self, state: BreakerState) {
        self.states[state as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, state: BreakerState) {
        self.states[state as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a transition. An update that restarts the window changes no state, and is not
    /// counted.
    pub(super) fn count(&self, transition: &Transition) {
        let Transition {
            from, to, cause, ..
        } = *transition;
        if cause == Cause::Updated {
            return;
        }
        self.began(to);
        self.ended(from);
        let mut seen = self.lock();
        let known = seen
            .counts
            .iter_mut()
            .find(|known| (known.0, known.1, known.2) == (from, to, cause));
        match known {
            Some(known) => known.3 += 1,
            None => seen.counts.push((from, to, cause, 1)),
        }
    }

    /// Keeps a transition among the last ones. Of a circuit's probes it keeps only the last, or
    /// they would soon replace the transition that opened it.
    pub(super) fn remember(&self, change: &CircuitChange) {
        let mut seen = self.lock();
        let is_probe = |effect| matches!(effect, Effect::Probes | Effect::StaysOpen);
        if Effect::of(&change.transition) == Effect::Probes {
            seen.recent.retain(|known| {
                known.key != change.key || !is_probe(Effect::of(&known.transition))
            });
        }
        if seen.recent.len() == RECENT {
            seen.recent.pop_front();
        }
        seen.recent.push_back(change.clone());
    }

    /// Emits the transition as an event. An update is reported elsewhere.
    pub(super) fn tell(&self, change: &CircuitChange) {
        let Transition {
            from,
            to,
            cause,
            counts,
            ..
        } = change.transition;
        if cause == Cause::Updated {
            return;
        }
        let key = change.key.as_ref().map(ToString::to_string);
        let effect = Effect::of(&change.transition);
        let (has_counts, has_ended) = (
            matches!(effect, Effect::Opens | Effect::StaysOpen),
            effect == Effect::Closes,
        );
        trace::transition(&trace::Transition {
            message: effect.message(),
            is_warning: matches!(effect, Effect::Opens | Effect::Closes),
            layer: self.tally.layer,
            name: self.tally.name,
            key: key.as_deref(),
            from: from.as_str(),
            to: to.as_str(),
            reason: cause.as_str(),
            calls: has_counts.then(|| counts.total()),
            failures: has_counts.then_some(counts.failures),
            slow: has_counts.then_some(counts.slow),
            dropped: (effect == Effect::Opens).then_some(counts.abandoned),
            threshold: change.threshold.as_deref().filter(|_| has_counts),
            open_for: change.open_for.filter(|_| has_counts),
            outage: change.transition.open_for.filter(|_| has_ended),
            rejected: change.transition.rejected.filter(|_| has_ended),
        });
    }

    fn lock(&self) -> MutexGuard<'_, TransitionTotals> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AllCircuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.observe().fmt(f)
    }
}

impl Observed for AllCircuits {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn unwell(&self) -> Option<Unwell> {
        let (open, since) = self.shown.get()?.upgrade()?.open();
        let circuits = OpenCircuits {
            name: self.tally.name.unwrap_or_default(),
            open,
            since,
            critical: self.critical,
        };
        (open > 0).then_some(Unwell::Circuits(circuits))
    }

    fn observe(&self) -> Instance {
        let shown = self.shown.get().and_then(Weak::upgrade);
        let unused = shown.as_ref().and_then(|circuit| circuit.unused());
        let seen = self.lock();
        let (mut transitions, recent) = (seen.counts.clone(), seen.recent());
        drop(seen);
        let config = shown.as_ref().map(|circuit| circuit.config());
        let config = config.unwrap_or_else(|| self.configs.settings());
        let seen = transitions.len();
        transitions.reserve(MAX_KNOWN);
        for (from, to, cause) in known(&config) {
            let is_this = |seen: &(_, _, _, u64)| (seen.0, seen.1, seen.2) == (from, to, cause);
            if !transitions[..seen].iter().any(is_this) {
                transitions.push((from, to, cause, 0));
            }
        }
        let circuits = Circuits {
            states: BreakerState::ALL.map(|state| {
                let count = self.states[state as usize].load(Ordering::Relaxed);
                let count = count - i64::from(unused == Some(state));
                (state, u64::try_from(count).unwrap_or(0))
            }),
            window: shown.as_ref().map(|circuit| circuit.counts()),
            transitions,
            recent,
        };
        let keys = shown.as_ref().map(|circuit| circuit.keys());
        let state = State::CircuitBreaker(circuits);
        Instance::new(&self.tally, params(&config), state).with_keys(keys.unwrap_or_default())
    }
}

/// Lists all settings that can open a circuit or keep it open.
fn params(config: &BreakerConfig) -> Vec<(&'static str, f64)> {
    let mut params = Vec::with_capacity(12);
    params.extend([
        ("min_calls", f64::from(config.min_calls)),
        ("open_for", config.open_for.as_secs_f64()),
        ("probes", f64::from(config.probes)),
    ]);
    let seconds = |name, time: Option<Duration>| time.map(|time| (name, time.as_secs_f64()));
    params.extend(seconds("max_open", config.max_open));
    params.extend(seconds("lease", config.lease));
    let ramp = Some(config.ramp).filter(|ramp| !ramp.is_zero());
    params.extend(seconds("ramp", ramp));
    let run = config.consecutive_failures;
    params.extend(run.map(|failures| ("consecutive_failures", f64::from(failures))));
    if let Some(rate) = config.failure_rate {
        params.push(("failure_rate", rate));
    }
    if let Some(slow) = config.slow_calls {
        params.push(("slow_rate", slow.rate));
        params.push(("slow_after", slow.after.as_secs_f64()));
    }
    match config.window {
        Window::Time(window) => params.push(("window", window.as_secs_f64())),
        Window::Calls(calls) => params.push(("window_calls", f64::from(calls))),
    }
    params
}

/// The number of transitions that are kept.
const RECENT: usize = 16;

/// Returns the transitions that a circuit with these settings makes by itself. They are exported
/// from the start, with 0, so that the first of a kind is an increase too.
fn known(config: &BreakerConfig) -> impl Iterator<Item = (BreakerState, BreakerState, Cause)> {
    use BreakerState::{Closed, HalfOpen, Open};
    let watches_slow = config.slow_calls.is_some();
    let counts_runs = config.consecutive_failures.is_some();
    let known = [
        (
            config.failure_rate.is_some(),
            Closed,
            Open,
            Cause::FailureRate,
        ),
        (watches_slow, Closed, Open, Cause::SlowRate),
        (counts_runs, Closed, Open, Cause::ConsecutiveFailures),
        (config.open_on_no_answer, Closed, Open, Cause::NoAnswer),
        (true, Open, HalfOpen, Cause::OpenElapsed),
        (true, HalfOpen, Open, Cause::ProbesFailed),
        (watches_slow, HalfOpen, Open, Cause::ProbesSlow),
        (true, HalfOpen, Open, Cause::LeaseExpired),
        (true, HalfOpen, Closed, Cause::ProbesSucceeded),
    ];
    let known = known.into_iter().filter(|(can, ..)| *can);
    known.map(|(_, from, to, cause)| (from, to, cause))
}

/// The number of transitions known from the start.
const MAX_KNOWN: usize = 9;
