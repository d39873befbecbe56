//! The handle of a throttle.

use std::sync::Arc;

use crate::{
    Changed, ConfigError,
    algorithm::throttle::ThrottleConfig,
    keyed::partitions::Hold,
    observe::{self, Instance, Observed, Totals},
    throttle::{ThrottleGate, state::State},
};

/// Watches and resets a throttle from outside. Cheap to clone. Keeps the throttle's state alive,
/// not its services.
#[derive(Debug, Clone)]
pub struct ThrottleHandle {
    state: Arc<State>,
    /// `None` for a handle from a list of all keys.
    _hold: Option<Hold>,
}

/// A throttle at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The probability that a call is rejected now, from 0 to 1.
    pub probability: f64,
    /// Calls in the window that the upstream accepted.
    pub accepts: u64,
    /// Calls in the window that it rejected, or failed.
    pub failures: u64,
    /// The counts so far.
    pub totals: Totals,
}

impl ThrottleGate {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> ThrottleHandle {
        ThrottleHandle {
            state: self.state.clone(),
            _hold: Some(self.state.hold.clone()),
        }
    }
}

impl ThrottleHandle {
    /// Creates a handle that does not protect its key from eviction.
    pub(super) fn watching(state: Arc<State>) -> Self {
        Self { state, _hold: None }
    }

    /// Returns the current state of the throttle. Costs a clock read and some thirty loads per
    /// core.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.state.clock.now();
        let counts = self.state.throttle.counts(now);
        Snapshot {
            probability: self.state.throttle.probability(now),
            accepts: counts.accepts,
            failures: counts.failures,
            totals: self.state.tally.totals(),
        }
    }

    /// Returns the settings in force.
    #[must_use]
    pub fn config(&self) -> ThrottleConfig {
        self.state.config()
    }

    /// Changes all settings at once, and keeps the counts. Start from [`config`](Self::config). If
    /// the length of the window changes, the window restarts empty, and [`Changed::restarts`]
    /// reports that.
    ///
    /// # Errors
    /// A setting outside the range that [`ThrottleConfig`] gives for it. Nothing has changed then.
    pub fn update(&self, config: ThrottleConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Forgets all calls, and so rejects nothing until there are new failures.
    pub fn reset(&self) {
        self.state.throttle.reset();
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let probability = self.throttle.probability(self.clock.now());
        let state = observe::State::Throttle { probability };
        Instance::new(&self.tally, params(&self.config()), state)
    }
}

/// Lists the settings that decide about rejections.
pub(super) fn params(config: &ThrottleConfig) -> Vec<(&'static str, f64)> {
    vec![
        ("multiplier", config.multiplier),
        ("window", config.window.as_secs_f64()),
        ("min_calls", f64::from(config.min_calls)),
        ("max_rejection", config.max_rejection),
    ]
}
