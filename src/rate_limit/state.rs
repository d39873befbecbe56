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
    Changed, ConfigError, Rejected, RejectedKind,
    algorithm::{OverLimit, Rate},
    ambient::clock::{Clock, Now, nanos},
    gate::{
        Admission, Admit, CallEvent, Completion, Demand, Gate, Inquiry, LimitedCall, MissingKey,
        Quoted, Read, TicketPoll, Unsent, Visit, end_upgraded,
    },
    keyed::partitions::{Evict, Hold},
    observe::{self, Event, GateTally, Instance, Observed, trace},
    protocol::Hint,
    queue::{Ticket, Turn, WaitQueue},
    rate_limit::{
        any_limit::AnyLimit,
        bucket::{self, BucketRef, Decision, Settings, Waited, changed},
        fleet::{FleetHandle, Granted},
        follow::Follower,
    },
};

/// Admits calls at a rate. Made by [`RateLimitBuilder::gate`](super::RateLimitBuilder::gate).
#[derive(Debug, Clone)]
pub struct LimitGate {
    pub(super) state: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    limit: AnyLimit,
    /// The upstream's quota, if it is followed: a part of the limit.
    follower: Option<Follower>,
    queue: WaitQueue,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    /// Whether it was changed by hand, and is not what would be made anew. Relaxed: an eviction
    /// makes sure that nobody holds the limit, and so sees what was done to it.
    changed: AtomicBool,
    /// Of its handles.
    pub(super) hold: Hold,
    /// Of the layer: the limits of all its keys count together.
    pub(super) tally: GateTally,
}

/// The units that a call has taken. The default has taken nothing, and is not counted.
#[derive(Debug, Default)]
pub struct LimitPass {
    units: u32,
    counted: bool,
}

/// A place in the queue of a limit.
#[derive(Debug)]
pub struct LimitTicket {
    place: Ticket,
    joined: u64,
}

impl LimitGate {
    /// Its time begins with `clock`'s, unless the limit was used before.
    pub(super) fn new(limit: AnyLimit, clock: Clock, settings: Settings, tally: GateTally) -> Self {
        let (limit, follower) = limit.following(settings.follow);
        // Other layers may have begun to use it sooner.
        let clock = clock.begin(|moment| limit.get().begin(moment));
        let (queue, changed) = (WaitQueue::default(), AtomicBool::new(false));
        let state = Arc::new(State {
            limit,
            follower,
            queue,
            clock,
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
        now: u64,
    ) -> Result<LimitTicket, (RejectedKind, Option<Duration>)> {
        let (limit, queue) = (self.state.limit.get(), &self.state.queue);
        let join = || queue.join(&Waited(limit), demand.cost, bounds, now);
        bucket::join(limit, demand.cost, over, (bounds, now), join)
            .map(|place| LimitTicket { place, joined: now })
    }
}

impl State {
    pub(super) fn bucket(&self) -> BucketRef<'_> {
        BucketRef {
            limit: self.limit.get(),
            queue: Some(&self.queue),
            by_key: None,
            clock: &self.clock,
            tally: &self.tally,
        }
    }

    /// The rate and the burst in force.
    pub(super) fn rate(&self) -> (Rate, u32) {
        let limit = self.limit.get();
        (limit.rate(), limit.burst())
    }

    pub(super) fn update(&self, rate: Rate, burst: u32) -> Result<Changed, ConfigError> {
        let limit = self.limit.get();
        let before = self.rate();
        let updated = limit.update(rate, burst);
        updated.map_err(|error| error.of("rate_limit", self.settings.name))?;
        self.changed.store(true, Ordering::Relaxed);
        let changed = changed(before, (rate, burst));
        trace::updated((self.tally.layer, self.tally.name), &changed);
        self.bucket().notify();
        Ok(changed)
    }

    pub(super) fn fleet(&self) -> Option<FleetHandle> {
        match &self.limit {
            AnyLimit::Fleet(limit) => Some(FleetHandle::new(limit.fleet.clone())),
            _ => None,
        }
    }

    /// The rejection of a call.
    #[cold]
    fn rejected(&self, kind: RejectedKind, wait: Option<Duration>) -> Box<Rejected> {
        let kind = match &self.limit {
            AnyLimit::Fleet(limit) => limit.kind(kind),
            _ => kind,
        };
        Box::new(self.tally.reject(kind, wait))
    }

    /// How long until all of the burst would be admitted.
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

    /// Closes for as long as the upstream asks for, if that is honored.
    fn honor(&self, taken: &LimitPass, retry_after: Duration) {
        let max_penalty = self.settings.max_penalty;
        if taken.counted && max_penalty > 0 {
            let penalty = retry_after.min(Duration::from_nanos(max_penalty));
            self.bucket().close_for(penalty);
        }
    }

    /// Takes over what the upstream tells of its quota, if that is followed. Waiters whose turn is
    /// another now are told.
    fn follow(&self, hint: &Hint, now: u64) {
        let told = |follower: &Follower| follower.told(hint, now);
        if self.follower.as_ref().is_some_and(told) {
            self.bucket().notify();
        }
    }

    fn waited(&self, ticket: &LimitTicket, now: u64) {
        self.tally.took(0, now.saturating_sub(ticket.joined));
    }
}

impl Observed for State {
    fn layer(&self) -> &'static str {
        self.tally.layer
    }

    fn name(&self) -> Option<&'static str> {
        self.tally.name
    }

    fn observe(&self) -> Instance {
        let limit = self.limit.get();
        let state = observe::State::RateLimit {
            queued: Some(self.queue.waiting() as u64),
            keys: None,
            evictions: None,
            fleet: self.fleet().map(|fleet| fleet.counts()),
        };
        let quota = Some((limit.rate(), limit.burst()));
        bucket::observe((&self.tally, Some(&self.settings)), quota, state)
    }
}

impl Granted for State {
    fn granted(&self, _: u64) {
        self.bucket().notify();
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

    /// Units are not given back when a call is dropped after it was sent: the upstream may have
    /// seen it.
    #[inline(always)]
    fn end(&self, taken: LimitPass, how: Completion, _: &Now) {
        if let Completion::Answered(_, Some(retry_after)) = how {
            self.state.honor(&taken, retry_after);
        }
    }

    fn leave(&self, ticket: LimitTicket, now: &Now) {
        let State {
            limit,
            queue,
            clock,
            ..
        } = &*self.state;
        let now = now.by(clock);
        queue.cancel(&Waited(limit.get()), &ticket.place, now);
        self.state.waited(&ticket, now);
    }

    #[inline(always)]
    fn owes(&self, taken: &LimitPass) -> bool {
        taken.counted && self.state.settings.owes()
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
            ..
        } = &*self.state;
        if !settings.enabled {
            return Admission::Granted(LimitPass::default());
        }
        let now = now.by(clock);
        let decision = settings.decide(
            demand,
            (clock, now),
            !queue.is_empty(),
            |cost, now| limit.acquire(cost, now),
            |over, bounds| self.join(demand, over, bounds, now),
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
            limit,
            queue,
            clock,
            ..
        } = &*self.state;
        let now = now.by(clock);
        let place = (queue, &mut ticket.place);
        let Poll::Ready(turn) = bucket::poll(limit.get(), place, cx, (clock, now)) else {
            return TicketPoll::Queued;
        };
        self.state.waited(ticket, now);
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
        let settings = &self.state.settings;
        let cost = match call {
            LimitedCall::Unsent(inquiry, Visit::ForWait) => inquiry.demand.cost,
            _ if settings.advertise.is_on && settings.enabled => 0,
            _ => return,
        };
        visit(&self.state.bucket().of_call(cost, settings));
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
        // Handles have the state, not the partition.
        Arc::strong_count(&self.state) > 1
    }
}

impl MissingKey for LimitGate {
    fn missing_key(&self) -> Rejected {
        self.state.tally.reject(RejectedKind::MissingKey, None)
    }

    /// About when a key that found no place may try again: after one unit's time.
    fn overflow(&self) -> Rejected {
        let rate = self.state.limit.get().rate();
        let one = nanos(rate.per())
            .checked_div(rate.count())
            .map(Duration::from_nanos);
        self.state.tally.reject(RejectedKind::RateLimited, one)
    }
}
