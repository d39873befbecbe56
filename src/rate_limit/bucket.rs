//! One limit, wherever it is kept: what callers and handles do to it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    Changed, RejectedKind,
    algorithm::{Limit, OverLimit, Rate, TIMER_TICK},
    ambient::clock::{Clock, Now, nanos},
    gate::{Demand, Quoted},
    observe::{GateTally, Instance, State, Tally, Totals},
    protocol::Quota,
    queue::{Blocked, Bounds, ONE_CLASS, QueuesByKey, Resource, Ticket, Turn, WaitQueue},
    rate_limit::{Advertise, Follow},
};

/// A reference to a limit: the layer's one, or that of a key.
pub(super) struct BucketRef<'a> {
    pub(super) limit: &'a dyn Limit,
    /// Of those that wait for it, if anybody does.
    pub(super) queue: Option<&'a WaitQueue>,
    /// Where the queue of its key will be, if it is that of a key.
    pub(super) by_key: Option<(&'a QueuesByKey, u64)>,
    pub(super) clock: &'a Clock,
    pub(super) tally: &'a GateTally,
}

/// A limit, as a call of some cost is counted under it.
pub(super) struct CallsLimit<'a> {
    bucket: BucketRef<'a>,
    cost: u32,
    settings: &'a Settings,
}

/// A rate limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// How many calls of cost 1 would be admitted at once.
    pub available: u32,
    /// How much in how long.
    pub rate: Rate,
    /// How many are admitted at once at most.
    pub burst: u32,
    /// How many calls wait for their turn.
    pub waiting: usize,
    /// What it has counted so far.
    pub totals: Totals,
}

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

/// A limit, as its queue sees it.
pub(super) struct Waited<'a>(pub(super) &'a dyn Limit);

impl<'a> BucketRef<'a> {
    /// The limit as a call of that cost is counted under it.
    pub(super) fn of_call(self, cost: u32, settings: &'a Settings) -> CallsLimit<'a> {
        CallsLimit {
            bucket: self,
            cost,
            settings,
        }
    }
}

impl BucketRef<'_> {
    /// Corrects what a call has taken to what it turns out to have used.
    pub(super) fn settle(&self, taken: u32, used: u32) {
        if used < taken {
            self.refund(taken - used);
        } else if used > taken {
            self.charge(used - taken);
        }
    }

    pub(super) fn charge(&self, units: u32) {
        self.limit.charge(units, self.clock.now());
    }

    pub(super) fn refund(&self, units: u32) {
        self.limit.refund(units, self.clock.now());
        self.notify();
    }

    pub(super) fn reset(&self) {
        self.limit.reset(self.clock.now());
        self.notify();
    }

    /// Waiters that cannot wait for so long are told now.
    pub(super) fn close_for(&self, duration: Duration) {
        let now = self.clock.now();
        self.limit
            .close_until(now.saturating_add(nanos(duration)), now);
        self.notify();
    }

    /// Something but a departure has changed the limit.
    pub(super) fn notify(&self) {
        let (resource, now) = (Waited(self.limit), || self.clock.now());
        match (self.queue, self.by_key) {
            (Some(queue), _) => queue.notify(&resource, now),
            (None, Some((queues, key))) => queues.changed(key, &resource, now),
            (None, None) => {}
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        Snapshot {
            available: self.limit.available(now),
            rate: self.limit.rate(),
            burst: self.limit.burst(),
            waiting: self.queue.map_or(0, WaitQueue::waiting),
            totals: self.tally.totals(),
        }
    }

    /// What callers are told: of each part, if it is made of several. The loads are not one step: a
    /// racing call may count in one number and not in another.
    pub(super) fn quotas(&self, settings: &Settings, now: u64, quotas: &mut Vec<Quota>) {
        let (name, advertise) = (settings.name, settings.advertise);
        let by_hash = self
            .by_key
            .and_then(|(_, hash)| advertise.partition_of(hash));
        let mut tell = |limit: &dyn Limit| {
            let own = |quota: &&Quota| quota.name == name && quota.rate.is_some();
            let part = quotas.iter().filter(own).count();
            let (burst, available) = (limit.burst(), limit.available(now));
            let awaited = if available == 0 { 1 } else { u64::from(burst) };
            let reset = limit.wait(awaited, now);
            quotas.push(Quota {
                name,
                part,
                dimension: None,
                unit: advertise.unit,
                rate: Some(limit.rate()),
                burst: burst.into(),
                available: available.into(),
                reset: Some(reset),
                partition: settings.partition.or(by_hash),
            });
        };
        match self.limit.part(0) {
            None => tell(self.limit),
            Some(_) => (0..)
                .map_while(|index| self.limit.part(index))
                .for_each(tell),
        }
    }
}

impl Quoted for CallsLimit<'_> {
    fn quotas(&self, now: &Now, quotas: &mut Vec<Quota>) {
        let now = now.by(self.bucket.clock);
        self.bucket.quotas(self.settings, now, quotas);
    }

    fn wait(&self, now: &Now) -> Duration {
        let BucketRef { limit, clock, .. } = self.bucket;
        limit.wait_for(self.cost, 0, now.by(clock))
    }
}

/// What an update has changed.
pub(super) fn changed(before: (Rate, u32), after: (Rate, u32)) -> Changed {
    Changed::default()
        .note("rate_limit", "rate", (before.0, after.0))
        .note("rate_limit", "burst", (before.1, after.1))
}

/// A limit as the registry sees it, with its rate and burst if these are one for all.
#[expect(clippy::cast_precision_loss, reason = "exact below 9 * 10^15")]
pub(super) fn observe<U: Into<u64>>(
    (tally, settings): (&Tally, Option<&Settings>),
    quota: Option<(Rate, U)>,
    state: State,
) -> Instance {
    let mut config = Vec::with_capacity(5);
    if let Some((rate, burst)) = quota {
        let per_second = rate.count() as f64 / rate.per().as_secs_f64();
        config.extend([("rate", per_second), ("burst", burst.into() as f64)]);
    }
    let Some(settings) = settings else {
        return Instance::new(tally, config, state);
    };
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    // No time to wait is no wait.
    if let Some(wait) = settings.max_wait.filter(|wait| *wait > 0) {
        let waiting = settings.max_waiting.unwrap_or(MAX_WAITING);
        config.push(("max_wait", seconds(wait)));
        config.push(("max_waiting", waiting as f64));
    }
    if settings.max_penalty > 0 {
        config.push(("honor_retry_after", seconds(settings.max_penalty)));
    }
    Instance::new(tally, config, state)
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
        &self,
        demand: &Demand,
        (clock, now): (&Clock, u64),
        has_waiters: bool,
        acquire: impl FnOnce(u32, u64) -> Result<(), OverLimit>,
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
        match over {
            Some(OverLimit::Until { wait }) if !self.lets_wait() => {
                return Decision::Rejected(RejectedKind::RateLimited, Some(wait));
            }
            _ => {}
        }
        match join(over, self.bounds(demand, clock, now)) {
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

/// What becomes of a call that was over the limit, or has found others waiting: a place in the
/// queue, if it may wait for so long.
pub(super) fn join<T>(
    limit: &dyn Limit,
    cost: u32,
    over: Option<OverLimit>,
    (bounds, now): (Bounds, u64),
    join: impl FnOnce() -> Result<T, Option<u64>>,
) -> Result<T, (RejectedKind, Option<Duration>)> {
    let too_high = (RejectedKind::CostTooHigh, None);
    let limited = |wait| (RejectedKind::RateLimited, Some(wait));
    match over {
        Some(OverLimit::CostAboveBurst) => return Err(too_high),
        // Known without a look at the queue, in which nobody is.
        Some(OverLimit::Until { wait }) if now.saturating_add(nanos(wait)) > bounds.until => {
            return Err(limited(wait));
        }
        None if cost > limit.largest_cost() => return Err(too_high),
        _ => {}
    }
    join().map_err(|wait| limited(Duration::from_nanos(wait.unwrap_or(0))))
}

/// What a queued call finds, apart from its place.
pub(super) fn rejected(turn: &Turn) -> (RejectedKind, Option<Duration>) {
    match turn {
        Turn::TooLate(wait) => (RejectedKind::RateLimited, wait.map(Duration::from_nanos)),
        _ => (RejectedKind::CostTooHigh, None),
    }
}

/// Polls a place in a queue.
pub(super) fn poll(
    limit: &dyn Limit,
    (queue, ticket): (&WaitQueue, &mut Ticket),
    cx: &mut Context<'_>,
    time: (&Clock, u64),
) -> Poll<Turn> {
    queue.poll_timed(&Waited(limit), ticket, cx, time)
}

impl Resource for Waited<'_> {
    fn acquire(&self, units: u32, ready_at: u64, now: u64) -> Result<(), Blocked> {
        self.0
            .acquire_late(units, ready_at, now)
            .map_err(|over| match over {
                OverLimit::Until { wait } => Blocked::For(nanos(wait)),
                OverLimit::CostAboveBurst => Blocked::Forever,
            })
    }

    fn ready_in(&self, units: u32, before: u64, now: u64) -> Option<u64> {
        Some(nanos(self.0.wait_for(units, before, now)))
    }

    fn give_back(&self, units: u32, now: u64) {
        self.0.refund(units, now);
    }
}

/// How many calls may wait by default, of one limit and of all keys: more than that many tasks that
/// wait are themselves a load.
pub(super) const MAX_WAITING: usize = 1024;
pub(super) const MAX_WAITING_IN_ALL: usize = 16 * MAX_WAITING;
