//! What a gate reads of a request before it decides, and of a response: the closures of a builder.

use std::{fmt, ops::ControlFlow, task::Context};

use tokio::time::Instant;

use crate::{
    Criticality, Rejected,
    ambient::clock::Now,
    gate::{
        Admission, Admit, CallEvent, Closes, Completion, Controlled, Demand, Gate, Inquiry,
        LimitedCall, Quoted, Read, TicketPoll, Unsent,
    },
    protocol::Hint,
};

/// A gate that asks closures what a request needs, each once, and what its response has cost. `A`
/// is the list of them: `()` for none, then a pair of the list before and one more.
#[derive(Debug, Clone)]
pub struct Asking<G, A = ()> {
    pub(crate) gate: G,
    pub(crate) asks: A,
}

/// What a request costs, as a closure `Fn(&Req) -> u32` says.
#[derive(Clone, Copy)]
pub struct CostOf<F>(pub(crate) F);

/// By when a request must have had its turn, as a closure `Fn(&Req) -> Option<Instant>` says.
#[derive(Clone, Copy)]
pub struct DeadlineOf<F>(pub(crate) F);

/// How critical a request is, as a closure `Fn(&Req) -> Criticality` says.
#[derive(Clone, Copy)]
pub struct CriticalityOf<F>(pub(crate) F);

/// What a call has cost, as a closure `Fn(&Res) -> impl Into<Option<u32>>` says of its response.
#[derive(Clone, Copy)]
pub struct UsedOf<F>(pub(crate) F);

/// Reads a request.
pub trait Ask<Req>: Asks {
    /// Enters it in what the call asks for. By default nothing is read.
    #[inline(always)]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        let _ = (request, demand);
    }
}

/// Reads a response.
pub trait AskUsed<Res>: Asks {
    /// The units used, or `None` if what was taken stands. By default nothing is read.
    #[inline(always)]
    fn used(&self, response: &Res) -> Option<u32> {
        let _ = response;
        None
    }
}

/// What is read, whatever the types of requests and responses.
pub trait Asks {
    /// If true, a request is read.
    const REQUEST: bool = true;
    /// If true, a response is read, and so a call holds a reference to its limit until then.
    const RESPONSE: bool = false;
}

impl<G: Controlled, A> Controlled for Asking<G, A> {
    type Handle = G::Handle;

    fn control(&self) -> G::Handle {
        self.gate.control()
    }

    fn is_on(&self) -> bool {
        self.gate.is_on()
    }
}

impl<G: Controlled, A> Asking<G, A> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> G::Handle {
        self.gate.control()
    }
}

impl<G: Gate, A> Asking<G, A> {
    /// Asks the closures, each once, and hands the gate what they have said.
    #[inline(always)]
    fn ask<'a, Req>(
        &self,
        inquiry: Inquiry<'a, Req, (Option<Demand>, G::Asked)>,
    ) -> Inquiry<'a, Req, G::Asked>
    where
        A: Ask<Req>,
    {
        let Inquiry {
            request,
            demand,
            asked: (own, asked),
        } = inquiry;
        let demand = if A::REQUEST {
            own.get_or_insert_with(|| {
                let mut demand = *demand;
                self.asks.ask(request, &mut demand);
                demand
            })
        } else {
            demand
        };
        Inquiry {
            request,
            demand,
            asked,
        }
    }
}

impl<G: Gate, A: Asks> Gate for Asking<G, A> {
    type Pass = G::Pass;
    type Ticket = G::Ticket;
    // What the closures say, once they were asked.
    type Asked = (Option<Demand>, G::Asked);

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
        A::RESPONSE || self.gate.owes(pass)
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
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        self.gate.closing(visit)
    }
}

impl<G, A, Req> Admit<Req> for Asking<G, A>
where
    G: Admit<Req>,
    A: Ask<Req>,
{
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Self::Ticket> {
        self.gate.admit(self.ask(inquiry), now)
    }

    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<Self::Pass> {
        self.gate.poll_ticket(ticket, self.ask(inquiry), cx, now)
    }

    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, Self::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let call = match call {
            LimitedCall::Sent(pass) => LimitedCall::Sent(pass),
            LimitedCall::Unsent(inquiry, why) => LimitedCall::Unsent(self.ask(inquiry), why),
        };
        self.gate.limits(call, visit);
    }
}

impl<G: Read<Res>, A: AskUsed<Res>, Res> Read<Res> for Asking<G, A> {
    #[inline(always)]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        if let Some(units) = self.asks.used(response) {
            self.gate.event(pass, CallEvent::Used(units), now);
        }
        self.gate.read(pass, response, now);
    }
}

impl Asks for () {
    const REQUEST: bool = false;
}

impl<Req> Ask<Req> for () {}

impl<Res> AskUsed<Res> for () {}

impl<A: Asks, B: Asks> Asks for (A, B) {
    const REQUEST: bool = A::REQUEST || B::REQUEST;
    const RESPONSE: bool = A::RESPONSE || B::RESPONSE;
}

impl<A: Ask<Req>, B: Ask<Req>, Req> Ask<Req> for (A, B) {
    #[inline(always)]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        self.0.ask(request, demand);
        self.1.ask(request, demand);
    }
}

impl<A: AskUsed<Res>, B: AskUsed<Res>, Res> AskUsed<Res> for (A, B) {
    #[inline(always)]
    fn used(&self, response: &Res) -> Option<u32> {
        let later = self.1.used(response);
        later.or_else(|| self.0.used(response))
    }
}

impl<F> Asks for CostOf<F> {}

impl<F: Fn(&Req) -> u32, Req> Ask<Req> for CostOf<F> {
    #[inline(always)]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        demand.cost = (self.0)(request);
    }
}

impl<F, Res> AskUsed<Res> for CostOf<F> {}

impl<F> Asks for DeadlineOf<F> {}

impl<F: Fn(&Req) -> Option<Instant>, Req> Ask<Req> for DeadlineOf<F> {
    #[inline]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        demand.deadline = demand.earlier((self.0)(request));
    }
}

impl<F, Res> AskUsed<Res> for DeadlineOf<F> {}

impl<F> Asks for CriticalityOf<F> {}

impl<F: Fn(&Req) -> Criticality, Req> Ask<Req> for CriticalityOf<F> {
    #[inline]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        demand.criticality = (self.0)(request);
    }
}

impl<F, Res> AskUsed<Res> for CriticalityOf<F> {}

impl<F> Asks for UsedOf<F> {
    const REQUEST: bool = false;
    const RESPONSE: bool = true;
}

impl<F, Req> Ask<Req> for UsedOf<F> {}

impl<F, T, Res> AskUsed<Res> for UsedOf<F>
where
    F: Fn(&Res) -> T,
    T: Into<Option<u32>>,
{
    fn used(&self, response: &Res) -> Option<u32> {
        (self.0)(response).into()
    }
}

impl<F> fmt::Debug for CostOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CostOf")
    }
}

impl<F> fmt::Debug for DeadlineOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeadlineOf")
    }
}

impl<F> fmt::Debug for CriticalityOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CriticalityOf")
    }
}

impl<F> fmt::Debug for UsedOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsedOf")
    }
}
