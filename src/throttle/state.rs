//! The gate: the throttle of one upstream.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
};

use crate::{
    Changed, ConfigError, Outcome, Rejected, RejectedKind,
    algorithm::throttle::{Throttle, ThrottleConfig},
    ambient::{
        chance,
        clock::{Clock, Now},
    },
    config::Edition,
    gate::{Admission, Admit, Completion, Gate, Inquiry, MissingKey, Read, TicketPoll, Unsent},
    keyed::partitions::{Evict, Hold},
    observe::{Event, GateTally, trace},
    sync::current_stripe,
};

/// Admits about as many calls as an upstream will accept. Made by
/// [`ThrottleBuilder::gate`](super::ThrottleBuilder::gate).
#[derive(Debug, Clone)]
pub struct ThrottleGate {
    pub(super) state: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) throttle: Throttle,
    /// The settings in force. Locked to change or read them, never by calls.
    config: Mutex<Edition<ThrottleConfig>>,
    /// If true, it has settings that a newly made one would not have. Relaxed: an eviction makes
    /// sure that nothing else holds the throttle, and so sees every change.
    has_own_config: AtomicBool,
    /// The hold that its handles share.
    pub(super) hold: Hold,
    pub(super) clock: Clock,
    /// The tally of all throttles of a layer.
    pub(super) tally: GateTally,
    enabled: bool,
}

/// A call. If true, its result counts. False while the throttle is not enabled.
#[derive(Debug, Default)]
pub struct ThrottlePass(bool);

impl ThrottleGate {
    pub(super) fn new(
        config: Edition<ThrottleConfig>,
        stripes: usize,
        enabled: bool,
        tally: GateTally,
    ) -> Result<Self, ConfigError> {
        let throttle = Throttle::new(config.settings, stripes);
        let throttle = throttle.map_err(|error| error.of(tally.layer, tally.name))?;
        Ok(Self {
            state: Arc::new(State {
                throttle,
                config: Mutex::new(config),
                has_own_config: AtomicBool::new(false),
                hold: Hold::default(),
                clock: Clock::start(),
                tally,
                enabled,
            }),
        })
    }

    #[cold]
    fn admit_by_chance(&self, now: &Now) -> Result<ThrottlePass, Box<Rejected>> {
        let state = &*self.state;
        if state
            .throttle
            .admit(chance::half_word(), now.by(&state.clock))
        {
            return Ok(ThrottlePass(true));
        }
        Err(state.tally.reject(RejectedKind::Throttled, None))
    }

    pub(super) fn probability(&self) -> f64 {
        let State {
            throttle, clock, ..
        } = &*self.state;
        throttle.probability(clock.now())
    }
}

impl State {
    pub(super) fn config(&self) -> ThrottleConfig {
        self.lock().settings
    }

    /// Changes this throttle's settings.
    pub(super) fn update(&self, config: ThrottleConfig) -> Result<Changed, ConfigError> {
        let changed = self.change(self.lock(), config, true)?;
        trace::updated((self.tally.layer, self.tally.name), &changed);
        Ok(changed)
    }

    /// Checks whether an update to these settings would be accepted.
    pub(super) fn check(&self, config: &ThrottleConfig) -> Result<(), ConfigError> {
        let checked = config.check().map(drop);
        checked.map_err(|error| error.of(self.tally.layer, self.tally.name))
    }

    /// Applies the settings of all throttles, unless it has later ones.
    pub(super) fn take(&self, config: Edition<ThrottleConfig>) -> Result<Changed, ConfigError> {
        let mut current = self.lock();
        if !config.overtakes(&mut current.number) {
            return Ok(Changed::default());
        }
        self.change(current, config.settings, false)
    }

    fn change(
        &self,
        mut current: MutexGuard<'_, Edition<ThrottleConfig>>,
        config: ThrottleConfig,
        own: bool,
    ) -> Result<Changed, ConfigError> {
        let updated = self.throttle.update(config, self.clock.now());
        updated.map_err(|error| error.of(self.tally.layer, self.tally.name))?;
        let changed = since(&current.settings, &config);
        current.settings = config;
        self.has_own_config.store(own, Ordering::Relaxed);
        Ok(changed)
    }

    fn lock(&self) -> MutexGuard<'_, Edition<ThrottleConfig>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for ThrottleGate {
    type Pass = ThrottlePass;
    type Ticket = Infallible;
    type Asked = ();

    /// Records nothing for a call that was not sent: an upstream that is not ready is not
    /// overloaded.
    fn give_back(&self, _: ThrottlePass, _: Unsent, _: &Now) {}

    #[inline(always)]
    fn end(&self, _: ThrottlePass, how: Completion, now: &Now) {
        let State {
            throttle,
            clock,
            tally,
            ..
        } = &*self.state;
        let Completion::Answered(outcome, _) = how.untimed() else {
            return tally.count(Event::Cancelled);
        };
        tally.ended(outcome);
        let accepted = match outcome {
            Outcome::Success => true,
            Outcome::Failure | Outcome::Overload => false,
            Outcome::Ignore => return,
        };
        throttle.record(accepted, current_stripe(), now.by(clock));
    }

    fn leave(&self, ticket: Infallible, _: &Now) {
        match ticket {}
    }

    #[inline(always)]
    fn owes(&self, call: &ThrottlePass) -> bool {
        call.0
    }
}

impl<Req> Admit<Req> for ThrottleGate {
    #[inline(always)]
    fn admit(&self, _: Inquiry<'_, Req, ()>, now: &Now) -> Admission<ThrottlePass, Infallible> {
        let State {
            throttle, enabled, ..
        } = &*self.state;
        if !enabled || throttle.is_idle() {
            return Admission::Granted(ThrottlePass(*enabled));
        }
        match self.admit_by_chance(now) {
            Ok(call) => Admission::Granted(call),
            Err(rejected) => Admission::Rejected(rejected),
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut Infallible,
        _: Inquiry<'_, Req, ()>,
        _: &mut Context<'_>,
        _: &Now,
    ) -> TicketPoll<ThrottlePass> {
        match *ticket {}
    }
}

impl<Res> Read<Res> for ThrottleGate {}

impl Evict for ThrottleGate {
    /// Returns whether the window is empty and the settings are shared. Successes count too:
    /// without them, the first failures would be the whole window.
    fn is_fresh(&self) -> bool {
        let State {
            throttle,
            clock,
            has_own_config,
            ..
        } = &*self.state;
        !has_own_config.load(Ordering::Relaxed) && throttle.counts(clock.now()).requests() == 0
    }

    fn is_held(&self) -> bool {
        self.state.hold.is_shared()
    }

    fn is_watched(&self) -> bool {
        // Handles hold the state, not the partition.
        Arc::strong_count(&self.state) > 1
    }
}

impl MissingKey for ThrottleGate {
    fn missing_key(&self) -> Box<Rejected> {
        self.state.tally.reject(RejectedKind::MissingKey, None)
    }

    fn overflow(&self) -> Box<Rejected> {
        self.state.tally.reject(RejectedKind::Throttled, None)
    }
}

/// Reports the settings that differ between `before` and `after`.
fn since(before: &ThrottleConfig, after: &ThrottleConfig) -> Changed {
    const LAYER: &str = "throttle";
    let calls = (before.min_calls, after.min_calls);
    let rejections = (before.max_rejection, after.max_rejection);
    Changed::default()
        .note(LAYER, "multiplier", (before.multiplier, after.multiplier))
        .note(LAYER, "window", (before.window, after.window))
        .note(LAYER, "min_calls", calls)
        .note(LAYER, "max_rejection", rejections)
        .restarting("window")
}
