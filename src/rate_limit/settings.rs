//! The settings of a limit, and the decision about a call.

use std::time::Duration;

use crate::{
    RejectedKind,
    algorithm::{OverLimit, TIMER_TICK},
    ambient::clock::{Clock, Now},
    gate::Demand,
    queue::{Bounds, ONE_CLASS},
    rate_limit::{Advertise, Follow, config::Manners},
};

/// The settings of a limit, apart from its algorithm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// In nanoseconds. `None` if only calls with a deadline wait.
    pub(super) max_wait: Option<u64>,
    /// If true, a call may wait for as long as its own deadline allows.
    pub(super) deadlines: bool,
    /// `None` for the default.
    pub(super) max_waiting: Option<usize>,
    /// The longest time that a hint closes the limit, in nanoseconds. 0 if hints are not honored.
    pub(super) max_penalty: u64,
    /// The upstream's quota that the limit follows, if any.
    pub(super) follow: Option<Follow>,
    pub(super) advertise: Advertise,
    /// The number of the key's partition, if the limit is advertised and the number is not a hash.
    pub(super) partition: Option<u64>,
    pub(super) enabled: bool,
    /// If true, the limit counts its admitted calls. If false, the limit of the key counts them.
    pub(super) counts_admitted: bool,
    pub(super) name: Option<&'static str>,
}

/// The decision of a limit about a call.
pub(super) enum Decision<T> {
    Admitted,
    Queued(T),
    Rejected(RejectedKind, Option<Duration>),
}

impl Settings {
    /// Returns the settings of waits, advertising and hints.
    pub(super) fn manners(&self) -> Manners {
        let honored = Some(self.max_penalty).filter(|nanos| *nanos > 0);
        Manners {
            max_wait: self.max_wait.map(Duration::from_nanos),
            max_waiting: self.max_waiting,
            honor_retry_after: honored.map(Duration::from_nanos),
            advertise: self.advertise.is_on,
        }
    }

    /// Returns whether a sent call must report its end.
    #[inline]
    pub(super) fn owes(&self) -> bool {
        self.max_penalty > 0 || self.advertise.is_on || self.follow.is_some()
    }

    /// Takes the units of a call, queues it, or rejects it. A call that finds others waiting queues
    /// behind them, even if its smaller cost would fit.
    #[inline(always)]
    pub(super) fn decide<T>(
        demand: &Demand,
        (clock, now, moment): (&Clock, u64, &Now),
        has_waiters: bool,
        acquire: impl FnOnce(u32, u64) -> Result<(), OverLimit>,
        settings: impl FnOnce() -> Self,
        join: impl FnOnce(Option<OverLimit>, Bounds) -> Result<T, (RejectedKind, Option<Duration>)>,
    ) -> Decision<T> {
        if demand.cost == 0 {
            return Decision::Admitted;
        }
        if demand
            .deadline
            .is_some_and(|deadline| deadline <= moment.instant())
        {
            return Decision::Rejected(RejectedKind::DeadlineExceeded, None);
        }
        let over = if has_waiters {
            None
        } else {
            match acquire(demand.cost, now) {
                Ok(()) => return Decision::Admitted,
                Err(over) => Some(over),
            }
        };
        let settings = settings();
        match over {
            Some(OverLimit::Until { wait }) if !settings.lets_wait() => {
                return Decision::Rejected(RejectedKind::RateLimited, Some(wait));
            }
            _ => {}
        }
        match join(over, settings.bounds(demand, clock, now)) {
            Ok(ticket) => Decision::Queued(ticket),
            Err((kind, wait)) => Decision::Rejected(kind, wait),
        }
    }

    pub(super) fn lets_wait(&self) -> bool {
        self.max_wait.is_some() || self.deadlines
    }

    /// Computes how long a call may wait. A wait bounded by `max_wait` may end a timer's tick late.
    /// A wait bounded by the call's deadline must not: at the deadline it is too late.
    pub(super) fn bounds(&self, demand: &Demand, clock: &Clock, now: u64) -> Bounds {
        let arrived = demand.arrived.map_or(now, |arrived| clock.at(arrived));
        let deadline = demand
            .deadline
            .map(|deadline| clock.at(deadline).saturating_sub(1));
        let max_wait = self
            .max_wait
            .map(|max_wait| arrived.saturating_add(max_wait));
        let max_waiting = self.max_waiting.unwrap_or(MAX_WAITING);
        let (until, latest) = match (max_wait, deadline) {
            (Some(wait), Some(deadline)) => (
                wait.min(deadline),
                wait.saturating_add(TIMER_TICK).min(deadline),
            ),
            (Some(wait), None) => (wait, wait.saturating_add(TIMER_TICK)),
            (None, Some(deadline)) if self.deadlines => (deadline, deadline),
            // The call may not wait. It only queues behind calls that have their units already, and
            // that ends at its first poll, a moment later.
            (None, _) => (now, now.saturating_add(TIMER_TICK)),
        };
        Bounds {
            until,
            grace: latest - until,
            max_waiting,
            class: ONE_CLASS,
        }
    }
}

/// The default bound on waiters, of one limit and of all keys. More waiting tasks than that are a
/// load themselves.
pub(super) const MAX_WAITING: usize = 1024;
pub(super) const MAX_WAITING_IN_ALL: usize = 16 * MAX_WAITING;
