//! The handle of one circuit.

use std::{any::Any, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    Changed, ConfigError,
    algorithm::{BreakerConfig, BreakerState, Counts, Transition},
    circuit_breaker::{CircuitGate, Transitions, state::State},
    gate::WatchedCircuits,
    keyed::partitions::Hold,
    observe::Totals,
};

/// Watches and steers a circuit breaker from outside. Cheap to clone; it keeps the circuit's state
/// alive, not its services.
#[derive(Debug, Clone)]
pub struct CircuitBreakerHandle {
    state: Arc<State>,
    /// `None` if it came with a list of all keys.
    _hold: Option<Hold>,
}

/// A circuit breaker at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Where the circuit stands. Open changes to half-open with the first call after its time.
    pub state: BreakerState,
    /// How many transitions there have been, modulo 2^18; updates that started the window anew
    /// among them.
    pub generation: u32,
    /// What the window holds.
    pub counts: Counts,
    /// Calls in flight that are slow already; 0 unless slow calls are watched.
    pub hung: u64,
    /// How long until probes are let through, while open.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub until_half_open: Option<Duration>,
    /// Results that came after the state of their admission had ended, and so were not counted.
    pub late: u64,
    /// What it has counted so far.
    pub totals: Totals,
    /// The last change of state, and its cause.
    pub last_transition: Option<Transition>,
}

impl CircuitGate {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle::new(self.state.clone())
    }
}

impl WatchedCircuits for CircuitBreakerHandle {
    fn is_open_at(&self, _: Option<&dyn Any>, moment: Instant) -> bool {
        let State {
            breaker,
            clock,
            settings,
            ..
        } = &*self.state;
        settings.enabled && breaker.is_open_at(clock.at(moment))
    }
}

impl CircuitBreakerHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        let hold = Some(state.hold.clone());
        Self { state, _hold: hold }
    }

    /// One that does not keep the key's place.
    pub(super) fn watching(state: Arc<State>) -> Self {
        Self { state, _hold: None }
    }

    /// Where the circuit stands. Costs one load.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state.breaker.state()
    }

    /// The circuit as it is now. Costs a clock read and ten loads a core; its parts are read one
    /// after the other.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (breaker, now) = (&self.state.breaker, self.state.clock.now());
        Snapshot {
            state: breaker.state(),
            generation: breaker.generation(),
            counts: breaker.counts(now),
            hung: breaker.hung(now),
            until_half_open: breaker.until_half_open(now),
            late: breaker.late(),
            totals: self.state.tally.totals(),
            last_transition: self.state.transitions.last(),
        }
    }

    /// The circuit's transitions from now on, as a stream. Any number may subscribe; none can hold
    /// the circuit up. An update that starts the window anew is among them, from a state to the
    /// same, because of [`Cause::Updated`](crate::algorithm::Cause::Updated).
    #[must_use]
    pub fn transitions(&self) -> Transitions {
        self.state.transitions.subscribe()
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> BreakerConfig {
        self.state.config()
    }

    /// Takes other settings, and keeps state and window: start from [`config`](Self::config).
    ///
    /// With another length of the window, or another time from which calls are slow, what was
    /// counted says nothing any more: the window starts anew, and the results of calls that are out
    /// are late. [`Changed::restarts`] tells.
    ///
    /// # Errors
    /// A setting outside its range, or a window of calls that would change or become one. Nothing
    /// has changed then.
    pub fn update(&self, config: BreakerConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Rejects everything until [`close`](Self::close).
    pub fn force_open(&self) {
        self.state.publish(self.state.breaker.force_open());
    }

    /// Closes with an empty window; a closed circuit keeps its own. All that wait for the circuit
    /// are woken.
    pub fn close(&self) {
        self.state.publish(self.state.breaker.close());
    }

    /// Lets everything through, uncounted, until [`close`](Self::close).
    pub fn disable(&self) {
        self.state.publish(self.state.breaker.disable());
    }

    /// Lets everything through and counts it, but never opens, until [`close`](Self::close).
    pub fn metrics_only(&self) {
        self.state.publish(self.state.breaker.metrics_only());
    }

    /// Starts over, closed: with an empty window, and no memory of how often the circuit has
    /// opened.
    pub fn reset(&self) {
        self.state.publish(self.state.breaker.reset());
    }
}
