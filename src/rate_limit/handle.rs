//! What the layer, its services and its handles share.

use std::time::Duration;

use crate::{
    ConfigError, Outcome, Rejected, RejectedKind,
    algorithm::{Denied, Limit, Rate, TIMER_TICK},
    protocol::{Quota, Settle},
    rate_limit::line::{Line, Place},
    striped::Striped,
    time::Clock,
};

/// Watches and changes a rate limit from outside. Cheap to clone; it keeps the limit's state alive, not its services.
#[derive(Debug)]
pub struct RateLimitHandle {
    state: Striped<State>,
}

/// A rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many calls of cost 1 would be admitted at once.
    pub available: u32,
    /// The most that ever are.
    pub burst: u32,
    /// How many calls wait for their turn.
    pub waiting: usize,
}

/// What a call of a [`RateLimit`](super::RateLimit) holds until it ends: nothing, or the way back to a limit that obeys
/// the peer's `Retry-After`. What it has taken is not given back with it.
#[derive(Debug)]
pub struct Permit {
    state: Option<Striped<State>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) limit: Box<dyn Limit>,
    pub(super) line: Line,
    pub(super) clock: Clock,
    /// In nanoseconds; 0 to reject at once.
    pub(super) max_wait: u64,
    /// For how long a peer may close the limit, in nanoseconds; 0 if it may not.
    pub(super) longest_penalty: u64,
    pub(super) advertise: bool,
    pub(super) enabled: bool,
    pub(super) name: Option<&'static str>,
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Admission {
    Now,
    /// It has joined the line, and must come or cancel.
    Waits(Place),
}

impl RateLimitHandle {
    pub(super) fn new(state: Striped<State>) -> Self {
        Self { state }
    }

    /// The limit as it is now. Costs a clock read and a few loads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let State { limit, line, clock, .. } = &*self.state;
        Snapshot { available: limit.available(clock.now()), burst: limit.burst(), waiting: line.len() }
    }

    /// Changes rate and burst in one step. What was used stays used; those who wait are told.
    ///
    /// # Errors
    /// What `build` would refuse, and what this kind of limit cannot change: see its `update`.
    pub fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        self.state.limit.update(rate, burst).map_err(|error| error.of("rate_limit", self.state.name))?;
        self.state.line.look_again();
        Ok(())
    }

    /// Admits nothing for so long: a peer has said so by other means than a response.
    pub fn close_for(&self, duration: Duration) {
        self.state.close_for(duration);
    }

    /// Takes units that were used past the layer: by a batch, or by another process.
    pub fn charge(&self, units: u32) {
        self.state.limit.charge(units, self.state.clock.now());
    }

    /// Gives back units that were taken and not used.
    pub fn refund(&self, units: u32) {
        self.state.refund(units);
    }
}

impl Clone for RateLimitHandle {
    fn clone(&self) -> Self {
        Self::new(self.state.clone())
    }
}

impl Permit {
    pub(super) fn new(state: &Striped<State>) -> Self {
        Self { state: (state.enabled && state.longest_penalty > 0).then(|| state.for_call()) }
    }
}

impl Settle for Permit {
    fn settle(self, _: Outcome, retry_after: Option<Duration>) {
        if let (Some(state), Some(wait)) = (self.state, retry_after) {
            state.close_for(wait.min(Duration::from_nanos(state.longest_penalty)));
        }
    }
}

impl State {
    /// Takes `cost` units, or a place in the line, or nothing.
    #[inline]
    pub(super) fn admit(&self, cost: u32) -> Result<Admission, Rejected> {
        if !self.enabled {
            return Ok(Admission::Now);
        }
        let now = self.clock.now();
        // Who finds others waiting queues behind them, even if its smaller cost would fit.
        if self.line.is_empty() {
            match self.limit.acquire(cost, now) {
                Ok(()) => return Ok(Admission::Now),
                Err(denied) if self.max_wait == 0 || denied == Denied::CostAboveBurst => return Err(self.rejected(denied)),
                Err(_) => {}
            }
        }
        if cost > self.limit.largest_cost() {
            return Err(self.rejected(Denied::CostAboveBurst));
        }
        match self.line.join(&*self.limit, cost, self.max_wait, now) {
            Ok(place) => Ok(Admission::Waits(place)),
            Err(wait) => Err(self.rejected(Denied::until(wait))),
        }
    }

    /// The rejection of a call whose turn has been put off, by a penalty, a lower rate or somebody ahead who does not take
    /// his, to later than it may wait.
    pub(super) fn too_late(&self, place: Place, due: u64, now: u64) -> Option<Rejected> {
        (due.max(now) > self.deadline(place)).then(|| self.rejected(Denied::until(due.saturating_sub(now))))
    }

    /// The last moment at which a turn may come. A timer's tick more is not later.
    pub(super) fn deadline(&self, place: Place) -> u64 {
        place.joined.saturating_add(self.max_wait).saturating_add(TIMER_TICK)
    }

    /// Corrects what was taken to what was used, if that is known.
    pub(super) fn correct(&self, taken: u32, used: Option<u32>) {
        let used = used.unwrap_or(taken);
        if used < taken {
            self.refund(taken - used);
        } else if used > taken {
            self.limit.charge(used - taken, self.clock.now());
        }
    }

    /// What callers are told. The loads are not one step: a racing call may count in one number and not in another.
    pub(super) fn quota(&self) -> Quota {
        let (limit, now) = (&self.limit, self.clock.now());
        let (burst, available) = (limit.burst(), limit.available(now));
        let awaited = if available == 0 { 1 } else { u64::from(burst) };
        Quota { name: self.name, rate: limit.rate(), burst, available, reset: limit.wait(awaited, now) }
    }

    pub(super) fn rejected(&self, denied: Denied) -> Rejected {
        let (kind, retry_after) = match denied {
            Denied::Until { wait } => (RejectedKind::RateLimited, Some(wait)),
            Denied::CostAboveBurst => (RejectedKind::CostTooHigh, None),
        };
        Rejected { kind, layer: "rate_limit", name: self.name, retry_after }
    }

    fn refund(&self, units: u32) {
        self.limit.refund(units, self.clock.now());
        self.line.look_again();
    }

    fn close_for(&self, duration: Duration) {
        let now = self.clock.now();
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.limit.close_until(now.saturating_add(nanos), now);
        // Who cannot wait for so long is told now.
        self.line.look_again();
    }
}
