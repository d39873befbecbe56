//! One limit, wherever it is stored, and the operations of callers and handles on it.

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
        key_hash::KeyHash,
        queued_limit::QueuedLimit,
        settings::{MAX_WAITING, Settings},
        switch::Switch,
    },
};

/// A reference to a limit: that of the layer, or that of a key.
pub(super) struct BucketRef<'a> {
    pub(super) limit: &'a dyn Limit,
    /// The queue of the limit's waiters, if there are any.
    pub(super) queue: Option<&'a WaitQueue>,
    /// `None` for a limit that is always on.
    pub(super) switch: Option<&'a Switch>,
    /// The place where the key's queue would be created, if the limit belongs to a key.
    pub(super) by_key: Option<(&'a QueuesByKey<KeyHash>, KeyHash)>,
    pub(super) clock: &'a Clock,
    pub(super) tally: &'a GateTally,
}

/// A limit, with the cost and the settings of one call.
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
    /// Calls of unit cost that would be admitted at once.
    pub available: u32,
    /// Units per period.
    pub rate: Rate,
    /// The most units admitted at once.
    pub burst: u32,
    /// Calls in the wait queue.
    pub waiting: usize,
    /// The counts so far.
    pub totals: Totals,
}

impl<'a> BucketRef<'a> {
    /// Returns the limit as it applies to a call of that cost.
    pub(super) fn of_call(self, cost: u32, settings: &'a Settings) -> CallsLimit<'a> {
        CallsLimit {
            bucket: self,
            cost,
            settings,
        }
    }
}

impl BucketRef<'_> {
    /// Corrects the units that a call has taken to those that it has used.
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

    /// Closes the limit. Waiters that cannot wait until it opens are rejected now.
    pub(super) fn close_for(&self, duration: Duration) {
        let now = self.clock.now();
        self.limit
            .close_until(now.saturating_add(nanos(duration)), now);
        self.notify();
    }

    /// Notifies the queue: something other than a departure has changed the limit.
    pub(super) fn notify(&self) {
        let resource = QueuedLimit::new(self.limit, self.switch);
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

    /// Adds the quotas to advertise, one for each part of a combined limit. The loads are not one
    /// atomic step: a racing call may be counted in one number and not in another.
    pub(super) fn quotas(&self, settings: &Settings, now: u64, quotas: &mut Vec<Quota>) {
        let (name, advertise) = (settings.name, settings.advertise);
        let by_hash = self
            .by_key
            .and_then(|(_, hash)| advertise.partition_of(hash.index()));
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

    fn wait(&self, now: &Now) -> Option<Duration> {
        let BucketRef { limit, clock, .. } = self.bucket;
        let fits = self.cost <= limit.largest_cost();
        fits.then(|| limit.wait_for(self.cost, 0, now.by(clock)))
    }
}

/// Builds the registry's view of a limit, with its rate and burst if all keys have the same.
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
    // A `max_wait` of zero means that no call waits.
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

/// Queues a call that was over the limit or found waiters, if it may wait long enough. Otherwise
/// returns the rejection.
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
        // Known without locking the queue, because it is empty.
        Some(OverLimit::Until { wait }) if now.saturating_add(nanos(wait)) > bounds.until => {
            return Err(limited(wait));
        }
        None if cost > limit.largest_cost() => return Err(too_high),
        _ => {}
    }
    join().map_err(|wait| limited(Duration::from_nanos(wait.unwrap_or(0))))
}

/// Returns the rejection for a waiter that was not admitted.
pub(super) fn rejected(turn: &Turn) -> (RejectedKind, Option<Duration>) {
    match turn {
        Turn::TooLate(wait) => (RejectedKind::RateLimited, wait.map(Duration::from_nanos)),
        _ => (RejectedKind::CostTooHigh, None),
    }
}

/// Polls a ticket in a queue.
pub(super) fn poll(
    limit: &QueuedLimit<'_>,
    (queue, ticket): (&WaitQueue, &mut Ticket),
    cx: &mut Context<'_>,
    time: (&Clock, u64),
) -> Poll<Turn> {
    queue.poll_timed(limit, ticket, cx, time)
}
