//! What the layer, its services and its handles share.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    Outcome, Rejected, RejectedKind,
    algorithm::{Breaker, BreakerState, Counts, Pass, Transition},
    protocol::Settle,
    striped::{Striped, current_stripe},
    time::Clock,
};

/// Watches and steers a circuit breaker from outside. Cheap to clone; it keeps the circuit's state alive, not its
/// services.
#[derive(Debug)]
pub struct CircuitBreakerHandle {
    state: Striped<State>,
}

/// A circuit breaker at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Where the circuit stands. Open changes to half-open with the first call after its time.
    pub state: BreakerState,
    /// How many transitions there have been, modulo 2^18.
    pub generation: u32,
    /// What the window holds.
    pub counts: Counts,
    /// How long until probes are let through, while open.
    pub until_half_open: Option<Duration>,
    /// Results that came after the state of their admission had ended, and so were not counted.
    pub late: u64,
    /// The last change of state, and its cause.
    pub last_transition: Option<Transition>,
}

/// An admission, from `call` to its result. Dropped unsettled, it counts for nothing and gives a probe back.
#[derive(Debug)]
pub struct Permit {
    state: Striped<State>,
    /// `None` once settled.
    pass: Option<Pass>,
}

#[derive(Debug)]
pub(super) struct State {
    breaker: Breaker,
    clock: Clock,
    name: Option<&'static str>,
    /// Locked on transitions and by readers of snapshots, never by calls.
    last_transition: Mutex<Option<Transition>>,
}

impl CircuitBreakerHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// Where the circuit stands. Costs one load.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state.breaker.state()
    }

    /// The circuit as it is now. Costs a clock read and ten loads a core; its parts are read one after the other.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (breaker, now) = (&self.state.breaker, self.state.clock.now());
        Snapshot {
            state: breaker.state(),
            generation: breaker.generation(),
            counts: breaker.counts(now),
            until_half_open: breaker.until_half_open(now),
            late: breaker.late(),
            last_transition: *self.state.last_transition.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Refuses everything until [`close`](Self::close).
    pub fn force_open(&self) {
        self.state.publish(self.state.breaker.force_open());
    }

    /// Closes with an empty window, from any state.
    pub fn close(&self) {
        self.state.publish(self.state.breaker.close());
    }

    /// Lets everything through, uncounted, until [`close`](Self::close).
    pub fn disable(&self) {
        self.state.publish(self.state.breaker.disable());
    }
}

impl Clone for CircuitBreakerHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.anchored())
    }
}

impl Settle for Permit {
    fn settle(mut self, outcome: Outcome, retry_after: Option<Duration>) {
        if let Some(pass) = self.pass.take() {
            let State { breaker, clock, .. } = &*self.state;
            self.state.publish(breaker.record(pass, outcome, retry_after, current_stripe(), clock.now()));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            let State { breaker, clock, .. } = &*self.state;
            self.state.publish(breaker.abandon(pass, current_stripe(), clock.now()));
        }
    }
}

impl State {
    pub(super) fn new(breaker: Breaker, clock: Clock, name: Option<&'static str>) -> Self {
        Self { breaker, clock, name, last_transition: Mutex::new(None) }
    }

    /// Reads the clock only if the circuit is not closed.
    pub(super) fn refuses(&self) -> bool {
        self.breaker.admit_if_closed().is_none() && self.breaker.refuses(self.clock.now())
    }

    fn publish(&self, transition: Option<Transition>) {
        if transition.is_some() {
            *self.last_transition.lock().unwrap_or_else(PoisonError::into_inner) = transition;
        }
    }
}

pub(super) fn admit(state: &Striped<State>) -> Result<Permit, Rejected> {
    if let Some(pass) = state.breaker.admit_if_closed() {
        return Ok(Permit { state: state.clone(), pass: Some(pass) });
    }
    let (decision, transition) = state.breaker.admit(current_stripe(), state.clock.now());
    state.publish(transition);
    match decision {
        Ok(pass) => Ok(Permit { state: state.clone(), pass: Some(pass) }),
        Err(refused) => Err(Rejected {
            kind: RejectedKind::CircuitOpen,
            layer: "circuit_breaker",
            name: state.name,
            retry_after: refused.wait,
        }),
    }
}
