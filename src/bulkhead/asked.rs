//! What a bulkhead asks of requests: their deadline, and how critical they are.

use std::{fmt, task::Context, time::Duration};

use tokio::time::Instant;

use crate::{
    Criticality, Outcome, Rejected,
    ambient::clock::Now,
    gate::{Admission, Admit, Changed, Demand, End, Gate, Inquiry, Read, Turn, Unsent},
    protocol::Quota,
};

/// A bulkhead that asks a request for what it needs before it decides.
#[derive(Debug, Clone)]
pub struct Asked<G, A> {
    gate: G,
    asks: A,
}

/// A builder's state: nothing is asked of requests, and all are alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllAlike;

/// A builder's state: one thing more is asked of requests.
#[derive(Debug, Clone, Copy)]
pub struct AndAsks<A, B>(pub(super) A, pub(super) B);

/// By when a request must have its place, as a closure says.
#[derive(Clone, Copy)]
pub struct DeadlineOf<F>(pub(super) F);

/// How critical a request is, as a closure says.
#[derive(Clone, Copy)]
pub struct CriticalityOf<F>(pub(super) F);

/// Asks one thing of a request.
#[doc(hidden)]
pub trait Ask<Req> {
    /// Enters it in what the call asks for.
    fn ask(&self, request: &Req, demand: &mut Demand);
}

/// Makes of a gate one that asks.
#[doc(hidden)]
pub trait Wrap<G> {
    /// That one.
    type Gate;

    /// Makes it.
    fn wrap(self, gate: G) -> Self::Gate;
}

/// A gate that has a handle.
#[doc(hidden)]
pub trait Controlled {
    /// That surface.
    type Handle;

    /// Returns the handle.
    fn control(&self) -> Self::Handle;
}

impl<G: Controlled, A> Asked<G, A> {
    /// Returns the handle.
    #[must_use]
    pub fn handle(&self) -> G::Handle {
        self.gate.control()
    }
}

impl<G: Controlled, A> Controlled for Asked<G, A> {
    type Handle = G::Handle;

    fn control(&self) -> G::Handle {
        self.gate.control()
    }
}

impl<G: Gate, A> Asked<G, A> {
    /// Asks its closure, once, and hands the bulkhead what that has said.
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
        let demand = own.get_or_insert_with(|| {
            let mut demand = *demand;
            self.asks.ask(request, &mut demand);
            demand
        });
        Inquiry {
            request,
            demand,
            asked,
        }
    }
}

impl<G> Wrap<G> for AllAlike {
    type Gate = G;

    fn wrap(self, gate: G) -> G {
        gate
    }
}

impl<G, A: Wrap<G>, B> Wrap<G> for AndAsks<A, B> {
    type Gate = Asked<A::Gate, B>;

    fn wrap(self, gate: G) -> Self::Gate {
        Asked {
            gate: self.0.wrap(gate),
            asks: self.1,
        }
    }
}

impl<F, Req> Ask<Req> for DeadlineOf<F>
where
    F: Fn(&Req) -> Option<Instant>,
{
    #[inline]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        demand.deadline = demand.earlier((self.0)(request));
    }
}

impl<F, Req> Ask<Req> for CriticalityOf<F>
where
    F: Fn(&Req) -> Criticality,
{
    #[inline]
    fn ask(&self, request: &Req, demand: &mut Demand) {
        demand.criticality = (self.0)(request);
    }
}

impl<F> fmt::Debug for CriticalityOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CriticalityOf")
    }
}

impl<F> fmt::Debug for DeadlineOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeadlineOf")
    }
}

impl<G: Gate, A> Gate for Asked<G, A> {
    type Grant = G::Grant;
    type Pass = G::Pass;
    type Ticket = G::Ticket;
    // What the closure says, once it was asked.
    type Asked = (Option<Demand>, G::Asked);

    #[inline(always)]
    fn send(&self, grant: Self::Grant) -> Self::Pass {
        self.gate.send(grant)
    }

    fn give_back(&self, grant: Self::Grant, why: Unsent, now: &Now) {
        self.gate.give_back(grant, why, now);
    }

    #[inline(always)]
    fn end(&self, pass: Self::Pass, end: End, now: &Now) {
        self.gate.end(pass, end, now);
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        self.gate.leave(ticket, now);
    }

    #[inline(always)]
    fn owes(&self, pass: &Self::Pass) -> bool {
        self.gate.owes(pass)
    }

    fn renew(&self, grant: Self::Grant, now: &Now) -> Result<Self::Grant, Box<Rejected>> {
        self.gate.renew(grant, now)
    }

    fn answered(&self, pass: &mut Self::Pass, now: &Now) {
        self.gate.answered(pass, now);
    }

    fn upgraded(&self, pass: Self::Pass, outcome: Outcome, now: &Now) -> Self::Pass {
        self.gate.upgraded(pass, outcome, now)
    }

    fn honor(&self, pass: &Self::Pass, retry_after: Duration, now: &Now) {
        self.gate.honor(pass, retry_after, now);
    }

    fn used(&self, pass: &mut Self::Pass, units: u32, now: &Now) {
        self.gate.used(pass, units, now);
    }

    #[inline(always)]
    fn advertises(&self) -> bool {
        self.gate.advertises()
    }

    fn quotas(&self, pass: &Self::Pass, now: &Now, quotas: &mut Vec<Quota>) {
        self.gate.quotas(pass, now, quotas);
    }

    fn changed(&self) -> Option<Changed> {
        self.gate.changed()
    }
}

impl<G, A, Req> Admit<Req> for Asked<G, A>
where
    G: Admit<Req>,
    A: Ask<Req>,
{
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Grant, Self::Ticket> {
        self.gate.admit(self.ask(inquiry), now)
    }

    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> Turn<Self::Grant> {
        self.gate.poll_ticket(ticket, self.ask(inquiry), cx, now)
    }

    fn wait(&self, inquiry: Inquiry<'_, Req, Self::Asked>, now: &Now) -> Option<Duration> {
        self.gate.wait(self.ask(inquiry), now)
    }

    fn quotas_for(
        &self,
        mut inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
        quotas: &mut Vec<Quota>,
    ) {
        let gate = inquiry.of(|asked| &mut asked.1);
        self.gate.quotas_for(gate, now, quotas);
    }
}

impl<G: Read<Res>, A, Res> Read<Res> for Asked<G, A> {
    #[inline(always)]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        self.gate.read(pass, response, now);
    }
}
