//! Gates that read a request's own settings.

use std::{fmt, ops::ControlFlow, task::Context};

use crate::{
    CarryDeadline, Deadline, Rejected,
    ambient::clock::Now,
    gate::{
        Admission, Admit, CallEvent, Closes, Completion, Demand, Gate, Inquiry, LimitedCall,
        Quoted, Read, TicketPoll, Unsent,
    },
    protocol::Hint,
};

/// A gate for which a request's [`CallSettings`](crate::CallSettings) set the cost and the
/// criticality, and its [`Deadline`] how long it may wait. A closure of the gate takes precedence.
/// The protocol `P` reads them.
#[derive(Clone)]
pub struct BySettings<G, P> {
    gate: G,
    protocol: P,
}

impl<G, P> BySettings<G, P> {
    pub(super) fn new(gate: G, protocol: P) -> Self {
        Self { gate, protocol }
    }

    pub(super) fn gate(&self) -> &G {
        &self.gate
    }

    /// Reads the request once, and passes its demand to the gate.
    #[inline(always)]
    fn tell<'a, Req>(
        &self,
        inquiry: Inquiry<'a, Req, (Option<Demand>, G::Asked)>,
    ) -> Inquiry<'a, Req, G::Asked>
    where
        G: Gate,
        P: CarryDeadline<Req>,
    {
        let Inquiry {
            request,
            demand,
            asked: (own, asked),
        } = inquiry;
        let demand = own.get_or_insert_with(|| {
            let settings = self.protocol.settings(request);
            let deadline = self.protocol.deadline(request).map(Deadline::moment);
            Demand {
                // So that no call waits for longer than its caller does.
                deadline: deadline.or(demand.deadline),
                cost: settings.cost.unwrap_or(demand.cost),
                criticality: settings.criticality.unwrap_or(demand.criticality),
                ..*demand
            }
        });
        Inquiry {
            request,
            demand,
            asked,
        }
    }
}

impl<G: Gate, P> Gate for BySettings<G, P> {
    type Pass = G::Pass;
    type Ticket = G::Ticket;
    // The request's demand, once it was read.
    type Asked = (Option<Demand>, G::Asked);
    const CLOSES: bool = G::CLOSES;

    fn give_back(&self, pass: Self::Pass, why: Unsent, now: &Now) {
        self.gate.give_back(pass, why, now);
    }

    #[inline(always)]
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now) {
        self.gate.end(pass, how, now);
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        self.gate.leave(ticket, now);
    }

    #[inline(always)]
    fn owes(&self, pass: &Self::Pass) -> bool {
        self.gate.owes(pass)
    }

    fn renew(&self, pass: &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        self.gate.renew(pass, now)
    }

    #[inline(always)]
    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        self.gate.event(pass, event, now);
    }

    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        self.gate.told(pass, hint, now);
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    #[inline(always)]
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        self.gate.closing(visit)
    }
}

impl<G, P, Req> Admit<Req> for BySettings<G, P>
where
    G: Admit<Req>,
    P: CarryDeadline<Req>,
{
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<G::Pass, G::Ticket> {
        self.gate.admit(self.tell(inquiry), now)
    }

    fn poll_ticket(
        &self,
        ticket: &mut G::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<G::Pass> {
        self.gate.poll_ticket(ticket, self.tell(inquiry), cx, now)
    }

    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, G::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let call = match call {
            LimitedCall::Sent(pass) => LimitedCall::Sent(pass),
            LimitedCall::Unsent(inquiry, why) => LimitedCall::Unsent(self.tell(inquiry), why),
        };
        self.gate.limits(call, visit);
    }
}

impl<G: Read<Res>, P, Res> Read<Res> for BySettings<G, P> {
    #[inline(always)]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        self.gate.read(pass, response, now);
    }
}

impl<G: fmt::Debug, P> fmt::Debug for BySettings<G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gate.fmt(f)
    }
}
