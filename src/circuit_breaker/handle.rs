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

/// A handle that watches and controls a circuit breaker. Cheap to clone. It keeps the circuit's
/// state alive, not its services.
#[derive(Debug, Clone)]
pub struct CircuitBreakerHandle {
    state: Arc<State>,
    /// `None` if the handle came with a list of all keys.
    _hold: Option<Hold>,
}

/// The state of a circuit breaker at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The circuit's state. Open changes to half-open with the first call after the open time.
    pub state: BreakerState,
    /// The number of transitions so far, modulo 2^18. It includes updates that restarted the
    /// window.
    pub generation: u32,
    /// The counts of the window.
    pub counts: Counts,
    /// The calls in flight that are slow already. 0 unless slow calls are watched.
    pub hung: u64,
    /// The time until the first probes, while open.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::config::seconds::if_any")
    )]
    pub until_half_open: Option<Duration>,
    /// The results that arrived after the state that admitted them had ended, and so were not
    /// counted.
    pub late: u64,
    /// The counts so far.
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

    /// Creates a handle that does not protect the key from eviction.
    pub(super) fn watching(state: Arc<State>) -> Self {
        Self { state, _hold: None }
    }

    /// Returns the circuit's state. Costs one load.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state.breaker.state()
    }

    /// Returns the circuit's present state and counts. Costs a clock read and ten loads per core.
    /// Its parts are read one after another.
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

    /// Returns the circuit's future transitions as a stream. Any number of subscribers is allowed,
    /// and none can delay the circuit. An update that restarts the window is among them. Its two
    /// states are equal, and its cause is [`Cause::Updated`](crate::algorithm::Cause::Updated).
    #[must_use]
    pub fn transitions(&self) -> Transitions {
        self.state.transitions.subscribe()
    }

    /// Returns the settings in force.
    #[must_use]
    pub fn config(&self) -> BreakerConfig {
        self.state.config()
    }

    /// Changes the settings, and keeps state and window. Start from [`config`](Self::config).
    ///
    /// With a new length of the window, or a new time from which calls are slow, the counts mean
    /// nothing any more. Then the window restarts, and the results of calls in flight are late.
    /// [`Changed::restarts`] reports that.
    ///
    /// # Errors
    /// A setting is outside its range, or the window would change from time to a number of calls or
    /// back. Nothing has changed then.
    pub fn update(&self, config: BreakerConfig) -> Result<Changed, ConfigError> {
        self.state.update(config)
    }

    /// Rejects all calls until [`close`](Self::close).
    pub fn force_open(&self) {
        self.state.publish(self.state.breaker.force_open());
    }

    /// Closes the circuit with an empty window. A closed circuit keeps its window. All callers that
    /// wait for the circuit are woken.
    pub fn close(&self) {
        self.state.publish(self.state.breaker.close());
    }

    /// Admits all calls, uncounted, until [`close`](Self::close).
    pub fn disable(&self) {
        self.state.publish(self.state.breaker.disable());
    }

    /// Admits and counts all calls, and never opens, until [`close`](Self::close).
    pub fn metrics_only(&self) {
        self.state.publish(self.state.breaker.metrics_only());
    }

    /// Resets the circuit to closed, with an empty window, and forgets how often it has opened.
    pub fn reset(&self) {
        self.state.publish(self.state.breaker.reset());
    }
}
