//! Two gates as one, and thus any number of gates.

use std::{fmt, mem, ops::ControlFlow, task::Context, time::Duration};

use crate::{
    Rejected, RejectedKind,
    ambient::clock::Now,
    gate::{
        Admission, Admit, CallEvent, Closes, Completion, Gate, Inquiry, LimitedCall, Quoted, Read,
        TicketPoll, Unsent, Visit,
        combine::held::{HeldPass, HeldTicket},
    },
    protocol::Hint,
};

/// Two gates in order. Both must admit a call, and the first is asked first. If the second rejects,
/// what the first granted is given back. A call that waits for the second holds what the first
/// granted, and the first is asked again after that wait.
#[derive(Debug, Clone)]
pub struct Chain<A, B> {
    pub(crate) first: A,
    pub(crate) second: B,
}

/// A place in the queue of one of two gates.
pub enum ChainTicket<A: Gate, B: Gate> {
    /// The first gate has not admitted the call yet.
    First(A::Ticket),
    /// The first gate has admitted the call, and the second has not.
    Second(A::Pass, B::Ticket),
    /// The call has been granted or rejected.
    Over,
}

/// A gate, or a tuple of gates from the outside in.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no gate",
    label = "a gate is made by `.gate()?` of a builder",
    note = "up to four gates stand in a tuple, from the outside in"
)]
pub trait IntoGate {
    /// The combined gate.
    type Gate: Gate;

    /// Combines the gates into one.
    fn into_gate(self) -> Self::Gate;
}

impl<A: Gate, B: Gate> Chain<A, B> {
    pub(crate) fn new(first: A, second: B) -> Self {
        Self { first, second }
    }

    /// Asks the second gate about a call that the first has admitted. If `lengthens`, its rejection
    /// takes into account when the first would admit the call again.
    #[inline(always)]
    fn admit_second<Req>(
        &self,
        first: A::Pass,
        inquiry: &mut Inquiry<'_, Req, (A::Asked, B::Asked)>,
        lengthens: bool,
        now: &Now,
    ) -> Admission<(A::Pass, B::Pass), ChainTicket<A, B>>
    where
        A: Admit<Req>,
        B: Admit<Req>,
    {
        let held = HeldPass::new(&self.first, first, now);
        match self.second.admit(inquiry.of(|asked| &mut asked.1), now) {
            Admission::Granted(second) => Admission::Granted((held.take(), second)),
            Admission::Queued(ticket) => {
                Admission::Queued(ChainTicket::Second(held.take(), ticket))
            }
            Admission::Rejected(rejected) => {
                drop(held);
                if !lengthens {
                    return Admission::Rejected(rejected);
                }
                let first = inquiry.of(|asked| &mut asked.0);
                Admission::Rejected(lengthen(rejected, &self.first, first, now))
            }
        }
    }

    /// Lets a call wait for the first gate, unless the second never admits it.
    #[cold]
    fn queued<Req>(
        &self,
        ticket: A::Ticket,
        inquiry: &mut Inquiry<'_, Req, (A::Asked, B::Asked)>,
        now: &Now,
    ) -> Admission<(A::Pass, B::Pass), ChainTicket<A, B>>
    where
        A: Admit<Req>,
        B: Admit<Req>,
    {
        let held = HeldTicket::new(&self.first, ticket, now);
        if wait_of(&self.second, inquiry.of(|asked| &mut asked.1), now).is_none() {
            if let Some(rejected) = refusal(&self.second, inquiry.of(|asked| &mut asked.1), now) {
                return Admission::Rejected(rejected);
            }
        }
        Admission::Queued(ChainTicket::First(held.take()))
    }

    /// Asks the first gate again, once the second has admitted a call that waited for it.
    fn renew_first(&self, pass: (A::Pass, B::Pass), now: &Now) -> TicketPoll<(A::Pass, B::Pass)> {
        let mut held = HeldPass::new(self, pass, now);
        match self.first.renew(&mut held.pass.0, now) {
            Ok(()) => TicketPoll::Granted(held.take()),
            Err(rejected) => TicketPoll::Rejected(rejected),
        }
    }
}

/// Returns how long another gate needs until a call fits, or `None` if it never does.
fn wait_of<G: Admit<Req>, Req>(
    other: &G,
    inquiry: Inquiry<'_, Req, G::Asked>,
    now: &Now,
) -> Option<Duration> {
    let mut longest = Some(Duration::ZERO);
    let call = LimitedCall::Unsent(inquiry, Visit::ForWait);
    other.limits(call, &mut |limit| {
        longest = longest.and_then(|longest| Some(longest.max(limit.wait(now)?)));
    });
    longest
}

/// Returns the rejection of a gate that never admits the call. `None` if it has changed meanwhile
/// and may admit it.
#[cold]
fn refusal<G: Admit<Req>, Req>(
    gate: &G,
    inquiry: Inquiry<'_, Req, G::Asked>,
    now: &Now,
) -> Option<Box<Rejected>> {
    match gate.admit(inquiry, now) {
        Admission::Rejected(rejected) => return Some(rejected),
        Admission::Granted(pass) => gate.give_back(pass, Unsent::Abandoned, now),
        Admission::Queued(ticket) => gate.leave(ticket, now),
    }
    None
}

/// Raises the `retry_after` of a rejection to what another gate needs too. A call that the other
/// gate never admits need not come back: the rejection is that gate's then.
fn lengthen<G: Admit<Req>, Req>(
    mut rejected: Box<Rejected>,
    other: &G,
    mut inquiry: Inquiry<'_, Req, G::Asked>,
    now: &Now,
) -> Box<Rejected> {
    if rejected.kind == RejectedKind::RateLimited {
        let Some(wait) = wait_of(other, inquiry.of(|asked| asked), now) else {
            return refusal(other, inquiry, now).unwrap_or(rejected);
        };
        rejected.retry_after = rejected.retry_after.map(|own| own.max(wait));
    }
    rejected
}

impl<A: Gate, B: Gate> Gate for Chain<A, B> {
    type Pass = (A::Pass, B::Pass);
    type Ticket = ChainTicket<A, B>;
    type Asked = (A::Asked, B::Asked);
    const CLOSES: bool = A::CLOSES || B::CLOSES;

    fn give_back(&self, (first, second): Self::Pass, why: Unsent, now: &Now) {
        self.second.give_back(second, why, now);
        self.first.give_back(first, why, now);
    }

    #[inline(always)]
    fn end(&self, (first, second): Self::Pass, how: Completion, now: &Now) {
        if self.second.owes(&second) {
            self.second.end(second, how, now);
        }
        if self.first.owes(&first) {
            self.first.end(first, how, now);
        }
    }

    fn leave(&self, ticket: Self::Ticket, now: &Now) {
        match ticket {
            ChainTicket::First(ticket) => self.first.leave(ticket, now),
            ChainTicket::Second(first, ticket) => {
                self.second.leave(ticket, now);
                self.first.give_back(first, Unsent::Abandoned, now);
            }
            ChainTicket::Over => {}
        }
    }

    #[inline(always)]
    fn owes(&self, (first, second): &Self::Pass) -> bool {
        self.first.owes(first) || self.second.owes(second)
    }

    fn renew(&self, (first, second): &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        let pass = (mem::take(first), mem::take(second));
        let mut held = HeldPass::new(self, pass, now);
        self.first.renew(&mut held.pass.0, now)?;
        self.second.renew(&mut held.pass.1, now)?;
        (*first, *second) = held.take();
        Ok(())
    }

    #[inline(always)]
    fn event(&self, (first, second): &mut Self::Pass, event: CallEvent, now: &Now) {
        self.first.event(first, event, now);
        self.second.event(second, event, now);
    }

    fn told(&self, (first, second): &Self::Pass, hint: &Hint, now: &Now) {
        self.first.told(first, hint, now);
        self.second.told(second, hint, now);
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.first.is_open() && self.second.is_open()
    }

    #[inline(always)]
    fn closing<T>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<T>) -> ControlFlow<T> {
        self.first.closing(visit)?;
        self.second.closing(visit)
    }
}

impl<A, B, Req> Admit<Req> for Chain<A, B>
where
    A: Admit<Req>,
    B: Admit<Req>,
{
    #[inline(always)]
    fn admit(
        &self,
        mut inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Self::Ticket> {
        match self.first.admit(inquiry.of(|asked| &mut asked.0), now) {
            Admission::Granted(pass) => self.admit_second(pass, &mut inquiry, true, now),
            Admission::Queued(ticket) => self.queued(ticket, &mut inquiry, now),
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
    ) -> TicketPoll<Self::Pass> {
        loop {
            match ticket {
                ChainTicket::First(first) => {
                    let own = inquiry.of(|asked| &mut asked.0);
                    let pass = match self.first.poll_ticket(first, own, cx, now) {
                        TicketPoll::Granted(pass) => pass,
                        TicketPoll::Queued => return TicketPoll::Queued,
                        TicketPoll::Rejected(rejected) => {
                            *ticket = ChainTicket::Over;
                            let second = inquiry.of(|asked| &mut asked.1);
                            let rejected = lengthen(rejected, &self.second, second, now);
                            return TicketPoll::Rejected(rejected);
                        }
                    };
                    *ticket = ChainTicket::Over;
                    match self.admit_second(pass, &mut inquiry, false, now) {
                        Admission::Granted(both) => return TicketPoll::Granted(both),
                        Admission::Rejected(rejected) => return TicketPoll::Rejected(rejected),
                        Admission::Queued(queued) => *ticket = queued,
                    }
                }
                ChainTicket::Second(first, second) => {
                    let own = inquiry.of(|asked| &mut asked.1);
                    let second = match self.second.poll_ticket(second, own, cx, now) {
                        TicketPoll::Granted(pass) => Ok(pass),
                        TicketPoll::Queued => return TicketPoll::Queued,
                        TicketPoll::Rejected(rejected) => Err(rejected),
                    };
                    let first = mem::take(first);
                    *ticket = ChainTicket::Over;
                    return match second {
                        Ok(second) => self.renew_first((first, second), now),
                        Err(rejected) => {
                            self.first.give_back(first, Unsent::Abandoned, now);
                            TicketPoll::Rejected(rejected)
                        }
                    };
                }
                ChainTicket::Over => return TicketPoll::Queued,
            }
        }
    }

    #[inline(always)]
    fn limits(
        &self,
        mut call: LimitedCall<'_, Req, Self::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let first = call.of(|pass| &pass.0, |asked| &mut asked.0);
        self.first.limits(first, visit);
        let second = call.of(|pass| &pass.1, |asked| &mut asked.1);
        self.second.limits(second, visit);
    }
}

impl<A: Read<Res>, B: Read<Res>, Res> Read<Res> for Chain<A, B> {
    #[inline(always)]
    fn read(&self, (first, second): &mut Self::Pass, response: &Res, now: &Now) {
        self.first.read(first, response, now);
        self.second.read(second, response, now);
    }
}

impl<G: Gate> IntoGate for G {
    type Gate = G;

    fn into_gate(self) -> G {
        self
    }
}

impl<A: Gate, B: Gate> IntoGate for (A, B) {
    type Gate = Chain<A, B>;

    fn into_gate(self) -> Self::Gate {
        Chain::new(self.0, self.1)
    }
}

impl<A: Gate, B: Gate, C: Gate> IntoGate for (A, B, C) {
    type Gate = Chain<A, Chain<B, C>>;

    fn into_gate(self) -> Self::Gate {
        Chain::new(self.0, Chain::new(self.1, self.2))
    }
}

impl<A: Gate, B: Gate, C: Gate, D: Gate> IntoGate for (A, B, C, D) {
    type Gate = Chain<A, Chain<B, Chain<C, D>>>;

    fn into_gate(self) -> Self::Gate {
        let (first, second, third, fourth) = self;
        Chain::new(first, Chain::new(second, Chain::new(third, fourth)))
    }
}

impl<A: Gate, B: Gate> fmt::Debug for ChainTicket<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First(_) => "First",
            Self::Second(..) => "Second",
            Self::Over => "Over",
        })
    }
}
