//! The settings of a limit, and the decision by them.

use std::time::Duration;

use crate::{
    RejectedKind,
    algorithm::{OverLimit, TIMER_TICK},
    ambient::clock::Clock,
    gate::Demand,
    queue::{Bounds, ONE_CLASS},
    rate_limit::{Advertise, Follow},
};

/// What a limit waits and rejects by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// In nanoseconds; `None` if only calls with a deadline wait.
    pub(super) max_wait: Option<u64>,
    /// Whether calls may wait for as long as their own deadline allows.
    pub(super) deadlines: bool,
    /// `None` for the default.
    pub(super) max_waiting: Option<usize>,
    /// For how long an upstream may close the limit, in nanoseconds; 0 if it may not.
    pub(super) max_penalty: u64,
    /// Which of the upstream's quotas it follows, if any.
    pub(super) follow: Option<Follow>,
    pub(super) advertise: Advertise,
    /// The number of the key's partition, if callers are told and it is not made of a hash.
    pub(super) partition: Option<u64>,
    pub(super) enabled: bool,
    /// Whether it counts what it admits, or leaves that to the limit of the key.
    pub(super) counts_admitted: bool,
    pub(super) name: Option<&'static str>,
}

/// What a limit says of a call.
pub(super) enum Decision<T> {
    Admitted,
    Queued(T),
    Rejected(RejectedKind, Option<Duration>),
}

impl Settings {
    /// Returns whether a sent call has to be told of its end.
    #[inline]
    pub(super) fn owes(&self) -> bool {
        self.max_penalty > 0 || self.advertise.is_on || self.follow.is_some()
    }

    /// Takes what a call asks for, or a place in the queue, or nothing. A call that finds others
    /// waiting queues behind them, even if its smaller cost would fit.
    #[inline(always)]
    pub(super) fn decide<T>(
        demand: &Demand,
        (clock, now): (&Clock, u64),
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
            .is_some_and(|deadline| clock.at(deadline) <= now)
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

    /// How long a call may wait. Of a time that the layer sets, the wait may end a timer's tick
    /// late; a deadline is somebody else's, and at it it is too late.
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
            // It may not wait, and goes only behind those that have their units already: that ends
            // at its first poll, a moment later.
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

/// How many calls may wait by default, of one limit and of all keys: more than that many tasks that
/// wait are themselves a load.
pub(super) const MAX_WAITING: usize = 1024;
pub(super) const MAX_WAITING_IN_ALL: usize = 16 * MAX_WAITING;
