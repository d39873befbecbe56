//! The closures of a builder: what a gate reads from a request before it decides, and from a
//! response.

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

/// A gate with closures that read a request's needs, each called once, and the cost of its
/// response. `A` is their list: `()` for none, else a pair of the list before and one more closure.
#[derive(Debug, Clone)]
pub struct Asking<G, A = ()> {
    pub(crate) gate: G,
    pub(crate) asks: A,
}

/// A closure `Fn(&Req) -> u32` that returns the cost of a request.
#[derive(Clone, Copy)]
pub struct CostOf<F>(pub(crate) F);

/// A closure `Fn(&Req) -> Option<Instant>` that returns a request's deadline for being sent.
#[derive(Clone, Copy)]
pub struct DeadlineOf<F>(pub(crate) F);

/// A closure `Fn(&Req) -> Criticality` that returns how critical a request is.
#[derive(Clone, Copy)]
pub struct CriticalityOf<F>(pub(crate) F);

/// A closure `Fn(&Res) -> impl Into<Option<u32>>` that returns the cost of a call from its
/// response.
#[derive(Clone, Copy)]
pub struct UsedOf<F>(pub(crate) F);

/// A closure that may read a request.
pub trait Ask<Req>: Asks {
    /// Reads the request and sets the call's needs. By default it reads nothing.
    #[inline(always)]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        let _ = (request, demand);
    }
}

/// A closure that may read a response.
pub trait AskUsed<Res>: Asks {
    /// Returns the units used, or `None` if the cost already charged holds. By default it reads
    /// nothing.
    #[inline(always)]
    fn used(&self, response: &Res) -> Option<u32> {
        let _ = response;
        None
    }
}

/// The kinds of data that a closure reads, whatever the types of requests and responses.
pub trait Asks {
    /// If true, the closure reads requests.
    const REQUEST: bool = true;
    /// If true, the closure reads responses, so that a call holds a reference to its limit until
    /// then.
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
    /// Calls the closures, each once, and hands the gate their answers.
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
    // The answers of the closures, once they were called.
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
    fn is_open(&self) -> bool {
        self.gate.is_open()
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
