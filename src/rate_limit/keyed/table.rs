//! The gate: the limits of all keys, in a table of a fixed size.

use std::{
    sync::{Arc, Mutex, PoisonError, TryLockError},
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    Rejected, RejectedKind,
    algorithm::{Limit, OverLimit, Rate},
    ambient::clock::{Clock, Now},
    gate::{
        Admission, Admit, CallEvent, Completion, Demand, Gate, Inquiry, LimitedCall, Quoted, Read,
        TicketPoll, Unsent, Visit, end_upgraded,
    },
    keyed::Missing,
    observe::{Event, GateTally},
    queue::{Bounds, QueuesByKey, Ticket, Turn, WaitQueue},
    rate_limit::{
        Snapshot,
        bucket::{self, BucketRef},
        fleet::Granted,
        key_hash::{KeyHash, KeyHashing},
        keyed::{Key, buckets::Buckets, key, of_key::OfKey, pass::KeyLimitPass, top::Top},
        queued_limit::QueuedLimit,
        settings::{Decision, MAX_WAITING_IN_ALL, Settings},
    },
};

/// Admits calls of each key at a rate of its own. Made by a keyed
/// [`RateLimitBuilder::gate`](crate::rate_limit::RateLimitBuilder::gate).
#[derive(Debug)]
pub struct TableGate<F> {
    key: F,
    table: Arc<Table>,
}

/// The state that the gate and its handles share.
#[derive(Debug)]
pub(in crate::rate_limit) struct Table {
    pub(super) buckets: Buckets,
    pub(super) queues: QueuesByKey<KeyHash>,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) hashing: KeyHashing,
    missing: Missing,
    pub(super) max_keys: usize,
    /// Locked to read it, and for rejections of counted keys if it is free.
    top: Mutex<Top>,
    pub(super) tally: GateTally,
}

/// A ticket in the queue of a key.
#[derive(Debug)]
pub struct TableTicket {
    hash: KeyHash,
    queue: Arc<WaitQueue>,
    place: Ticket,
    joined: u64,
}

impl<F> TableGate<F> {
    pub(in crate::rate_limit) fn new(key: F, table: Table) -> Self {
        let table = Arc::new(table);
        let weak = Arc::downgrade(&table);
        table.buckets.on_grant(weak);
        Self { key, table }
    }

    pub(in crate::rate_limit) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Returns the hash of the request's key, computed once.
    #[inline(always)]
    fn ask<Req>(&self, inquiry: Inquiry<'_, Req, Option<Option<KeyHash>>>) -> Option<KeyHash>
    where
        F: Key<Req>,
    {
        let Inquiry { request, asked, .. } = inquiry;
        *asked.get_or_insert_with(|| key::hash_of(&self.key, request, &self.table.hashing))
    }

    /// Builds the rejection of a request. Counts it for its key if rejections are counted.
    #[cold]
    fn rejected<Req>(
        &self,
        hash: KeyHash,
        (kind, wait): (RejectedKind, Option<Duration>),
        request: &Req,
    ) -> Box<Rejected>
    where
        F: Key<Req>,
    {
        if F::COUNTED {
            self.table.count(hash.index(), || self.key.label(request));
        }
        let kind = self.table.buckets.kind(hash, kind, self.table.clock.now());
        self.table.tally.reject(kind, wait)
    }
}

impl Table {
    pub(in crate::rate_limit) fn new(
        buckets: Buckets,
        settings: Settings,
        clock: Clock,
        (missing, max_keys): (Missing, usize),
        tally: GateTally,
    ) -> Self {
        let hashing = buckets.hashing();
        Self {
            buckets,
            queues: QueuesByKey::default(),
            clock,
            settings,
            hashing,
            missing,
            max_keys,
            top: Mutex::default(),
            tally,
        }
    }

    /// Applies an operation to the limit of a key.
    pub(super) fn with<R>(&self, hash: KeyHash, act: impl FnOnce(BucketRef<'_>) -> R) -> R {
        let queue = self.queues.find(hash);
        act(BucketRef {
            limit: &self.of(hash),
            queue: queue.as_deref(),
            switch: None,
            by_key: Some((&self.queues, hash)),
            clock: &self.clock,
            tally: &self.tally,
        })
    }

    pub(super) fn snapshot(&self, hash: KeyHash) -> Snapshot {
        self.with(hash, |bucket| bucket.snapshot())
    }

    /// Returns the rate and the burst in force.
    pub(super) fn rate(&self) -> (Rate, u32) {
        (self.buckets.rate(), self.buckets.burst())
    }

    pub(super) fn top(&self) -> std::sync::MutexGuard<'_, Top> {
        self.top.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, hash: KeyHash) -> OfKey<'_> {
        OfKey {
            buckets: &self.buckets,
            hash,
        }
    }

    /// Counts a rejection. Skips it instead of waiting for the mutex.
    fn count(&self, hash: u64, label: impl FnOnce() -> String) {
        let mut top = match self.top.try_lock() {
            Ok(top) => top,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let now = self.clock.now();
        if top.count_known(hash, now) {
            return;
        }
        // The label is made without the lock, because the closure is user code.
        drop(top);
        let label = label();
        self.top().count(hash, || label, now);
    }

    #[inline(always)]
    fn admitted(&self) {
        if self.settings.counts_admitted && self.settings.enabled {
            self.tally.count(Event::Admitted);
        }
    }

    /// Closes the key's limit for as long as the upstream asks, if that is honored.
    fn honor(&self, taken: &KeyLimitPass, retry_after: Duration) {
        let max_penalty = self.settings.max_penalty;
        if taken.counted && max_penalty > 0 {
            let penalty = retry_after.min(Duration::from_nanos(max_penalty));
            self.with(taken.hash, |bucket| bucket.close_for(penalty));
        }
    }

    fn waited(&self, ticket: &TableTicket, now: u64) {
        self.tally.took(0, now.saturating_sub(ticket.joined));
    }

    #[cold]
    fn join(
        &self,
        hash: KeyHash,
        demand: &Demand,
        (over, bounds): (Option<OverLimit>, Bounds),
        now: u64,
    ) -> Result<TableTicket, (RejectedKind, Option<Duration>)> {
        let limit = self.of(hash);
        let bound = (bounds, MAX_WAITING_IN_ALL.max(bounds.max_waiting));
        let join = || {
            self.queues
                .join(hash, &QueuedLimit::of(&limit), demand.cost, bound, now)
        };
        let (queue, place) = bucket::join(&limit, demand.cost, over, (bounds, now), join)?;
        Ok(TableTicket {
            hash,
            queue,
            place,
            joined: now,
        })
    }
}

impl Granted for Table {
    fn granted(&self, hash: KeyHash) {
        self.with(hash, |bucket| bucket.notify());
    }
}

impl<F> Gate for TableGate<F> {
    type Pass = KeyLimitPass;
    type Ticket = TableTicket;
    // The hash of the key, once computed.
    type Asked = Option<Option<KeyHash>>;

    fn give_back(&self, taken: KeyLimitPass, _: Unsent, now: &Now) {
        let KeyLimitPass { hash, units, .. } = taken;
        if units > 0 {
            self.table.of(hash).refund(units, now.by(&self.table.clock));
            self.table.with(hash, |bucket| bucket.notify());
        }
    }

    #[inline(always)]
    fn end(&self, taken: KeyLimitPass, how: Completion, _: &Now) {
        if let Completion::Answered(_, Some(retry_after)) = how {
            self.table.honor(&taken, retry_after);
        }
    }

    fn leave(&self, ticket: TableTicket, now: &Now) {
        let TableTicket { hash, queue, .. } = &ticket;
        let (limit, now) = (self.table.of(*hash), now.by(&self.table.clock));
        queue.cancel(&QueuedLimit::of(&limit), &ticket.place, now);
        self.table.queues.left(*hash, queue);
        self.table.waited(&ticket, now);
    }

    #[inline(always)]
    fn owes(&self, taken: &KeyLimitPass) -> bool {
        taken.counted && self.table.settings.owes()
    }

    #[inline(always)]
    fn event(&self, taken: &mut KeyLimitPass, event: CallEvent, now: &Now) {
        match event {
            CallEvent::Sent => self.table.admitted(),
            CallEvent::Head => {}
            CallEvent::Hint(retry_after) => self.table.honor(taken, retry_after),
            CallEvent::Used(used) => {
                if taken.counted {
                    let settle = |bucket: BucketRef<'_>| bucket.settle(taken.units, used);
                    self.table.with(taken.hash, settle);
                    taken.units = used;
                }
            }
            CallEvent::Upgraded(outcome) => end_upgraded(self, taken, outcome, now),
        }
    }
}

impl<F: Key<Req>, Req> Admit<Req> for TableGate<F> {
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<KeyLimitPass, TableTicket> {
        let Table {
            buckets,
            queues,
            clock,
            settings,
            missing,
            tally,
            ..
        } = &*self.table;
        if !settings.enabled {
            return Admission::Granted(KeyLimitPass::default());
        }
        let Inquiry {
            request, demand, ..
        } = inquiry;
        let hash = match (self.ask(inquiry), missing) {
            (Some(hash), _) => hash,
            (None, Missing::Share) => WITHOUT_KEY,
            (None, Missing::Allow) => return Admission::Granted(KeyLimitPass::default()),
            (None, Missing::Reject) => {
                let rejected = tally.reject(RejectedKind::MissingKey, None);
                return Admission::Rejected(rejected);
            }
        };
        let (moment, now) = (now, now.by(clock));
        let decision = Settings::decide(
            demand,
            (clock, now, moment),
            queues.has_waiters(hash),
            |cost, now| buckets.acquire(hash, cost, now),
            || *settings,
            |over, bounds| self.table.join(hash, demand, (over, bounds), now),
        );
        match decision {
            Decision::Admitted => Admission::Granted(KeyLimitPass::of(hash, demand.cost)),
            Decision::Queued(ticket) => Admission::Queued(ticket),
            Decision::Rejected(kind, wait) => {
                Admission::Rejected(self.rejected(hash, (kind, wait), request))
            }
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut TableTicket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<KeyLimitPass> {
        let (hash, clock) = (ticket.hash, &self.table.clock);
        let (limit, now) = (self.table.of(hash), now.by(clock));
        let place = (&*ticket.queue, &mut ticket.place);
        let Poll::Ready(turn) = bucket::poll(&QueuedLimit::of(&limit), place, cx, (clock, now))
        else {
            return TicketPoll::Queued;
        };
        self.table.queues.left(hash, &ticket.queue);
        self.table.waited(ticket, now);
        if let Turn::Acquired = turn {
            return TicketPoll::Granted(KeyLimitPass::of(hash, ticket.place.units()));
        }
        let why = bucket::rejected(&turn);
        TicketPoll::Rejected(self.rejected(hash, why, inquiry.request))
    }

    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, KeyLimitPass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let Table {
            settings, missing, ..
        } = &*self.table;
        let (hash, cost) = match call {
            LimitedCall::Sent(taken) if taken.counted && settings.advertise.is_on => {
                (taken.hash, 0)
            }
            LimitedCall::Sent(_) => return,
            LimitedCall::Unsent(..) if !settings.enabled => return,
            LimitedCall::Unsent(_, Visit::ForQuotas) if !settings.advertise.is_on => return,
            LimitedCall::Unsent(inquiry, _) => {
                let cost = inquiry.demand.cost;
                match (self.ask(inquiry), missing) {
                    (Some(hash), _) => (hash, cost),
                    (None, Missing::Share) => (WITHOUT_KEY, cost),
                    (None, _) => return,
                }
            }
        };
        self.table
            .with(hash, |bucket| visit(&bucket.of_call(cost, settings)));
    }
}

impl<F, Res> Read<Res> for TableGate<F> {}

impl<F: Clone> Clone for TableGate<F> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            table: self.table.clone(),
        }
    }
}

/// The hash that requests without a key are counted under. A key has it only by chance.
const WITHOUT_KEY: KeyHash = KeyHash::new([u64::MAX; 2]);
