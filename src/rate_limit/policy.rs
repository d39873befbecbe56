//! What calls cost, how long they may wait, and what they turn out to have cost.

use std::{fmt, task::Context, time::Duration};

use tokio::time::Instant;

use crate::{
    Rejected,
    ambient::clock::Now,
    gate::{Admission, Admit, Changed, Demand, End, Gate, Inquiry, Read, Turn, Unsent},
    protocol::Quota,
};

/// A rate limit of any kind, and the [policy](Policy) by which calls are metered.
#[derive(Debug, Clone)]
pub struct Metered<G, M = Policy> {
    pub(super) limit: G,
    pub(super) policy: M,
}

/// How calls are metered: set by the builder's [`cost`](super::RateLimitBuilder::cost),
/// [`settle`](super::RateLimitBuilder::settle) and
/// [`deadline`](super::RateLimitBuilder::deadline).
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy<C = UnitCost, A = AsEstimated, D = NoDeadline> {
    pub(super) cost: C,
    pub(super) actual: A,
    pub(super) deadline: D,
}

/// Each call costs 1, or what it says [for itself](crate::run::OneCall::cost).
#[derive(Debug, Clone, Copy, Default)]
pub struct UnitCost;

/// Each call costs what was taken for it, whatever its response.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsEstimated;

/// No call has a deadline of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDeadline;

/// What a closure says of a request.
#[derive(Clone, Copy)]
pub struct ByRequest<F>(pub(super) F);

/// What a closure says of a response.
#[derive(Clone, Copy)]
pub struct ByResponse<F>(pub(super) F);

/// What a request costs before it is sent.
pub trait Cost<Req> {
    /// The units to take. 0 is free.
    fn cost(&self, request: &Req) -> u32;

    /// The same, where the call has said for itself what it costs. By default that is not asked.
    #[doc(hidden)]
    #[inline(always)]
    fn cost_of(&self, request: &Req, said: u32) -> u32 {
        let _ = said;
        self.cost(request)
    }
}

/// What a call has cost, once there is a response.
pub trait Actual<Res> {
    /// The units used, or `None` if the estimate stands.
    fn actual(&self, response: &Res) -> Option<u32>;
}

/// Whether there is anything to ask of a response, which makes a call hold a reference to the limit
/// until its end.
#[doc(hidden)]
pub trait Asks {
    /// Whether there is.
    const ASKS: bool;
}

/// By when a request must have had its turn.
pub trait Deadline<Req> {
    /// That moment, if it has one.
    fn deadline(&self, request: &Req) -> Option<Instant>;
}

impl<C, A, D> Policy<C, A, D> {
    /// Asks the closures, each once, and hands the limit what they have said.
    #[inline(always)]
    fn ask<'a, Req, A2>(
        &self,
        inquiry: Inquiry<'a, Req, (Option<Demand>, A2)>,
    ) -> Inquiry<'a, Req, A2>
    where
        C: Cost<Req>,
        D: Deadline<Req>,
    {
        let Inquiry {
            request,
            demand,
            asked: (own, asked),
        } = inquiry;
        let demand = own.get_or_insert_with(|| Demand {
            cost: self.cost.cost_of(request, demand.cost),
            deadline: demand.earlier(self.deadline.deadline(request)),
            ..*demand
        });
        Inquiry {
            request,
            demand,
            asked,
        }
    }
}

impl<G: Gate, C, A: Asks, D> Gate for Metered<G, Policy<C, A, D>> {
    type Grant = G::Grant;
    type Pass = G::Pass;
    type Ticket = G::Ticket;
    // What the closures say, once they were asked.
    type Asked = (Option<Demand>, G::Asked);

    #[inline(always)]
    fn send(&self, grant: Self::Grant) -> Self::Pass {
        self.limit.send(grant)
    }

    fn give_back(&self, grant: Self::Grant, why: Unsent, now: &Now) {
        self.limit.give_back(grant, why, now);
    }

    #[inline(always)]
    fn end(&self, pass: Self::Pass, end: End, now: &Now) {
        self.limit.end(pass, end, now);
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        self.limit.leave(ticket, now);
    }

    #[inline(always)]
    fn owes(&self, pass: &Self::Pass) -> bool {
        A::ASKS || self.limit.owes(pass)
    }

    fn renew(&self, grant: Self::Grant, now: &Now) -> Result<Self::Grant, Box<Rejected>> {
        self.limit.renew(grant, now)
    }

    fn answered(&self, pass: &mut Self::Pass, now: &Now) {
        self.limit.answered(pass, now);
    }

    fn honor(&self, pass: &Self::Pass, retry_after: Duration, now: &Now) {
        self.limit.honor(pass, retry_after, now);
    }

    fn used(&self, pass: &mut Self::Pass, units: u32, now: &Now) {
        self.limit.used(pass, units, now);
    }

    #[inline(always)]
    fn advertises(&self) -> bool {
        self.limit.advertises()
    }

    fn quotas(&self, pass: &Self::Pass, now: &Now, quotas: &mut Vec<Quota>) {
        self.limit.quotas(pass, now, quotas);
    }

    fn changed(&self) -> Option<Changed> {
        self.limit.changed()
    }
}

impl<G, C, A, D, Req> Admit<Req> for Metered<G, Policy<C, A, D>>
where
    G: Admit<Req>,
    C: Cost<Req>,
    A: Asks,
    D: Deadline<Req>,
{
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Grant, Self::Ticket> {
        self.limit.admit(self.policy.ask(inquiry), now)
    }

    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> Turn<Self::Grant> {
        let inquiry = self.policy.ask(inquiry);
        self.limit.poll_ticket(ticket, inquiry, cx, now)
    }

    fn wait(&self, inquiry: Inquiry<'_, Req, Self::Asked>, now: &Now) -> Option<Duration> {
        self.limit.wait(self.policy.ask(inquiry), now)
    }

    fn quotas_for(
        &self,
        mut inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
        quotas: &mut Vec<Quota>,
    ) {
        let limit = inquiry.of(|asked| &mut asked.1);
        self.limit.quotas_for(limit, now, quotas);
    }
}

impl<G, C, A, D, Res> Read<Res> for Metered<G, Policy<C, A, D>>
where
    G: Read<Res>,
    A: Actual<Res> + Asks,
{
    #[inline(always)]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        if let Some(units) = self.policy.actual.actual(response) {
            self.limit.used(pass, units, now);
        }
        self.limit.read(pass, response, now);
    }
}

impl<Req> Cost<Req> for UnitCost {
    #[inline(always)]
    fn cost(&self, _: &Req) -> u32 {
        1
    }

    #[inline(always)]
    fn cost_of(&self, _: &Req, said: u32) -> u32 {
        said
    }
}

impl<F, Req> Cost<Req> for ByRequest<F>
where
    F: Fn(&Req) -> u32,
{
    #[inline(always)]
    fn cost(&self, request: &Req) -> u32 {
        (self.0)(request)
    }
}

impl Asks for AsEstimated {
    const ASKS: bool = false;
}

impl<F> Asks for ByResponse<F> {
    const ASKS: bool = true;
}

impl<Res> Actual<Res> for AsEstimated {
    #[inline(always)]
    fn actual(&self, _: &Res) -> Option<u32> {
        None
    }
}

impl<F, T, Res> Actual<Res> for ByResponse<F>
where
    F: Fn(&Res) -> T,
    T: Into<Option<u32>>,
{
    fn actual(&self, response: &Res) -> Option<u32> {
        (self.0)(response).into()
    }
}

impl<Req> Deadline<Req> for NoDeadline {
    #[inline(always)]
    fn deadline(&self, _: &Req) -> Option<Instant> {
        None
    }
}

impl<F, Req> Deadline<Req> for ByRequest<F>
where
    F: Fn(&Req) -> Option<Instant>,
{
    fn deadline(&self, request: &Req) -> Option<Instant> {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for ByRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRequest")
    }
}

impl<F> fmt::Debug for ByResponse<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByResponse")
    }
}
