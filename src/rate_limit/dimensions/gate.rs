//! The gate: several quotas on each call.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    closures::{Costs, Settles, Uses},
    state::{Over, State},
};
use crate::{
    RejectedKind,
    ambient::clock::{Now, nanos},
    gate::{
        Admission, Admit, CallEvent, Completion, Demand, Gate, Inquiry, LimitedCall, Quoted, Read,
        TicketPoll, Unsent, Visit, end_upgraded,
    },
    observe::Event,
    protocol::{Hint, Quota},
    queue::{TicketOf, Turn},
};

/// Admits calls that fit several quotas. Made by
/// [`RateLimitLayer::dimensions`](crate::rate_limit::RateLimitLayer::dimensions).
#[derive(Clone)]
pub struct DimensionsGate<const N: usize, C, U> {
    pub(super) state: Arc<State<N>>,
    pub(super) costs: C,
    pub(super) uses: U,
}

/// The units that a call has taken. The default has taken nothing, and is not counted.
#[derive(Debug, Default)]
pub struct DimensionsPass<const N: usize>(Option<[u64; N]>);

/// A ticket in the queue.
#[derive(Debug)]
pub struct DimensionsTicket<const N: usize> {
    place: TicketOf<[u64; N]>,
    joined: u64,
}

/// The costs and the deadline of a request, which is asked once.
type AskedOf<const N: usize> = ([u64; N], Option<Instant>);

/// A limit as it is advertised to callers.
struct Told<'a, const N: usize> {
    state: &'a State<N>,
    costs: [u64; N],
}

impl<const N: usize, C, U> DimensionsGate<N, C, U> {
    /// Decides about a call.
    fn decide(
        &self,
        costs: [u64; N],
        demand: &Demand,
        now: u64,
    ) -> Admission<DimensionsPass<N>, DimensionsTicket<N>> {
        let state = &*self.state;
        let granted = Admission::Granted(DimensionsPass(Some(costs)));
        if costs == [0; N] {
            return granted;
        }
        let passed = |deadline| state.clock.at(deadline) <= now;
        if demand.deadline.is_some_and(passed) {
            let kind = RejectedKind::DeadlineExceeded;
            return Admission::Rejected(state.reject(kind, None, None, now));
        }
        let over = match state.queue.is_empty() {
            true => match state.take(&costs, None, now) {
                Ok(()) => return granted,
                Err(over) => Some(over),
            },
            false => state.fits(&costs).err(),
        };
        self.join(demand, costs, over, now)
    }

    /// Queues a call, if it may wait long enough. Otherwise rejects it.
    #[cold]
    fn join(
        &self,
        demand: &Demand,
        costs: [u64; N],
        over: Option<Over>,
        now: u64,
    ) -> Admission<DimensionsPass<N>, DimensionsTicket<N>> {
        let state = &*self.state;
        let reject = |over: Over, wait: Option<Duration>| {
            Admission::Rejected(state.reject(over.kind(), wait, Some(over), now))
        };
        let bounds = state.settings.bounds(demand, &state.clock, now);
        if let Some(over) = over {
            match over.wait() {
                Some(wait) if state.settings.lets_wait() && bounds.reaches(nanos(wait), now) => {}
                wait => return reject(over, wait),
            }
        }
        match state.queue.join(state, costs, bounds, now) {
            Ok(place) => Admission::Queued(DimensionsTicket { place, joined: now }),
            // A call without a share that leaves no reserve has no turn.
            Err(Some(u64::MAX)) => {
                let kind = RejectedKind::CostTooHigh;
                Admission::Rejected(state.reject(kind, None, None, now))
            }
            Err(wait) => {
                let wait = wait.map(Duration::from_nanos);
                // The quota whose wait that is: calls in the queue come first.
                let longest = state.longest(&costs, &state.queue.units(), now);
                match longest.or(over) {
                    Some(over) => reject(over, wait),
                    None => {
                        let kind = RejectedKind::RateLimited;
                        Admission::Rejected(state.reject(kind, wait, None, now))
                    }
                }
            }
        }
    }
}

impl<const N: usize, C, U: Settles> Gate for DimensionsGate<N, C, U> {
    type Pass = DimensionsPass<N>;
    type Ticket = DimensionsTicket<N>;
    type Asked = Option<AskedOf<N>>;

    fn give_back(&self, pass: Self::Pass, _: Unsent, now: &Now) {
        if let Some(taken) = pass.0 {
            self.state.give_back(&taken, now.by(&self.state.clock));
        }
    }

    /// Gives no units back when a call is dropped after it was sent: the upstream may have seen it.
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now) {
        if let Completion::Answered(_, Some(retry_after)) = how {
            self.honor(&pass, retry_after, now);
        }
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        let now = now.by(&self.state.clock);
        self.state.queue.cancel(&*self.state, &ticket.place, now);
        self.state.tally.took(0, now.saturating_sub(ticket.joined));
    }

    #[inline]
    fn owes(&self, pass: &Self::Pass) -> bool {
        pass.0.is_some() && (U::SETTLES || self.state.settings.owes())
    }

    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        match event {
            CallEvent::Sent if pass.0.is_some() => self.state.tally.count(Event::Admitted),
            CallEvent::Hint(retry_after) => self.honor(pass, retry_after, now),
            CallEvent::Upgraded(outcome) => end_upgraded(self, pass, outcome, now),
            _ => {}
        }
    }

    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        if pass.0.is_some() {
            self.state.told(hint, now.by(&self.state.clock));
        }
    }
}

impl<const N: usize, C, U> DimensionsGate<N, C, U> {
    /// Returns the costs and the deadline of a request, which is asked once.
    fn asked<Req>(&self, request: &Req, asked: &mut Option<AskedOf<N>>) -> AskedOf<N>
    where
        C: Costs<Req, N>,
    {
        let ask = || (self.costs.costs(request), self.costs.deadline(request));
        *asked.get_or_insert_with(ask)
    }

    /// Closes the quotas for as long as the upstream asks, if that is honored.
    fn honor(&self, pass: &DimensionsPass<N>, retry_after: Duration, now: &Now) {
        let max_penalty = self.state.settings.max_penalty;
        if pass.0.is_some() && max_penalty > 0 {
            let penalty = retry_after.min(Duration::from_nanos(max_penalty));
            self.state.close_for(penalty, now.by(&self.state.clock));
        }
    }
}

impl<const N: usize, C, U, Req> Admit<Req> for DimensionsGate<N, C, U>
where
    C: Costs<Req, N>,
    U: Settles,
{
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Self::Ticket> {
        if !self.state.settings.enabled {
            return Admission::Granted(DimensionsPass::default());
        }
        let (costs, own) = self.asked(inquiry.request, inquiry.asked);
        let mut demand = *inquiry.demand;
        // The earlier of two deadlines.
        demand.deadline = demand.deadline.into_iter().chain(own).min();
        self.decide(costs, &demand, now.by(&self.state.clock))
    }

    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        _: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<Self::Pass> {
        let state = &*self.state;
        let now = now.by(&state.clock);
        let time = (&state.clock, now);
        let Poll::Ready(turn) = state.queue.poll_timed(state, &mut ticket.place, cx, time) else {
            return TicketPoll::Queued;
        };
        state.tally.took(0, now.saturating_sub(ticket.joined));
        let costs = ticket.place.units();
        let wait = match turn {
            Turn::Acquired => return TicketPoll::Granted(DimensionsPass(Some(costs))),
            Turn::TooLate(wait) => wait.map(Duration::from_nanos),
            _ => None,
        };
        let over = state.fits(&costs).err();
        let over = over.or_else(|| state.longest(&costs, &[0; N], now));
        let kind = over.map_or(RejectedKind::RateLimited, |over| over.kind());
        TicketPoll::Rejected(state.reject(kind, wait, over, now))
    }

    fn limits(
        &self,
        call: LimitedCall<'_, Req, Self::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let settings = &self.state.settings;
        let costs = match call {
            _ if !settings.enabled => return,
            LimitedCall::Unsent(inquiry, Visit::ForWait) => {
                self.asked(inquiry.request, inquiry.asked).0
            }
            _ if settings.advertise.is_on => [0; N],
            _ => return,
        };
        visit(&Told {
            state: &self.state,
            costs,
        });
    }
}

impl<const N: usize, C, U, Res> Read<Res> for DimensionsGate<N, C, U>
where
    U: Uses<Res, N> + Settles,
{
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        let Some(taken) = &mut pass.0 else { return };
        if let Some(used) = self.uses.uses(response) {
            self.state.settle(taken, &used, now.by(&self.state.clock));
            *taken = used;
        }
    }
}

impl<const N: usize> Quoted for Told<'_, N> {
    fn quotas(&self, now: &Now, quotas: &mut Vec<Quota>) {
        let (state, now) = (self.state, now.by(&self.state.clock));
        state.own.quotas(&state.settings, 0, now, quotas);
        if let Some(total) = &state.total {
            total.quotas(&state.settings, 1, now, quotas);
        }
    }

    fn wait(&self, now: &Now) -> Option<Duration> {
        let now = now.by(&self.state.clock);
        self.state.fits(&self.costs).ok()?;
        let over = self.state.longest(&self.costs, &[0; N], now);
        Some(over.and_then(|over| over.wait()).unwrap_or_default())
    }
}

impl<const N: usize, C, U> fmt::Debug for DimensionsGate<N, C, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DimensionsGate")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
