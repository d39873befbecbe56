//! A gate that may be there or not: `None` admits everything.

use std::{task::Context, time::Duration};

use crate::{
    Outcome, Rejected,
    ambient::clock::Now,
    gate::{Access, Admission, Admit, Changed, End, Gate, Inquiry, Read, Turn, Unsent},
    protocol::Quota,
};

impl<G: Gate> Gate for Option<G> {
    type Grant = Option<G::Grant>;
    type Pass = Option<G::Pass>;
    type Ticket = G::Ticket;
    type Asked = G::Asked;

    #[inline(always)]
    fn send(&self, grant: Self::Grant) -> Self::Pass {
        self.as_ref()
            .zip(grant)
            .map(|(gate, grant)| gate.send(grant))
    }

    fn give_back(&self, grant: Self::Grant, why: Unsent, now: &Now) {
        if let (Some(gate), Some(grant)) = (self, grant) {
            gate.give_back(grant, why, now);
        }
    }

    #[inline(always)]
    fn end(&self, pass: Self::Pass, end: End, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.end(pass, end, now);
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

    fn renew(&self, grant: Self::Grant, now: &Now) -> Result<Self::Grant, Box<Rejected>> {
        self.as_ref()
            .zip(grant)
            .map(|(gate, grant)| gate.renew(grant, now))
            .transpose()
    }

    fn answered(&self, pass: &mut Self::Pass, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.answered(pass, now);
        }
    }

    fn upgraded(&self, pass: Self::Pass, outcome: Outcome, now: &Now) -> Self::Pass {
        self.as_ref()
            .zip(pass)
            .map(|(gate, pass)| gate.upgraded(pass, outcome, now))
    }

    fn honor(&self, pass: &Self::Pass, retry_after: Duration, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.honor(pass, retry_after, now);
        }
    }

    fn used(&self, pass: &mut Self::Pass, units: u32, now: &Now) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.used(pass, units, now);
        }
    }

    #[inline(always)]
    fn advertises(&self) -> bool {
        self.as_ref().is_some_and(Gate::advertises)
    }

    fn quotas(&self, pass: &Self::Pass, now: &Now, quotas: &mut Vec<Quota>) {
        if let (Some(gate), Some(pass)) = (self, pass) {
            gate.quotas(pass, now, quotas);
        }
    }

    #[inline(always)]
    fn access(&self, now: &Now) -> Access {
        self.as_ref().map_or(Access::Open, |gate| gate.access(now))
    }

    fn changed(&self) -> Option<Changed> {
        self.as_ref().and_then(Gate::changed)
    }

    fn until_change(&self, now: &Now) -> Option<Duration> {
        self.as_ref().and_then(|gate| gate.until_change(now))
    }

    fn expire(&self, now: &Now) {
        if let Some(gate) = self {
            gate.expire(now);
        }
    }
}

impl<G: Admit<Req>, Req> Admit<Req> for Option<G> {
    #[inline(always)]
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Grant, Self::Ticket> {
        match self.as_ref().map(|gate| gate.admit(inquiry, now)) {
            None => Admission::Granted(None),
            Some(Admission::Granted(grant)) => Admission::Granted(Some(grant)),
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
    ) -> Turn<Self::Grant> {
        match self
            .as_ref()
            .map(|gate| gate.poll_ticket(ticket, inquiry, cx, now))
        {
            None => Turn::Granted(None),
            Some(Turn::Granted(grant)) => Turn::Granted(Some(grant)),
            Some(Turn::Queued(wake)) => Turn::Queued(wake),
            Some(Turn::Rejected(rejected)) => Turn::Rejected(rejected),
        }
    }

    fn wait(&self, inquiry: Inquiry<'_, Req, Self::Asked>, now: &Now) -> Option<Duration> {
        self.as_ref().and_then(|gate| gate.wait(inquiry, now))
    }

    fn quotas_for(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
        quotas: &mut Vec<Quota>,
    ) {
        if let Some(gate) = self {
            gate.quotas_for(inquiry, now, quotas);
        }
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
