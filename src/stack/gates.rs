//! The gates of a client's stack, which decide on requests in a `Timed`.

use std::{ops::ControlFlow, task::Context};

use super::timed::{InTimed, Timed};
use crate::{
    Rejected,
    ambient::clock::Now,
    bulkhead::BulkheadGate,
    circuit_breaker::CircuitGate,
    gate::{
        Admission, Admit, Asking, CallEvent, Chain, Closes, Completion, Gate, Inquiry, Keyed,
        LimitedCall, Quoted, Read, TicketPoll, Unsent,
    },
    keyed::ByHost,
    protocol::Hint,
    rate_limit::LimitGate,
    run::Call,
    throttle::ThrottleGate,
};

/// The gates of a client: a circuit and a throttle for each host, a rate, and a bulkhead for each
/// host. `L` and `B` replace the last two.
pub type ClientGates<
    W = ByHost,
    L = Option<Asking<LimitGate>>,
    B = Asking<Keyed<W, BulkheadGate>>,
> = InTimed<Chain<Keyed<W, CircuitGate>, Chain<Option<Keyed<W, ThrottleGate>>, Chain<L, B>>>>;

impl<G: Gate> Gate for InTimed<G> {
    type Pass = G::Pass;
    type Ticket = G::Ticket;
    type Asked = G::Asked;
    const CLOSES: bool = G::CLOSES;

    fn give_back(&self, pass: Self::Pass, why: Unsent, now: &Now) {
        self.0.give_back(pass, why, now);
    }

    #[inline(always)]
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now) {
        self.0.end(pass, how, now);
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        self.0.leave(ticket, now);
    }

    #[inline(always)]
    fn owes(&self, pass: &Self::Pass) -> bool {
        self.0.owes(pass)
    }

    fn renew(&self, pass: &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        self.0.renew(pass, now)
    }

    #[inline(always)]
    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        self.0.event(pass, event, now);
    }

    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        self.0.told(pass, hint, now);
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    #[inline(always)]
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        self.0.closing(visit)
    }
}

impl<G: Admit<Req>, Req> Admit<Timed<Req>> for InTimed<G> {
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Timed<Req>, G::Asked>,
        now: &Now,
    ) -> Admission<G::Pass, G::Ticket> {
        let demand = inquiry.request.demand(inquiry.demand);
        let inquiry = inquiry.request.within(&demand, inquiry.asked);
        self.0.admit(inquiry, now)
    }

    fn poll_ticket(
        &self,
        ticket: &mut G::Ticket,
        inquiry: Inquiry<'_, Timed<Req>, G::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<G::Pass> {
        let demand = inquiry.request.demand(inquiry.demand);
        let inquiry = inquiry.request.within(&demand, inquiry.asked);
        self.0.poll_ticket(ticket, inquiry, cx, now)
    }

    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Timed<Req>, G::Pass, G::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        match call {
            LimitedCall::Sent(pass) => self.0.limits(LimitedCall::Sent(pass), visit),
            LimitedCall::Unsent(inquiry, why) => {
                let demand = inquiry.request.demand(inquiry.demand);
                let inquiry = inquiry.request.within(&demand, inquiry.asked);
                self.0.limits(LimitedCall::Unsent(inquiry, why), visit);
            }
        }
    }
}

/// A call of a plain function has all its details already.
impl<G: Admit<Call<K>>, K> Admit<Call<K>> for InTimed<G> {
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Call<K>, G::Asked>,
        now: &Now,
    ) -> Admission<G::Pass, G::Ticket> {
        self.0.admit(inquiry, now)
    }

    fn poll_ticket(
        &self,
        ticket: &mut G::Ticket,
        inquiry: Inquiry<'_, Call<K>, G::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<G::Pass> {
        self.0.poll_ticket(ticket, inquiry, cx, now)
    }

    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Call<K>, G::Pass, G::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        self.0.limits(call, visit);
    }
}

impl<G: Read<Res>, Res> Read<Res> for InTimed<G> {
    #[inline(always)]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        self.0.read(pass, response, now);
    }
}
