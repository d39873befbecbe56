//! The permits of a bulkhead, and the calls that wait for one.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    algorithm::{HeldPlaces, InFlight},
    ambient::clock::{Clock, Now},
    bulkhead::extras::Extras,
    gate::Quoted,
    observe::{Event, GateTally},
    protocol::Quota,
    queue::{Blocked, Bounds, KeyShare, Resource, ShareTicket, Ticket, Total, Turn, WaitQueue},
};

#[derive(Debug)]
pub(super) struct Permits {
    pub(super) in_flight: InFlight,
    pub(super) queue: WaitQueue,
    /// The total of all keys, if each has a share of one.
    pub(super) total: Option<Arc<Total>>,
    pub(super) clock: Clock,
    /// If false, calls do not wait, so the queue need not be checked.
    pub(super) may_wait: bool,
    /// `None` for most bulkheads.
    pub(super) extras: Option<Box<Extras>>,
    /// The tally of the layer: the bulkheads of all its keys count together.
    pub(super) tally: GateTally,
}

#[derive(Debug)]
pub(super) enum Queued {
    /// A wait for a permit of a limit.
    Alone(Ticket),
    /// A wait for a permit of a share, or of the total.
    Shared(ShareTicket),
}

/// The permits as callers are shown them.
pub(super) struct AdvertisedPermits<'a> {
    in_flight: &'a InFlight,
    name: Option<&'static str>,
    /// The number of the key's partition.
    partition: Option<u64>,
    leaving: usize,
}

impl Permits {
    /// Enters as a call of a class or a key, if there are no waiters before it.
    pub(super) fn enter(&self, percent: u8) -> bool {
        match self.share() {
            None => self.in_flight.enter_within(percent),
            Some(share) => share.enter(percent),
        }
    }

    /// Gives a permit back, and admits waiters.
    #[inline(always)]
    pub(super) fn leave(&self) {
        if self.total.is_some() {
            return self.leave_share();
        }
        self.in_flight.leave();
        if self.may_wait && self.queue.has_waiters_after_leave() {
            self.admit_waiters();
        }
    }

    /// Takes permits back from calls that hold them too long, and frees them for waiters. Returns
    /// how many, and the earliest moment at which more may be overdue. `None` if permits are not
    /// taken back.
    #[cold]
    pub(super) fn take_back(&self, now: u64) -> Option<(usize, u64)> {
        self.held()?;
        if let Some(overdue) = self.total.as_ref().and_then(|total| total.overdue.as_ref()) {
            return Some(overdue.take_back(now));
        }
        let found = self.find_overdue(now);
        self.leave_all(found.0);
        Some(found)
    }

    /// Takes permits back, without freeing them for others yet.
    pub(super) fn find_overdue(&self, now: u64) -> (usize, u64) {
        let Some(held) = self.held() else {
            return (0, u64::MAX);
        };
        let (taken, due) = held.take_back(now);
        (0..taken).for_each(|_| self.tally.count(Event::Reclaimed));
        (taken, due)
    }

    /// Returns the permits that may be taken back, if that is enabled.
    pub(super) fn held(&self) -> Option<&HeldPlaces> {
        self.extras.as_ref()?.held.as_ref()
    }

    /// Changes after how many nanoseconds permits are taken back. Returns the earlier time.
    pub(super) fn reclaim_after(&self, after: u64) -> u64 {
        let before = self.held().map(|held| held.set_after(after));
        if let Some(overdue) = self.total.as_ref().and_then(|total| total.overdue.as_ref()) {
            overdue.changed();
        }
        before.unwrap_or(u64::MAX)
    }

    /// Frees for others the permits that were [found](Self::find_overdue).
    pub(super) fn leave_all(&self, places: usize) {
        (0..places).for_each(|_| self.leave());
    }

    fn leave_share(&self) {
        if let Some(share) = self.share() {
            share.leave(|| self.clock.now());
        }
    }

    #[cold]
    fn admit_waiters(&self) {
        self.queue.pump_now(self, self.clock.now());
    }

    /// Admits waiters, since the limit may have been raised.
    pub(super) fn notify(&self) {
        match self.share() {
            None => self.queue.notify(self, || self.clock.now()),
            Some(share) => share.notify(|| self.clock.now()),
        }
    }

    /// Joins the queue. `None` if it is full.
    pub(super) fn join(&self, bounds: Bounds, now: u64) -> Option<Queued> {
        let Some(share) = self.share() else {
            let ticket = self.queue.join(self, 1, bounds, now);
            return ticket.ok().map(Queued::Alone);
        };
        let max_total = bounds.max_waiting.saturating_mul(KEYS_IN_QUEUE);
        share.join(bounds, max_total, now).map(Queued::Shared)
    }

    /// Polls a waiter.
    pub(super) fn poll(&self, ticket: &mut Queued, cx: &mut Context<'_>, now: u64) -> Poll<Turn> {
        let time = (&self.clock, now);
        match (ticket, self.share()) {
            (Queued::Alone(ticket), _) => self.queue.poll_timed(self, ticket, cx, time),
            (Queued::Shared(ticket), Some(share)) => share.poll_timed(ticket, cx, time),
            (Queued::Shared(_), None) => Poll::Ready(Turn::Never),
        }
    }

    /// Gives up a place in the queue, or what was acquired for it.
    pub(super) fn cancel(&self, ticket: &Queued, now: u64) {
        match (ticket, self.share()) {
            (Queued::Alone(ticket), _) => self.queue.cancel(self, ticket, now),
            (Queued::Shared(ticket), Some(share)) => share.cancel(ticket, now),
            (Queued::Shared(_), None) => {}
        }
    }

    /// Returns the permits as callers are shown them. `leaving` is the number of those in use that
    /// are about to be free.
    pub(super) fn quoted(
        &self,
        (name, partition): (Option<&'static str>, Option<u64>),
        leaving: usize,
    ) -> AdvertisedPermits<'_> {
        AdvertisedPermits {
            in_flight: &self.in_flight,
            name,
            partition,
            leaving,
        }
    }

    fn share(&self) -> Option<KeyShare<'_>> {
        let total = self.total.as_ref()?;
        Some(KeyShare {
            places: &self.in_flight,
            queue: &self.queue,
            total,
        })
    }
}

impl Quoted for AdvertisedPermits<'_> {
    fn quotas(&self, _: &Now, quotas: &mut Vec<Quota>) {
        let (limit, in_flight) = (self.in_flight.limit(), self.in_flight.count());
        let units = |calls| u32::try_from(calls).unwrap_or(u32::MAX);
        let left = limit.saturating_sub(in_flight.saturating_sub(self.leaving));
        quotas.push(Quota {
            name: self.name,
            part: 0,
            dimension: None,
            unit: Some(Quota::CONCURRENT_REQUESTS),
            rate: None,
            burst: units(limit).into(),
            available: units(left).into(),
            reset: None,
            partition: self.partition,
        });
    }

    /// Returns zero, because a permit may become free at any time.
    fn wait(&self, _: &Now) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

/// The permits as the queue of a limit sees them.
impl Resource for Permits {
    fn acquire(&self, _: u32, _: u64, now: u64) -> Result<(), Blocked> {
        Blocked::unless(|| self.in_flight.enter(), || self.take_back(now), now)
    }

    fn ready_in(&self, _: u32, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn give_back(&self, _: u32, _: u64) {
        self.in_flight.leave();
    }
}

/// The number of waiters for a total, as a multiple of those of one key.
const KEYS_IN_QUEUE: usize = 16;
