//! A gate that may be there or not: `None` admits everything.

use std::{task::Context, time::Duration};

use crate::{
    Outcome, Rejected,
    ambient::clock::Now,
    gate::{Admission, Admit, Changed, Demand, End, Gate, Read, Turn, Unsent},
    protocol::Quota,
};

impl<G: Gate> Gate for Option<G> {
    type Grant = Option<G::Grant>;
    type Pass = Option<G::Pass>;
    type Ticket = G::Ticket;

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
    fn is_closed_to_all(&self, now: &Now) -> bool {
        self.as_ref().is_some_and(|gate| gate.is_closed_to_all(now))
    }

    #[inline(always)]
    fn backpressure(&self) -> bool {
        self.as_ref().is_some_and(Gate::backpressure)
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
        request: &Req,
        demand: &Demand,
        now: &Now,
    ) -> Admission<Self::Grant, Self::Ticket> {
        match self.as_ref().map(|gate| gate.admit(request, demand, now)) {
            None => Admission::Granted(None),
            Some(Admission::Granted(grant)) => Admission::Granted(Some(grant)),
            Some(Admission::Queued(ticket)) => Admission::Queued(ticket),
            Some(Admission::Rejected(rejected)) => Admission::Rejected(rejected),
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        request: &Req,
        demand: &Demand,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> Turn<Self::Grant> {
        match self
            .as_ref()
            .map(|gate| gate.poll_ticket(ticket, request, demand, cx, now))
        {
            None => Turn::Granted(None),
            Some(Turn::Granted(grant)) => Turn::Granted(Some(grant)),
            Some(Turn::Queued(wake)) => Turn::Queued(wake),
            Some(Turn::Rejected(rejected)) => Turn::Rejected(rejected),
        }
    }

    fn wait(&self, request: &Req, demand: &Demand, now: &Now) -> Option<Duration> {
        self.as_ref()
            .and_then(|gate| gate.wait(request, demand, now))
    }

    fn quotas_for(&self, request: &Req, now: &Now, quotas: &mut Vec<Quota>) {
        if let Some(gate) = self {
            gate.quotas_for(request, now, quotas);
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
