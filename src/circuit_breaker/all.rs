//! What the circuits of one layer are counted by, together: evicted ones too.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    algorithm::{BreakerConfig, BreakerState, Cause, Counts, Transition, Window},
    config::Editions,
    observe::{Circuits, Instance, Observed, OpenCircuits, State, Tally, Unwell, trace},
};

/// The circuit whose window a layer shows: its only one, or of those of keys the one that fails
/// most.
pub(super) trait Shown: Send + Sync {
    /// What its window holds.
    fn counts(&self) -> Counts;

    /// The settings in force.
    fn config(&self) -> BreakerConfig;

    /// The state of a circuit that no call has come to, and that is none to count.
    fn unused(&self) -> Option<BreakerState>;

    /// How many circuits are not closed, and how long ago the first of them left that.
    fn open(&self) -> (usize, Duration);
}

/// Shared by the circuits of a layer.
pub(super) struct AllCircuits {
    pub(super) tally: Arc<Tally>,
    /// How many circuits are in each state. Relaxed: a statistic.
    states: [AtomicI64; BreakerState::ALL.len()],
    /// Locked for transitions and to read.
    transitions: Mutex<Vec<(BreakerState, BreakerState, Cause, u64)>>,
    /// Set when the layer is built.
    shown: OnceLock<Weak<dyn Shown>>,
    /// The settings of all those that have none of their own.
    pub(super) configs: Editions<BreakerConfig>,
    /// Whether the process can do nothing without the upstream.
    critical: bool,
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
            transitions: Mutex::default(),
            shown: OnceLock::new(),
            configs: Editions::new(config),
        }
    }

    pub(super) fn shows(&self, circuit: Weak<dyn Shown>) {
        // A second one does not come.
        let _ = self.shown.set(circuit);
    }

    pub(super) fn began(&self, state: BreakerState) {
        self.states[state as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, state: BreakerState) {
        self.states[state as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a transition. An update that starts a window anew changes no state, and is none.
    pub(super) fn count(&self, transition: &Transition) {
        let Transition {
            from, to, cause, ..
        } = *transition;
        if cause == Cause::Updated {
            return;
        }
        self.began(to);
        self.ended(from);
        let mut transitions = self.lock();
        let known = transitions
            .iter_mut()
            .find(|known| (known.0, known.1, known.2) == (from, to, cause));
        match known {
            Some(known) => known.3 += 1,
            None => transitions.push((from, to, cause, 1)),
        }
    }

    /// Says so. Of an update that is done already.
    pub(super) fn tell(&self, transition: &Transition) {
        let Transition {
            from, to, cause, ..
        } = *transition;
        if cause != Cause::Updated {
            let states = (from.as_str(), to.as_str());
            trace::transition((self.tally.layer, self.tally.name), states, cause.as_str());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(BreakerState, BreakerState, Cause, u64)>> {
        self.transitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
        let states = BreakerState::ALL.into_iter();
        let circuits = Circuits {
            states: states
                .map(|state| {
                    let count = self.states[state as usize].load(Ordering::Relaxed);
                    let count = count - i64::from(unused == Some(state));
                    (state, u64::try_from(count).unwrap_or(0))
                })
                .collect(),
            window: shown.as_ref().map(|circuit| circuit.counts()),
            transitions: self.lock().clone(),
        };
        let config = shown.map_or_else(|| self.configs.settings(), |circuit| circuit.config());
        Instance::new(
            &self.tally,
            params(&config),
            State::CircuitBreaker(circuits),
        )
    }
}

/// The settings that a graph of ratios or calls needs lines for.
fn params(config: &BreakerConfig) -> Vec<(&'static str, f64)> {
    let mut params = vec![
        ("min_calls", f64::from(config.min_calls)),
        ("open_for", config.open_for.as_secs_f64()),
    ];
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
