//! The bulkhead's gate: a count of calls in flight, and a queue of calls that wait for a permit.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use crate::{
    Criticality, Rejected, RejectedKind,
    algorithm::InFlight,
    ambient::clock::{Clock, Now, nanos},
    bulkhead::{
        adaptive::{Algorithm, Learner},
        extras::{Extras, PLACE},
        limits::BulkheadLimit,
        permits::{Permits, Queued},
        settings::Settings,
    },
    gate::{
        Admission, Admit, CallEvent, Completion, Demand, Gate, Inquiry, LimitedCall, MissingKey,
        Quoted, Read, TicketPoll, Unsent, Visit,
    },
    keyed::partitions::{Evict, Hold},
    observe::{BULKHEAD_WAIT, Event, GateTally, Tally},
    queue::{Bounds, Total, Turn, WaitQueue},
};

/// A gate that admits a bounded number of calls at a time. Built with
/// [`BulkheadBuilder::gate`](super::BulkheadBuilder::gate).
#[derive(Debug, Clone)]
pub struct BulkheadGate {
    pub(super) state: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) permits: Permits,
    pub(super) settings: Settings,
    /// The number of calls that have joined the queue. Relaxed: a statistic.
    pub(super) waited: AtomicU64,
    /// If true, the builder gave this key a limit of its own.
    pub(super) has_fixed_limit: bool,
    /// The edition of the last settings of all keys that it took. Locked to change its settings.
    pub(super) edition: Mutex<u64>,
    /// If true, its limit was changed by hand, for this key alone, so that it is not evicted.
    /// Relaxed: a handle prevents eviction, and dropping that handle's hold publishes the flag.
    pub(super) has_own_limit: AtomicBool,
    /// The hold of its handles.
    pub(super) hold: Hold,
}

/// A pass of a bulkhead: 0 for no permit, when it is disabled, and 1 for a permit without extras.
/// Larger words are permits with [extras](Extras). If the limit learns, the word is the stamp of
/// when the permit was taken. If permits are taken back, it is a slot, which holds that stamp.
#[derive(Debug, Default)]
pub struct BulkheadPass(u64);

/// A place in the queue of a bulkhead.
#[derive(Debug)]
pub struct BulkheadTicket {
    place: Queued,
    joined: u64,
}

/// The end of a wait for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Admitted,
    Rejected,
    Cancelled,
}

impl BulkheadGate {
    /// Creates a gate for at most `limit` calls, or as many as the algorithm learns below that.
    /// With a total, for one key of all.
    pub(super) fn new(
        BulkheadLimit {
            limit,
            is_fixed,
            reclaim_after,
            edition,
        }: BulkheadLimit,
        (total, algorithm): (Option<Arc<Total>>, Option<&Algorithm>),
        settings: Settings,
        clock: Clock,
        tally: GateTally,
    ) -> Self {
        let (extras, limit) = Extras::new(algorithm, limit, reclaim_after, clock);
        // Waiters are in the total's queue too, which notices if it does not drain.
        let queue = match &total {
            Some(_) => WaitQueue::default(),
            None => settings.queue(),
        };
        Self {
            state: Arc::new(State {
                permits: Permits {
                    in_flight: InFlight::new(limit),
                    queue,
                    total,
                    clock,
                    may_wait: settings.max_wait.is_some(),
                    extras,
                    tally,
                },
                settings,
                waited: AtomicU64::new(0),
                has_fixed_limit: is_fixed,
                edition: Mutex::new(edition),
                has_own_limit: AtomicBool::new(false),
                hold: Hold::default(),
            }),
        }
    }

    /// Joins the queue, if calls may wait and it is not full.
    #[cold]
    fn join(&self, demand: &Demand, now: &Now) -> Admission<BulkheadPass, BulkheadTicket> {
        let state = &*self.state;
        if let Some(extras) = &state.permits.extras {
            if state.enter_overdue(demand.criticality, now) {
                return Admission::Granted(state.taken(now));
            }
            if let Some(learner) = &extras.learner {
                learner.full();
            }
        }
        let max_waiting = state.settings.max_waiting(demand.criticality);
        // Read without the queue's lock first: under overload this answers most calls.
        let Some(wait) = state
            .settings
            .max_wait
            .filter(|_| state.permits.queue.waiting() < max_waiting)
        else {
            return state.rejection(RejectedKind::BulkheadFull);
        };
        let now = now.by(&state.permits.clock);
        let latest = now.saturating_add(nanos(wait));
        // A call at its deadline is late already.
        let last = |deadline| state.permits.clock.at(deadline).saturating_sub(1);
        let bounds = Bounds {
            until: demand
                .deadline
                .map_or(latest, |deadline| last(deadline).min(latest)),
            grace: 0,
            max_waiting,
            class: demand.criticality as u8,
        };
        let Some(place) = state.permits.join(bounds, now) else {
            return state.rejection(RejectedKind::BulkheadFull);
        };
        state.waited.fetch_add(1, Ordering::Relaxed);
        Admission::Queued(BulkheadTicket { place, joined: now })
    }
}

impl State {
    /// Returns the pass of a permit that has just been taken.
    #[inline(always)]
    fn taken(&self, now: &Now) -> BulkheadPass {
        BulkheadPass(match &self.permits.extras {
            None => PLACE,
            Some(extras) => extras.taken(now),
        })
    }

    /// Ends a call whose permit has extras.
    #[inline(never)]
    fn end(&self, place: &BulkheadPass, how: Option<Completion>, now: &Now) {
        if let Some(extras) = &self.permits.extras {
            let leave = || self.permits.leave();
            extras.end((place.0, how), &self.permits.in_flight, leave, now);
        }
    }

    /// Enters with a permit that another call held too long, if no waiter comes first.
    #[inline(never)]
    fn enter_overdue(&self, class: Criticality, now: &Now) -> bool {
        let taken = self.permits.take_back(now.by(&self.permits.clock));
        taken.is_some_and(|(taken, _)| taken > 0)
            && self.permits.queue.is_empty()
            && self.enter(class)
    }

    /// Returns the limit as set, which a learned limit does not exceed.
    pub(super) fn max(&self) -> usize {
        let learner = self.learner();
        learner.map_or_else(|| self.permits.in_flight.limit(), Learner::max)
    }

    /// Returns the adaptive limit's state, if the limit is adaptive.
    pub(super) fn learner(&self) -> Option<&Learner> {
        self.permits.extras.as_ref()?.learner.as_ref()
    }

    #[inline(always)]
    fn enter(&self, class: Criticality) -> bool {
        if class == Criticality::CriticalPlus && self.permits.total.is_none() {
            return self.permits.in_flight.enter();
        }
        self.enter_share(class)
    }

    /// Enters as a call of a class or a key. If calls may wait, the queue distinguishes classes
    /// instead.
    fn enter_share(&self, class: Criticality) -> bool {
        let by_queue = self.settings.max_wait.is_some();
        let percent = if by_queue {
            100
        } else {
            self.settings.share(class)
        };
        self.permits.enter(percent)
    }

    fn waited(&self, how: Waited, ticket: &BulkheadTicket, now: u64) {
        self.permits
            .tally
            .took(how as usize, now.saturating_sub(ticket.joined));
    }

    #[cold]
    fn rejection<G, T>(&self, kind: RejectedKind) -> Admission<G, T> {
        Admission::Rejected(self.permits.tally.reject(kind, None))
    }
}

impl Gate for BulkheadGate {
    type Pass = BulkheadPass;
    type Ticket = BulkheadTicket;
    type Asked = ();

    fn give_back(&self, place: BulkheadPass, _: Unsent, now: &Now) {
        match place.0 {
            0 => {}
            PLACE => self.state.permits.leave(),
            _ => self.state.end(&place, None, now),
        }
    }

    #[inline(always)]
    fn end(&self, place: BulkheadPass, how: Completion, now: &Now) {
        if place.0 == 0 {
            return;
        }
        let how = how.untimed();
        match how {
            Completion::Answered(outcome, _) => self.state.permits.tally.ended(outcome),
            _ => self.state.permits.tally.count(Event::Cancelled),
        }
        if place.0 == PLACE {
            self.state.permits.leave();
        } else {
            self.state.end(&place, Some(how), now);
        }
    }

    fn leave(&self, ticket: BulkheadTicket, now: &Now) {
        let state = &*self.state;
        let now = now.by(&state.permits.clock);
        state.permits.cancel(&ticket.place, now);
        state.waited(Waited::Cancelled, &ticket, now);
    }

    #[inline(always)]
    fn owes(&self, place: &BulkheadPass) -> bool {
        place.0 != 0
    }

    /// A call over an upgraded connection keeps its permit.
    #[inline(always)]
    fn event(&self, place: &mut BulkheadPass, event: CallEvent, now: &Now) {
        if let CallEvent::Head | CallEvent::Upgraded(_) = event {
            if let Some(extras) = &self.state.permits.extras {
                place.0 = extras.event(place.0, event, now);
            }
        }
    }
}

impl<Req> Admit<Req> for BulkheadGate {
    #[inline(always)]
    fn admit(
        &self,
        Inquiry { demand, .. }: Inquiry<'_, Req, ()>,
        now: &Now,
    ) -> Admission<BulkheadPass, BulkheadTicket> {
        let State {
            permits, settings, ..
        } = &*self.state;
        if !settings.enabled {
            return Admission::Granted(BulkheadPass(0));
        }
        let is_late = |deadline| deadline <= now.instant();
        if demand.deadline.is_some_and(is_late) {
            return self.state.rejection(RejectedKind::DeadlineExceeded);
        }
        // Waiters come first, even if a permit is free: its release is about to grant it to them.
        if permits.queue.is_empty() && self.state.enter(demand.criticality) {
            return Admission::Granted(self.state.taken(now));
        }
        self.join(demand, now)
    }

    fn poll_ticket(
        &self,
        ticket: &mut BulkheadTicket,
        Inquiry { demand, .. }: Inquiry<'_, Req, ()>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<BulkheadPass> {
        let state = &*self.state;
        let moment = now.by(&state.permits.clock);
        let Poll::Ready(turn) = state.permits.poll(&mut ticket.place, cx, moment) else {
            return TicketPoll::Queued;
        };
        match turn {
            Turn::Acquired => {
                state.waited(Waited::Admitted, ticket, moment);
                TicketPoll::Granted(state.taken(now))
            }
            Turn::TooLate(_) | Turn::Never | Turn::Queued(_) => {
                state.waited(Waited::Rejected, ticket, moment);
                let expired = demand
                    .deadline
                    .is_some_and(|deadline| state.permits.clock.at(deadline) <= moment);
                let kind = if expired {
                    RejectedKind::DeadlineExceeded
                } else {
                    RejectedKind::BulkheadFull
                };
                TicketPoll::Rejected(state.permits.tally.reject(kind, None))
            }
        }
    }

    fn limits(
        &self,
        call: LimitedCall<'_, Req, BulkheadPass, ()>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let Settings {
            advertise,
            partition,
            enabled,
            ..
        } = self.state.settings;
        let leaving = match call {
            // The time at which a permit becomes free cannot be known.
            LimitedCall::Unsent(_, Visit::ForWait) => return,
            LimitedCall::Unsent(_, Visit::ForQuotas) => 0,
            LimitedCall::Sent(place) => usize::from(place.0 != 0),
        };
        if advertise.is_on && enabled {
            let permits = &self.state.permits;
            visit(&permits.quoted((permits.tally.name, partition), leaving));
        }
    }
}

impl<Res> Read<Res> for BulkheadGate {}

impl Evict for BulkheadGate {
    fn is_fresh(&self) -> bool {
        !self.state.has_own_limit.load(Ordering::Relaxed)
            && self.state.permits.in_flight.count() == 0
            && self.state.permits.queue.is_unused()
    }

    fn is_held(&self) -> bool {
        self.state.hold.is_shared()
    }

    fn is_watched(&self) -> bool {
        // Handles hold the state, not the partition.
        Arc::strong_count(&self.state) > 1
    }
}

impl MissingKey for BulkheadGate {
    fn missing_key(&self) -> Box<Rejected> {
        let tally = &self.state.permits.tally;
        tally.reject(RejectedKind::MissingKey, None)
    }

    fn overflow(&self) -> Box<Rejected> {
        let tally = &self.state.permits.tally;
        tally.reject(RejectedKind::BulkheadFull, None)
    }
}

/// Creates the layer's tally, with waits by how they [ended](Waited).
pub(super) fn tally(name: Option<&'static str>) -> Arc<Tally> {
    const RESULTS: &[[&str; 2]] = &[["admitted", ""], ["rejected", ""], ["cancelled", ""]];
    Arc::new(Tally::new("bulkhead", name).with_durations(BULKHEAD_WAIT, RESULTS))
}
