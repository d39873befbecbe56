//! The gate: one limit for all calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    Rejected, RejectedKind,
    algorithm::OverLimit,
    ambient::clock::{Clock, Now, nanos},
    gate::{
        Admission, Admit, CallEvent, Completion, Demand, Gate, Inquiry, LimitedCall, MissingKey,
        Quoted, Read, TicketPoll, Unsent, Visit, end_upgraded,
    },
    keyed::partitions::{Evict, Hold},
    observe::{Event, GateTally},
    protocol::Hint,
    queue::{Ticket, Turn, WaitQueue},
    rate_limit::{
        any_limit::AnyLimit,
        bucket::{self, BucketRef},
        fleet::FleetHandle,
        follow::Follower,
        queued_limit::QueuedLimit,
        settings::{Decision, Settings},
        switch::{Switch, is_on},
    },
};

/// Admits calls at a rate. Made by [`RateLimitBuilder::gate`](super::RateLimitBuilder::gate).
#[derive(Debug, Clone)]
pub struct LimitGate {
    pub(super) state: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) limit: AnyLimit,
    /// The upstream's quota, if it is followed. It is a part of the limit.
    follower: Option<Follower>,
    pub(super) queue: WaitQueue,
    pub(super) clock: Clock,
    /// The settings as built. The switch has those that changed since.
    pub(super) settings: Settings,
    pub(super) switch: Switch,
    /// If true, the limit was changed by hand and differs from a newly made one. Relaxed: an
    /// eviction makes sure that nothing else holds the limit, and so sees every change.
    pub(super) changed: AtomicBool,
    /// The hold that its handles share.
    pub(super) hold: Hold,
    /// The tally of the layer: the limits of all its keys count into it.
    pub(super) tally: GateTally,
}

/// The units that a call has taken. The default has taken none and is not counted.
#[derive(Debug, Default)]
pub struct LimitPass {
    units: u32,
    counted: bool,
}

/// A ticket in the queue of a limit.
#[derive(Debug)]
pub struct LimitTicket {
    place: Ticket,
    joined: u64,
    /// The epoch of the limit's [`Switch`] when the call joined the queue.
    epoch: u64,
}

impl LimitGate {
    /// Creates the gate. Its time starts with `clock`, unless the limit was used before.
    pub(super) fn new(limit: AnyLimit, settings: Settings, clock: Clock, tally: GateTally) -> Self {
        let (limit, follower) = limit.following(settings.follow);
        // Other layers may have started the limit earlier.
        let clock = clock.begin(|moment| limit.get().begin(moment));
        let (queue, changed) = (WaitQueue::default(), AtomicBool::new(false));
        let state = Arc::new(State {
            limit,
            follower,
            queue,
            clock,
            switch: Switch::new(&settings),
            settings,
            changed,
            hold: Hold::default(),
            tally,
        });
        if let AnyLimit::Fleet(limit) = &state.limit {
            let weak = Arc::downgrade(&state);
            limit.entry.on_grant(weak);
        }
        Self { state }
    }

    #[cold]
    fn join(
        &self,
        demand: &Demand,
        over: Option<OverLimit>,
        bounds: crate::queue::Bounds,
        (now, epoch): (u64, u64),
    ) -> Result<LimitTicket, (RejectedKind, Option<Duration>)> {
        let (limit, queue) = (self.state.limit.get(), &self.state.queue);
        let join = || queue.join(&self.state.waited_for(), demand.cost, bounds, now);
        let place = bucket::join(limit, demand.cost, over, (bounds, now), join)?;
        Ok(LimitTicket {
            place,
            joined: now,
            epoch,
        })
    }
}

impl State {
    pub(super) fn bucket(&self) -> BucketRef<'_> {
        BucketRef {
            limit: self.limit.get(),
            queue: Some(&self.queue),
            switch: Some(&self.switch),
            by_key: None,
            clock: &self.clock,
            tally: &self.tally,
        }
    }

    /// Returns the rate and the burst in force.
    pub(super) fn rate(&self) -> (crate::algorithm::Rate, u32) {
        let limit = self.limit.get();
        (limit.rate(), limit.burst())
    }

    /// Returns the limit as its queue sees it.
    fn waited_for(&self) -> QueuedLimit<'_> {
        QueuedLimit::new(self.limit.get(), Some(&self.switch))
    }

    pub(super) fn fleet(&self) -> Option<FleetHandle> {
        match &self.limit {
            AnyLimit::Fleet(limit) => Some(FleetHandle::new(limit.fleet.clone())),
            _ => None,
        }
    }

    /// Builds the rejection of a call.
    #[cold]
    fn rejected(&self, kind: RejectedKind, wait: Option<Duration>) -> Box<Rejected> {
        let kind = match &self.limit {
            AnyLimit::Fleet(limit) => limit.kind(kind),
            _ => kind,
        };
        self.tally.reject(kind, wait)
    }

    /// Returns the time until the whole burst would be admitted.
    pub(super) fn until_whole(&self) -> Duration {
        let limit = self.limit.get();
        limit.wait(u64::from(limit.burst()), self.clock.now())
    }

    #[inline(always)]
    fn admitted(&self) {
        if self.settings.counts_admitted {
            self.tally.count(Event::Admitted);
        }
    }

    /// Closes the limit for as long as the upstream asks, if that is honored.
    fn honor(&self, taken: &LimitPass, retry_after: Duration) {
        let max_penalty = self.switch.max_penalty();
        if taken.counted && max_penalty > 0 {
            let penalty = retry_after.min(Duration::from_nanos(max_penalty));
            self.bucket().close_for(penalty);
        }
    }

    /// Records the upstream's report of its quota, if that is followed. Notifies the waiters,
    /// because their waits may have changed.
    fn follow(&self, hint: &Hint, now: u64) {
        let told = |follower: &Follower| follower.told(hint, now);
        if self.follower.as_ref().is_some_and(told) {
            self.bucket().notify();
        }
    }

    fn cancel(&self, ticket: &LimitTicket, now: u64) {
        let limit = self.waited_for().since(ticket.epoch);
        self.queue.cancel(&limit, &ticket.place, now);
        self.waited(ticket, now);
    }

    fn waited(&self, ticket: &LimitTicket, now: u64) {
        self.tally.took(0, now.saturating_sub(ticket.joined));
    }
}

impl Gate for LimitGate {
    type Pass = LimitPass;
    type Ticket = LimitTicket;
    type Asked = ();

    fn give_back(&self, taken: LimitPass, _: Unsent, now: &Now) {
        if taken.units > 0 {
            self.state
                .limit
                .get()
                .refund(taken.units, now.by(&self.state.clock));
            self.state.bucket().notify();
        }
    }

    /// Gives no units back when a call is dropped after it was sent: the upstream may have seen it.
    #[inline(always)]
    fn end(&self, taken: LimitPass, how: Completion, _: &Now) {
        if let Completion::Answered(_, Some(retry_after)) = how {
            self.state.honor(&taken, retry_after);
        }
    }

    fn leave(&self, ticket: LimitTicket, now: &Now) {
        let now = now.by(&self.state.clock);
        self.state.cancel(&ticket, now);
    }

    #[inline(always)]
    fn owes(&self, taken: &LimitPass) -> bool {
        taken.counted && (self.state.switch.owes() || self.state.follower.is_some())
    }

    #[inline(always)]
    fn event(&self, taken: &mut LimitPass, event: CallEvent, now: &Now) {
        match event {
            CallEvent::Sent if taken.counted => self.state.admitted(),
            CallEvent::Hint(retry_after) => self.state.honor(taken, retry_after),
            CallEvent::Used(units) if taken.counted => {
                self.state.bucket().settle(taken.units, units);
                taken.units = units;
            }
            CallEvent::Upgraded(outcome) => end_upgraded(self, taken, outcome, now),
            _ => {}
        }
    }

    fn told(&self, taken: &LimitPass, hint: &Hint, now: &Now) {
        if taken.counted {
            self.state.follow(hint, now.by(&self.state.clock));
        }
    }
}

impl<Req> Admit<Req> for LimitGate {
    #[inline(always)]
    fn admit(
        &self,
        Inquiry { demand, .. }: Inquiry<'_, Req, ()>,
        now: &Now,
    ) -> Admission<LimitPass, LimitTicket> {
        let State {
            limit,
            queue,
            clock,
            settings,
            switch,
            ..
        } = &*self.state;
        let epoch = switch.epoch();
        if !is_on(epoch) {
            return Admission::Granted(LimitPass::default());
        }
        let (moment, now) = (now, now.by(clock));
        let decision = Settings::decide(
            demand,
            (clock, now, moment),
            !queue.is_empty(),
            |cost, now| limit.acquire(cost, now),
            || switch.of(settings),
            |over, bounds| self.join(demand, over, bounds, (now, epoch)),
        );
        match decision {
            Decision::Admitted => Admission::Granted(LimitPass {
                units: demand.cost,
                counted: true,
            }),
            Decision::Queued(ticket) => Admission::Queued(ticket),
            Decision::Rejected(kind, wait) => Admission::Rejected(self.state.rejected(kind, wait)),
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut LimitTicket,
        _: Inquiry<'_, Req, ()>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<LimitPass> {
        let State {
            queue,
            clock,
            switch,
            ..
        } = &*self.state;
        let now = now.by(clock);
        if switch.epoch() != ticket.epoch {
            // The limit that it waited for was switched. Checked before the queue is polled,
            // because a call that joins while the limit is switched off is polled after that.
            self.state.cancel(ticket, now);
            return TicketPoll::Granted(LimitPass::default());
        }
        let place = (queue, &mut ticket.place);
        let limit = self.state.waited_for();
        let Poll::Ready(turn) = bucket::poll(&limit, place, cx, (clock, now)) else {
            return TicketPoll::Queued;
        };
        self.state.waited(ticket, now);
        if switch.epoch() != ticket.epoch {
            // Switched meanwhile: the queue may have granted it without taking units.
            return TicketPoll::Granted(LimitPass::default());
        }
        if let Turn::Acquired = turn {
            return TicketPoll::Granted(LimitPass {
                units: ticket.place.units(),
                counted: true,
            });
        }
        let (kind, wait) = bucket::rejected(&turn);
        TicketPoll::Rejected(self.state.rejected(kind, wait))
    }

    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, LimitPass, ()>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let State {
            settings, switch, ..
        } = &*self.state;
        let cost = match call {
            _ if !switch.is_on() => return,
            LimitedCall::Unsent(inquiry, Visit::ForWait) => inquiry.demand.cost,
            _ if switch.advertises() => 0,
            _ => return,
        };
        let settings = switch.of(settings);
        visit(&self.state.bucket().of_call(cost, &settings));
    }
}

impl<Res> Read<Res> for LimitGate {}

impl Evict for LimitGate {
    fn is_fresh(&self) -> bool {
        let State {
            limit,
            queue,
            clock,
            changed,
            ..
        } = &*self.state;
        !changed.load(Ordering::Relaxed)
            && queue.is_empty()
            && queue.is_unused()
            && limit.get().is_fresh(clock.now())
    }

    fn is_held(&self) -> bool {
        self.state.hold.is_shared()
    }

    fn is_watched(&self) -> bool {
        // Handles hold the state, not the partition.
        Arc::strong_count(&self.state) > 1
    }
}

impl MissingKey for LimitGate {
    fn missing_key(&self) -> Box<Rejected> {
        self.state.tally.reject(RejectedKind::MissingKey, None)
    }

    /// Rejects a call whose key found no room. The hint is an estimate: the time of one unit.
    fn overflow(&self) -> Box<Rejected> {
        let rate = self.state.limit.get().rate();
        let one = nanos(rate.per())
            .checked_div(rate.count())
            .map(Duration::from_nanos);
        self.state.tally.reject(RejectedKind::RateLimited, one)
    }
}
