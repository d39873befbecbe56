//! Optional gates: `None` admits everything.

use std::{ops::ControlFlow, task::Context};

use crate::{
    Rejected,
    ambient::clock::Now,
    gate::{
        Admission, Admit, CallEvent, Closes, Completion, Controlled, Gate, Inquiry, LimitedCall,
        Quoted, Read, TicketPoll, Unsent,
    },
    protocol::Hint,
};

impl<G: Controlled> Controlled for Option<G> {
    type Handle = Option<G::Handle>;

    fn control(&self) -> Self::Handle {
        self.as_ref().map(Controlled::control)
    }

    fn is_on(&self) -> bool {
        self.as_ref().is_some_and(Controlled::is_on)
    }

    fn control_if_on(&self) -> Self::Handle {
        let gate = self.as_ref().filter(|gate| gate.is_on());
        gate.map(Controlled::control)
    }
}

impl<G: Gate> Gate for Option<G> {
    type Pass = Option<G::Pass>;
    type Ticket = G::Ticket;
    type Asked = G::Asked;
    const CLOSES: bool = G::CLOSES;

    fn give_back(&self, pass: Self::Pass, why: Unsent, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.give_back(pass, why, now);
        }
    }

    #[inline(always)]
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.end(pass, how, now);
        }
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        if let Some(gate) = self {
            gate.leave(ticket, now);
        }
    }

    #[inline(always)]
    fn owes(&self, pass: &Self::Pass) -> bool {
        self.as_ref()
            .zip(pass.as_ref())
            .is_some_and(|(gate, pass)| gate.owes(pass))
    }

    fn renew(&self, pass: &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        if let (Some(gate), Some(held)) = (self, pass.as_mut()) {
            let renewed = gate.renew(held, now);
            return renewed.inspect_err(|_| *pass = None);
        }
        Ok(())
    }

    #[inline(always)]
    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.event(pass, event, now);
        }
    }

    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.told(pass, hint, now);
        }
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.as_ref().is_none_or(Gate::is_open)
    }

    #[inline(always)]
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        self.as_ref()
            .map_or(ControlFlow::Continue(()), |gate| gate.closing(visit))
    }
}

impl<G: Admit<Req>, Req> Admit<Req> for Option<G> {
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Self::Ticket> {
        match self.as_ref().map(|gate| gate.admit(inquiry, now)) {
            None => Admission::Granted(None),
            Some(Admission::Granted(pass)) => Admission::Granted(Some(pass)),
            Some(Admission::Queued(ticket)) => Admission::Queued(ticket),
            Some(Admission::Rejected(rejected)) => Admission::Rejected(rejected),
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<Self::Pass> {
        match self
            .as_ref()
            .map(|gate| gate.poll_ticket(ticket, inquiry, cx, now))
        {
            None => TicketPoll::Granted(None),
            Some(TicketPoll::Granted(pass)) => TicketPoll::Granted(Some(pass)),
            Some(TicketPoll::Queued) => TicketPoll::Queued,
            Some(TicketPoll::Rejected(rejected)) => TicketPoll::Rejected(rejected),
        }
    }

    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, Self::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let Some(gate) = self else { return };
        let call = match call {
            LimitedCall::Sent(Some(pass)) => LimitedCall::Sent(pass),
            LimitedCall::Sent(None) => return,
            LimitedCall::Unsent(inquiry, why) => LimitedCall::Unsent(inquiry, why),
        };
        gate.limits(call, visit);
    }
}

impl<G: Read<Res>, Res> Read<Res> for Option<G> {
    #[inline(always)]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.read(pass, response, now);
        }
    }
}
