//! One limit, wherever it is kept: what callers and handles do to it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    RejectedKind,
    algorithm::{Limit, OverLimit, Rate},
    ambient::clock::{Clock, Now, nanos},
    gate::Quoted,
    observe::{GateTally, Instance, State, Tally, Totals},
    protocol::Quota,
    queue::{Bounds, QueuesByKey, Ticket, Turn, WaitQueue},
    rate_limit::{
        settings::{MAX_WAITING, Settings},
        switch::Switch,
        waited::Waited,
    },
};

/// A reference to a limit: the layer's one, or that of a key.
pub(super) struct BucketRef<'a> {
    pub(super) limit: &'a dyn Limit,
    /// Of those that wait for it, if anybody does.
    pub(super) queue: Option<&'a WaitQueue>,
    /// `None` of one that is always on.
    pub(super) switch: Option<&'a Switch>,
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
        let resource = Waited::new(self.limit, self.switch);
        let now = || self.clock.now();
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
    limit: &Waited<'_>,
    (queue, ticket): (&WaitQueue, &mut Ticket),
    cx: &mut Context<'_>,
    time: (&Clock, u64),
) -> Poll<Turn> {
    queue.poll_timed(limit, ticket, cx, time)
}
