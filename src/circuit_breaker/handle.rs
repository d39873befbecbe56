//! What the layer, its services and its handles share.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, futures::Notified};

use crate::{
    ConfigError, Outcome, Rejected, RejectedKind,
    algorithm::{Breaker, BreakerConfig, BreakerState, Counts, Pass, Transition},
    circuit_breaker::{Transitions, journal::Journal},
    protocol::Settle,
    striped::{Held, Striped, current_stripe},
    time::Clock,
};

/// Watches and steers a circuit breaker from outside. Cheap to clone; it keeps the circuit's state
/// alive, not its services.
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
    /// Calls in flight that are slow already; 0 unless slow calls are watched.
    pub hung: u64,
    /// How long until probes are let through, while open.
    pub until_half_open: Option<Duration>,
    /// Results that came after the state of their admission had ended, and so were not counted.
    pub late: u64,
    /// The last change of state, and its cause.
    pub last_transition: Option<Transition>,
}

/// An admission, from `call` to its result. Dropped unsettled, it gives a probe back and counts for
/// nothing, unless it already was slow or [dropped calls are
/// failures](super::CircuitBreakerBuilder::cancelled_as_failure).
#[derive(Debug)]
pub struct Permit {
    state: Held<State>,
    /// `None` once settled.
    pass: Option<Pass>,
}

#[derive(Debug)]
pub(super) struct State {
    breaker: Breaker,
    clock: Clock,
    name: Option<&'static str>,
    /// Whether services wait in `poll_ready` while the circuit refuses.
    pub(super) backpressure: bool,
    /// The settings in force. Locked to change or read them, never by calls.
    config: Mutex<BreakerConfig>,
    journal: Journal,
    /// Wakes those who wait: after each transition, and when a probe was given back.
    changed: Notify,
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
            last_transition: self.state.journal.last(),
        }
    }

    /// The circuit's transitions from now on. As many may subscribe as like; none can hold the
    /// circuit up.
    #[must_use]
    pub fn transitions(&self) -> Transitions {
        self.state.journal.subscribe()
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> BreakerConfig {
        *self
            .state
            .config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes other settings, and keeps state and window: start from [`config`](Self::config).
    ///
    /// # Errors
    /// A setting outside its range, another window, or another time from which calls are slow.
    /// Nothing has changed then.
    pub fn update(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        self.state.update(config)
    }

    /// Refuses everything until [`close`](Self::close).
    pub fn force_open(&self) {
        self.state.publish(self.state.breaker.force_open());
    }

    /// Closes with an empty window; a closed circuit keeps its own. Whoever waits for the circuit
    /// is woken.
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

impl Clone for CircuitBreakerHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

impl Settle for Permit {
    #[inline]
    fn settle(mut self, outcome: Outcome, retry_after: Option<Duration>) {
        if let Some(pass) = self.pass.take() {
            let State { breaker, clock, .. } = &*self.state;
            self.state.taken_back(breaker.record(
                pass,
                outcome,
                retry_after,
                current_stripe(),
                clock.now(),
            ));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            let State { breaker, clock, .. } = &*self.state;
            self.state
                .taken_back(breaker.abandon(pass, current_stripe(), clock.now()));
        }
    }
}

impl State {
    pub(super) fn new(
        breaker: Breaker,
        config: BreakerConfig,
        name: Option<&'static str>,
        backpressure: bool,
    ) -> Self {
        Self {
            breaker,
            clock: Clock::start(),
            name,
            backpressure,
            config: Mutex::new(config),
            journal: Journal::new(),
            changed: Notify::new(),
        }
    }

    /// Whether a call that came now would be refused. An open circuit is taken at its word, unless
    /// somebody waits for its end: reading the clock here and in `call` would make a rejection
    /// dearer than an admission, and a call that is admitted after all asks the inner service then.
    #[inline]
    pub(super) fn refuses(&self) -> bool {
        if self.breaker.admit_if_closed().is_some() {
            return false;
        }
        let open = matches!(
            self.breaker.state(),
            BreakerState::Open | BreakerState::ForcedOpen
        );
        (open && !self.backpressure) || self.breaker.refuses(self.clock.now())
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.breaker.is_forgettable(self.clock.now())
    }

    pub(super) fn update(&self, config: BreakerConfig) -> Result<(), ConfigError> {
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        self.breaker.update(&config)?;
        *current = config;
        drop(current);
        // More probes may be out than before.
        self.changed.notify_waiters();
        Ok(())
    }

    /// Ends with the next change; one after this call, not after the first poll.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn until_change(&self) -> Option<Duration> {
        self.breaker.until_change(self.clock.now())
    }

    pub(super) fn expire(&self) {
        self.publish(self.breaker.expire(self.clock.now()));
    }

    pub(super) fn disable(&self) {
        self.publish(self.breaker.disable());
    }

    /// After a permit has come back: if it was a probe, its slot may be free.
    fn taken_back(&self, transition: Option<Transition>) {
        if transition.is_none()
            && self.backpressure
            && self.breaker.state() == BreakerState::HalfOpen
        {
            self.changed.notify_waiters();
        }
        self.publish(transition);
    }

    fn publish(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            self.journal.enter(transition);
            self.changed.notify_waiters();
        }
    }
}

#[inline]
pub(super) fn admit(state: &Held<State>) -> Result<Permit, Rejected> {
    if let Some(pass) = state.breaker.admit_if_closed() {
        return Ok(Permit {
            state: state.for_call(),
            pass: Some(pass),
        });
    }
    let (decision, transition) = state.breaker.admit(current_stripe(), state.clock.now());
    state.publish(transition);
    match decision {
        Ok(pass) => Ok(Permit {
            state: state.for_call(),
            pass: Some(pass),
        }),
        Err(refused) => Err(Rejected {
            kind: RejectedKind::CircuitOpen,
            layer: "circuit_breaker",
            name: state.name,
            retry_after: refused.wait,
        }),
    }
}
