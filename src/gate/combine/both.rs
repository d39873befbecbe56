//! Two gates as one, and so any number.

use std::{fmt, mem, task::Context, time::Duration};

use crate::{
    Outcome, Rejected, RejectedKind,
    ambient::clock::Now,
    gate::{Access, Admission, Admit, Changed, End, Gate, Inquiry, Read, Turn, Unsent},
    protocol::Quota,
};

/// Two gates: a call must be admitted by both, the first asked first. What the first granted is
/// given back if the second rejects. A call that waits for the second holds what the first granted,
/// and the first is asked again after that wait.
#[derive(Debug, Clone)]
pub struct Both<A, B> {
    pub(crate) first: A,
    pub(crate) second: B,
}

/// A place in the queue of one of two gates.
#[doc(hidden)]
pub enum BothTicket<A: Gate, B: Gate> {
    /// The first has not admitted the call yet.
    First(A::Ticket),
    /// The second has not; the first has.
    Second(A::Grant, B::Ticket),
    /// Between the two.
    Nothing,
}

/// One gate or a tuple of them, from the outside in.
pub trait IntoGate {
    /// The one gate.
    type Gate: Gate;

    /// Puts them together.
    fn into_gate(self) -> Self::Gate;
}

impl<A: Gate, B: Gate> Both<A, B> {
    pub(crate) fn new(first: A, second: B) -> Self {
        Self { first, second }
    }

    /// Asks the second for a call that the first has admitted.
    #[inline(always)]
    fn admit_second<Req>(
        &self,
        grant: A::Grant,
        inquiry: Inquiry<'_, Req, B::Asked>,
        now: &Now,
    ) -> Admission<(A::Grant, B::Grant), BothTicket<A, B>>
    where
        B: Admit<Req>,
    {
        let mut held = Returned {
            gate: &self.first,
            grant: Some(grant),
            now,
        };
        match self.second.admit(inquiry, now) {
            Admission::Granted(second) => match held.grant.take() {
                Some(first) => Admission::Granted((first, second)),
                None => unreachable!("held until here"),
            },
            Admission::Queued(ticket) => match held.grant.take() {
                Some(first) => Admission::Queued(BothTicket::Second(first, ticket)),
                None => unreachable!("held until here"),
            },
            Admission::Rejected(rejected) => {
                drop(held);
                Admission::Rejected(rejected)
            }
        }
    }
}

/// Makes a hint one that is enough for both gates.
fn lengthen<G: Admit<Req>, Req>(
    mut rejected: Box<Rejected>,
    other: &G,
    inquiry: Inquiry<'_, Req, G::Asked>,
    now: &Now,
) -> Box<Rejected> {
    if rejected.kind == RejectedKind::RateLimited {
        let wait = other.wait(inquiry, now);
        rejected.retry_after = rejected
            .retry_after
            .map(|own| own.max(wait.unwrap_or_default()));
    }
    rejected
}

impl<A: Gate, B: Gate> Gate for Both<A, B> {
    type Grant = (A::Grant, B::Grant);
    type Pass = (A::Pass, B::Pass);
    type Ticket = BothTicket<A, B>;
    type Asked = (A::Asked, B::Asked);

    #[inline(always)]
    fn send(&self, (first, second): Self::Grant) -> Self::Pass {
        (self.first.send(first), self.second.send(second))
    }

    fn give_back(&self, (first, second): Self::Grant, why: Unsent, now: &Now) {
        self.second.give_back(second, why, now);
        self.first.give_back(first, why, now);
    }

    #[inline(always)]
    fn end(&self, (first, second): Self::Pass, end: End, now: &Now) {
        if self.second.owes(&second) {
            self.second.end(second, end, now);
        }
        if self.first.owes(&first) {
            self.first.end(first, end, now);
        }
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        match ticket {
            BothTicket::First(ticket) => self.first.leave(ticket, now),
            BothTicket::Second(grant, ticket) => {
                self.second.leave(ticket, now);
                self.first.give_back(grant, Unsent::Abandoned, now);
            }
            BothTicket::Nothing => {}
        }
    }

    #[inline(always)]
    fn owes(&self, (first, second): &Self::Pass) -> bool {
        self.first.owes(first) || self.second.owes(second)
    }

    fn renew(&self, (first, second): Self::Grant, now: &Now) -> Result<Self::Grant, Box<Rejected>> {
        let mut held = Returned {
            gate: &self.second,
            grant: Some(second),
            now,
        };
        let first = self.first.renew(first, now)?;
        let second = held.grant.take();
        let mut held = Returned {
            gate: &self.first,
            grant: Some(first),
            now,
        };
        let second = second
            .map(|second| self.second.renew(second, now))
            .transpose()?;
        held.grant
            .take()
            .zip(second)
            .map_or_else(|| unreachable!("held until here"), Ok)
    }

    fn answered(&self, (first, second): &mut Self::Pass, now: &Now) {
        self.first.answered(first, now);
        self.second.answered(second, now);
    }

    fn upgraded(&self, (first, second): Self::Pass, outcome: Outcome, now: &Now) -> Self::Pass {
        let second = self.second.upgraded(second, outcome, now);
        (self.first.upgraded(first, outcome, now), second)
    }

    fn honor(&self, (first, second): &Self::Pass, retry_after: Duration, now: &Now) {
        self.first.honor(first, retry_after, now);
        self.second.honor(second, retry_after, now);
    }

    fn used(&self, (first, second): &mut Self::Pass, units: u32, now: &Now) {
        self.first.used(first, units, now);
        self.second.used(second, units, now);
    }

    #[inline(always)]
    fn advertises(&self) -> bool {
        self.first.advertises() || self.second.advertises()
    }

    fn quotas(&self, (first, second): &Self::Pass, now: &Now, quotas: &mut Vec<Quota>) {
        self.first.quotas(first, now, quotas);
        self.second.quotas(second, now, quotas);
    }

    /// The first that is not open decides, as it does if each has a layer of its own.
    #[inline(always)]
    fn access(&self, now: &Now) -> Access {
        match self.first.access(now) {
            Access::Open => self.second.access(now),
            closed => closed,
        }
    }

    fn changed(&self) -> Option<Changed> {
        match (self.first.changed(), self.second.changed()) {
            (Some(mut first), Some(mut second)) => {
                Some(Box::pin(std::future::poll_fn(move |cx| {
                    let ready =
                        first.as_mut().poll(cx).is_ready() || second.as_mut().poll(cx).is_ready();
                    if ready {
                        std::task::Poll::Ready(())
                    } else {
                        std::task::Poll::Pending
                    }
                })))
            }
            (first, second) => first.or(second),
        }
    }

    fn until_change(&self, now: &Now) -> Option<Duration> {
        match (self.first.until_change(now), self.second.until_change(now)) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        }
    }

    fn expire(&self, now: &Now) {
        self.first.expire(now);
        self.second.expire(now);
    }
}

impl<A, B, Req> Admit<Req> for Both<A, B>
where
    A: Admit<Req>,
    B: Admit<Req>,
{
    #[inline(always)]
    fn admit(
        &self,
        mut inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Grant, Self::Ticket> {
        match self.first.admit(inquiry.of(|asked| &mut asked.0), now) {
            Admission::Granted(grant) => {
                match self.admit_second(grant, inquiry.of(|asked| &mut asked.1), now) {
                    Admission::Rejected(rejected) => {
                        let first = inquiry.of(|asked| &mut asked.0);
                        Admission::Rejected(lengthen(rejected, &self.first, first, now))
                    }
                    admission => admission,
                }
            }
            Admission::Queued(ticket) => Admission::Queued(BothTicket::First(ticket)),
            Admission::Rejected(rejected) => {
                let second = inquiry.of(|asked| &mut asked.1);
                Admission::Rejected(lengthen(rejected, &self.second, second, now))
            }
        }
    }

    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        mut inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> Turn<Self::Grant> {
        if let BothTicket::First(first) = ticket {
            let own = inquiry.of(|asked| &mut asked.0);
            let grant = match self.first.poll_ticket(first, own, cx, now) {
                Turn::Granted(grant) => grant,
                Turn::Queued(wake) => return Turn::Queued(wake),
                Turn::Rejected(rejected) => return Turn::Rejected(rejected),
            };
            *ticket = BothTicket::Nothing;
            match self.admit_second(grant, inquiry.of(|asked| &mut asked.1), now) {
                Admission::Granted(both) => return Turn::Granted(both),
                Admission::Rejected(rejected) => return Turn::Rejected(rejected),
                Admission::Queued(queued) => *ticket = queued,
            }
        }
        let BothTicket::Second(_, second) = ticket else {
            unreachable!("polled after its turn")
        };
        let own = inquiry.of(|asked| &mut asked.1);
        let second = match self.second.poll_ticket(second, own, cx, now) {
            Turn::Granted(grant) => Ok(grant),
            Turn::Queued(wake) => return Turn::Queued(wake),
            Turn::Rejected(rejected) => Err(rejected),
        };
        let BothTicket::Second(first, _) = mem::replace(ticket, BothTicket::Nothing) else {
            unreachable!("it was just polled")
        };
        match second {
            Err(rejected) => {
                self.first.give_back(first, Unsent::Abandoned, now);
                Turn::Rejected(rejected)
            }
            Ok(second) => {
                let mut held = Returned {
                    gate: &self.second,
                    grant: Some(second),
                    now,
                };
                match self.first.renew(first, now) {
                    Err(rejected) => Turn::Rejected(rejected),
                    Ok(first) => match held.grant.take() {
                        Some(second) => Turn::Granted((first, second)),
                        None => unreachable!("held until here"),
                    },
                }
            }
        }
    }

    fn wait(&self, mut inquiry: Inquiry<'_, Req, Self::Asked>, now: &Now) -> Option<Duration> {
        let first = self.first.wait(inquiry.of(|asked| &mut asked.0), now);
        let second = self.second.wait(inquiry.of(|asked| &mut asked.1), now);
        match (first, second) {
            (Some(first), Some(second)) => Some(first.max(second)),
            (first, second) => first.or(second),
        }
    }

    fn quotas_for(
        &self,
        mut inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
        quotas: &mut Vec<Quota>,
    ) {
        let first = inquiry.of(|asked| &mut asked.0);
        self.first.quotas_for(first, now, quotas);
        let second = inquiry.of(|asked| &mut asked.1);
        self.second.quotas_for(second, now, quotas);
    }
}

impl<A: Read<Res>, B: Read<Res>, Res> Read<Res> for Both<A, B> {
    #[inline(always)]
    fn read(&self, (first, second): &mut Self::Pass, response: &Res, now: &Now) {
        self.first.read(first, response, now);
        self.second.read(second, response, now);
    }
}

/// A grant that goes back unless it is taken: a later gate rejects, or panics.
struct Returned<'a, G: Gate> {
    gate: &'a G,
    grant: Option<G::Grant>,
    now: &'a Now,
}

impl<G: Gate> Drop for Returned<'_, G> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.gate.give_back(grant, Unsent::Abandoned, self.now);
        }
    }
}

impl<G: Gate> IntoGate for G {
    type Gate = G;

    fn into_gate(self) -> G {
        self
    }
}

impl<A: Gate, B: Gate> IntoGate for (A, B) {
    type Gate = Both<A, B>;

    fn into_gate(self) -> Self::Gate {
        Both::new(self.0, self.1)
    }
}

impl<A: Gate, B: Gate, C: Gate> IntoGate for (A, B, C) {
    type Gate = Both<A, Both<B, C>>;

    fn into_gate(self) -> Self::Gate {
        Both::new(self.0, Both::new(self.1, self.2))
    }
}

impl<A: Gate, B: Gate, C: Gate, D: Gate> IntoGate for (A, B, C, D) {
    type Gate = Both<A, Both<B, Both<C, D>>>;

    fn into_gate(self) -> Self::Gate {
        let (first, second, third, fourth) = self;
        Both::new(first, Both::new(second, Both::new(third, fourth)))
    }
}

impl<A: Gate, B: Gate> fmt::Debug for BothTicket<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First(_) => "First",
            Self::Second(..) => "Second",
            Self::Nothing => "Nothing",
        })
    }
}
