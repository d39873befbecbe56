//! The circuit breaker's gate: one circuit.

use std::{
    convert::Infallible,
    mem,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    ConfigError, Outcome, Rejected, RejectedKind,
    algorithm::{Breaker, BreakerConfig, BreakerState, Counts, Pass},
    ambient::clock::{Clock, Now},
    circuit_breaker::{
        all::{AllCircuits, Shown},
        transition_log::TransitionLog,
    },
    config::Edition,
    gate::{
        Access, Admission, Admit, CallEvent, ClosedWatch, Closes, Completion, Gate, Inquiry,
        MissingKey, Read, TicketPoll, Unsent, end_upgraded,
    },
    keyed::{
        KeyText,
        partitions::{Evict, Hold},
    },
    observe::{Event, GateTally, KeyInstance},
    sync::current_stripe,
};

/// A gate that admits calls while a circuit is not open. Built with
/// [`CircuitBreakerBuilder::gate`](super::CircuitBreakerBuilder::gate).
#[derive(Debug, Clone)]
pub struct CircuitGate {
    pub(super) state: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) breaker: Breaker,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    /// The settings in force. Locked to change or read them, never by calls.
    pub(super) config: Mutex<Edition<BreakerConfig>>,
    pub(super) transitions: TransitionLog,
    /// Wakes waiting callers: after each transition, and when a probe was given back.
    pub(super) changed: watch::Sender<()>,
    /// If true, it has settings that a new circuit would not have. Relaxed: an eviction first
    /// ensures that no handle or call holds the circuit, and so sees every change made to it.
    pub(super) has_own_config: AtomicBool,
    /// The hold of its handles.
    pub(super) hold: Hold,
    /// The counts of all circuits of the layer.
    pub(super) all: Arc<AllCircuits>,
    /// The counts of this circuit. For the only circuit, those of the layer.
    pub(super) tally: GateTally,
    /// The key of the circuit, if it is that of one key.
    pub(super) key: Option<KeyText>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) name: Option<&'static str>,
    /// If true, services wait in `poll_ready` while the circuit rejects calls. `None` if not set.
    pub(super) backpressure: Option<bool>,
    /// If true, the process can do nothing without the upstream.
    pub(super) critical: bool,
    pub(super) enabled: bool,
}

impl Settings {
    #[inline(always)]
    pub(super) fn has_backpressure(&self) -> bool {
        self.backpressure.unwrap_or(false)
    }

    /// Checks what the circuit's settings need of each other.
    ///
    /// # Errors
    /// The circuit is critical and has no name. The registry, which reports health, does not have
    /// it.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.critical && self.name.is_none() {
            let fix = "add a name, because health only knows circuits that have one";
            return Err(ConfigError::new("critical", true, fix));
        }
        Ok(())
    }

    /// Returns the parts that the registry shows.
    pub(super) fn known(&self) -> (Option<&'static str>, bool) {
        (self.name, self.critical)
    }
}

impl CircuitGate {
    /// Creates the only circuit of a layer.
    pub(super) fn single(
        breaker: Breaker,
        config: BreakerConfig,
        settings: Settings,
        all: Arc<AllCircuits>,
    ) -> Self {
        let config = Edition {
            number: 0,
            settings: config,
        };
        let tally = all.tally.all();
        let gate = Self::new(breaker, config, settings, (all, tally, None));
        let shown: Arc<dyn Shown> = gate.state.clone();
        gate.state.all.shows(Arc::downgrade(&shown));
        gate
    }

    /// Creates one of several circuits, or, with a tally of all of them, the only one.
    pub(super) fn new(
        breaker: Breaker,
        config: Edition<BreakerConfig>,
        settings: Settings,
        (all, tally, key): (Arc<AllCircuits>, GateTally, Option<KeyText>),
    ) -> Self {
        all.began(BreakerState::Closed);
        let state = State {
            breaker,
            clock: Clock::start(),
            settings,
            config: Mutex::new(config),
            transitions: TransitionLog::new(),
            changed: watch::Sender::new(()),
            has_own_config: AtomicBool::new(false),
            hold: Hold::default(),
            all,
            tally,
            key,
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Records how an admitted call ended.
    #[inline(always)]
    fn settle(&self, pass: Pass, how: Completion, now: &Now) {
        let State { breaker, clock, .. } = &*self.state;
        if let Completion::Answered(Outcome::Ignore, _) = how {
            // A rejection further in: most need no time.
            if breaker.ignores(&pass) {
                return;
            }
        }
        let (stripe, now) = (current_stripe(), now.by(clock));
        let transition = match how {
            Completion::Answered(outcome, hint) => breaker.record(pass, outcome, hint, stripe, now),
            Completion::Dropped => breaker.abandon(pass, stripe, now),
            Completion::CutShort { late } => breaker.cut_short(pass, late, stripe, now),
        };
        if transition.is_some() || breaker.state() == BreakerState::HalfOpen {
            self.state.given_back(transition);
        }
    }

    #[cold]
    fn admit_unless_open(&self, now: &Now) -> Result<Pass, Box<Rejected>> {
        let state = &*self.state;
        let now = now.by(&state.clock);
        let decision = match state.breaker.rejection(now) {
            Some(open) => Err(open),
            None => {
                let (decision, transition) = state.breaker.admit(current_stripe(), now);
                state.publish(transition);
                decision
            }
        };
        decision.map_err(|open| state.tally.reject(RejectedKind::CircuitOpen, open.wait))
    }
}

impl Gate for CircuitGate {
    type Pass = Pass;
    type Ticket = Infallible;
    type Asked = ();
    const CLOSES: bool = true;

    fn give_back(&self, pass: Pass, why: Unsent, now: &Now) {
        match why {
            Unsent::NotReady => self.end(pass, FAILED, now),
            // Never sent, so not counted as a call.
            Unsent::Abandoned => self.settle(pass, IGNORED, now),
        }
    }

    #[inline(always)]
    fn end(&self, pass: Pass, how: Completion, now: &Now) {
        let State { breaker, tally, .. } = &*self.state;
        match how {
            _ if breaker.has_changed(&pass) => tally.count(Event::Late),
            Completion::Answered(outcome, _) => tally.ended(outcome),
            Completion::Dropped | Completion::CutShort { .. } => tally.count(Event::Cancelled),
        }
        self.settle(pass, how, now);
    }

    fn leave(&self, ticket: Infallible, _: &Now) {
        match ticket {}
    }

    #[inline(always)]
    fn owes(&self, pass: &Pass) -> bool {
        !pass.is_nothing()
    }

    fn renew(&self, pass: &mut Pass, now: &Now) -> Result<(), Box<Rejected>> {
        if !pass.is_nothing() && self.state.breaker.has_changed(pass) {
            // Its generation has passed, so it owes nothing any more.
            self.settle(mem::take(pass), IGNORED, now);
            *pass = self.admit_unless_open(now)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn event(&self, pass: &mut Pass, event: CallEvent, now: &Now) {
        match event {
            CallEvent::Head => self.state.breaker.head(pass, now.by(&self.state.clock)),
            CallEvent::Upgraded(outcome) => end_upgraded(self, pass, outcome, now),
            _ => {}
        }
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.state.breaker.admit_if_closed().is_some() || !self.state.settings.enabled
    }

    #[inline(always)]
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        visit(&*self.state)
    }
}

impl Closes for State {
    /// Trusts the state of an open circuit, unless backpressure waits for its end. Reading the
    /// clock both here and in `admit` would make a rejection cost more than an admission. A call
    /// that is admitted after all polls the inner service then.
    #[inline(always)]
    fn access(&self, now: &Now) -> Access {
        if self.breaker.admit_if_closed().is_some() || !self.settings.enabled {
            return Access::Open;
        }
        let open = matches!(
            self.breaker.state(),
            BreakerState::Open | BreakerState::ForcedOpen
        );
        let refuses = || self.breaker.refuses(now.by(&self.clock));
        match self.settings.has_backpressure() {
            false if open || refuses() => Access::Rejecting,
            true if refuses() => Access::Withheld,
            _ => Access::Open,
        }
    }

    fn changed(&self) -> ClosedWatch {
        let mut changed = self.changed.subscribe();
        // An error means that the circuit is gone, and then nothing waits for it either.
        Box::pin(async move { drop(changed.changed().await) })
    }

    /// Returns `None` without backpressure: nothing waits for the change, and the next call notices
    /// it.
    fn until_change(&self, now: &Now) -> Option<Duration> {
        let until_change = || self.breaker.until_change(now.by(&self.clock));
        self.settings.has_backpressure().then(until_change)?
    }

    fn expire(&self, now: &Now) {
        if self.settings.has_backpressure() {
            self.publish(self.breaker.expire(now.by(&self.clock)));
        }
    }
}

impl<Req> Admit<Req> for CircuitGate {
    #[inline(always)]
    fn admit(&self, _: Inquiry<'_, Req, ()>, now: &Now) -> Admission<Pass, Infallible> {
        if !self.state.settings.enabled {
            return Admission::Granted(Pass::default());
        }
        if let Some(pass) = self.state.breaker.admit_if_closed() {
            return Admission::Granted(pass);
        }
        match self.admit_unless_open(now) {
            Ok(pass) => Admission::Granted(pass),
            Err(rejected) => Admission::Rejected(rejected),
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut Infallible,
        _: Inquiry<'_, Req, ()>,
        _: &mut Context<'_>,
        _: &Now,
    ) -> TicketPoll<Pass> {
        match *ticket {}
    }
}

impl<Res> Read<Res> for CircuitGate {}

impl Evict for CircuitGate {
    fn is_fresh(&self) -> bool {
        let State {
            breaker,
            clock,
            has_own_config,
            ..
        } = &*self.state;
        !has_own_config.load(Ordering::Relaxed) && breaker.is_evictable(clock.now())
    }

    fn is_held(&self) -> bool {
        self.state.hold.is_shared()
    }

    fn is_watched(&self) -> bool {
        // Handles hold the state, not the partition.
        Arc::strong_count(&self.state) > 1
    }
}

impl MissingKey for CircuitGate {
    fn missing_key(&self) -> Box<Rejected> {
        self.state.tally.reject(RejectedKind::MissingKey, None)
    }

    fn overflow(&self) -> Box<Rejected> {
        self.state.tally.reject(RejectedKind::CircuitOpen, None)
    }
}

impl Shown for State {
    fn counts(&self) -> Counts {
        self.breaker.counts(self.clock.now())
    }

    fn config(&self) -> BreakerConfig {
        self.config()
    }

    fn keys(&self) -> (Vec<KeyInstance>, bool) {
        (Vec::new(), false)
    }

    fn unused(&self) -> Option<BreakerState> {
        None
    }

    fn open(&self) -> (usize, Duration) {
        let open = self.open_for();
        (usize::from(open.is_some()), open.unwrap_or_default())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.all.ended(self.breaker.state());
    }
}

const FAILED: Completion = Completion::Answered(Outcome::Failure, None);
const IGNORED: Completion = Completion::Answered(Outcome::Ignore, None);
