//! What a pattern provides to be plugged into Tower.

use std::{any::Any, fmt, mem, ops::ControlFlow, pin::Pin, task::Context, time::Duration};

use tokio::time::Instant;

use crate::{
    Criticality, Outcome, Rejected,
    ambient::clock::Now,
    protocol::{Hint, Quota},
};

/// What admits calls, apart from the types of requests and responses.
///
/// A call is *admitted* with a pass, which is [given back](Self::give_back) if the call is not sent
/// after all, and else lasts until the call [ends](Self::end). The default of a pass owes nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no gate",
    label = "a gate is made by `.gate()?` of a builder",
    note = "up to four gates stand in a tuple, from the outside in"
)]
pub trait Gate {
    /// What an admission owes until its call has ended.
    type Pass: Default + Send;
    /// A place in a queue; [`Infallible`](std::convert::Infallible) where no call waits.
    type Ticket;
    /// What closures have said of a request: its key, its cost. Kept until the call is sent or
    /// rejected, so that each is asked once: a second answer may be another, and may be dear.
    type Asked: Default;

    /// The call is not sent.
    fn give_back(&self, pass: Self::Pass, why: Unsent, now: &Now);

    /// The call has ended.
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now);

    /// A place in the queue is given up.
    fn leave(&self, ticket: Self::Ticket, now: &Now);

    /// Returns whether a sent call must report its end. If not, it holds no reference.
    fn owes(&self, pass: &Self::Pass) -> bool {
        let _ = pass;
        true
    }

    /// Checks after a wait elsewhere, before the call is sent, that the admission still stands.
    ///
    /// # Errors
    /// The call is rejected after all. The pass owes nothing then.
    fn renew(&self, pass: &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        let _ = (pass, now);
        Ok(())
    }

    /// Notes what happens between admission and end. By default an upgrade is the end.
    #[inline(always)]
    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        if let CallEvent::Upgraded(outcome) = event {
            end_upgraded(self, pass, outcome, now);
        }
    }

    /// Notes what the upstream tells of its own limits. By default nothing follows.
    #[inline]
    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        let _ = (pass, hint, now);
    }

    /// Visits the parts that close to all calls, from the outside in, until the visitor breaks off.
    /// By default there are none.
    #[inline(always)]
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        let _ = visit;
        ControlFlow::Continue(())
    }
}

/// The decision about a request.
pub trait Admit<Req>: Gate {
    /// Admits the call, rejects it, or gives it a place in a queue.
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Self::Ticket>;

    /// Returns whether the turn of a queued call has come.
    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<Self::Pass>;

    /// Visits the limits that a call is counted under. By default there are none.
    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, Self::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let _ = (call, visit);
    }
}

/// What a gate learns of a response before its protocol does.
pub trait Read<Res>: Gate {
    /// Sees a response. By default nothing follows.
    #[inline]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        let _ = (pass, response, now);
    }
}

/// A part of a gate that may close to all calls.
pub trait Closes {
    /// What `poll_ready` finds here, before there is a request.
    fn access(&self, now: &Now) -> Access;

    /// Ends with the next change of what [`access`](Self::access) says, counted from this call on.
    fn changed(&self) -> ClosedWatch;

    /// How long until time alone ends [`Access::Withheld`].
    fn until_change(&self, now: &Now) -> Option<Duration>;

    /// Ends what that time has ended.
    fn expire(&self, now: &Now);
}

/// What `poll_ready` finds at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Calls may be admitted.
    Open,
    /// A call that came now would be rejected, whatever its request. `poll_ready` is ready, so that
    /// it fails fast.
    Rejecting,
    /// The same under backpressure: `poll_ready` is pending until that has changed.
    Withheld,
}

/// A wait for a change of what is closed.
pub(crate) type ClosedWatch = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A limit that a call is counted under, as callers are told of it.
pub trait Quoted {
    /// The limit and what is left of it, each in a form that a protocol can write.
    fn quotas(&self, now: &Now, quotas: &mut Vec<Quota>);

    /// How long until the call would fit.
    fn wait(&self, now: &Now) -> Duration;
}

/// A call whose limits are visited, and why.
#[derive(Debug)]
pub enum LimitedCall<'a, Req, P, A> {
    /// It was sent: its caller is told of limits that are advertised.
    Sent(&'a P),
    /// It was not sent.
    Unsent(Inquiry<'a, Req, A>, Visit),
}

/// Why the limits of a call are visited that was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Its caller is told of those that are advertised.
    ForQuotas,
    /// Its rejection hints when to come back, which is not before the call would fit.
    ForWait,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// How many units.
    pub cost: u32,
    /// By when it must have been sent.
    pub deadline: Option<Instant>,
    /// When it came, if it has waited since.
    pub arrived: Option<Instant>,
    /// How much it hurts if it is rejected; the most where nobody says.
    pub criticality: Criticality,
}

/// A request that is decided about.
#[derive(Debug)]
pub struct Inquiry<'a, Req, A> {
    /// The request.
    pub request: &'a Req,
    /// What is known of the call without asking this gate's closures.
    pub demand: &'a Demand,
    /// What they were asked so far.
    pub asked: &'a mut A,
}

/// What a gate says of a request.
#[derive(Debug)]
pub enum Admission<P, T> {
    /// It may be sent.
    Granted(P),
    /// It has joined a queue. Poll the ticket.
    Queued(T),
    /// It may not be sent.
    Rejected(Box<Rejected>),
}

/// What a gate says of a queued request.
#[derive(Debug)]
pub enum TicketPoll<P> {
    /// Its turn has come; the ticket is gone.
    Granted(P),
    /// Poll again when woken.
    Queued,
    /// It may not be sent; the ticket is gone.
    Rejected(Box<Rejected>),
}

/// Why a pass comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// Another gate rejected the call, or its caller has dropped it.
    Abandoned,
    /// The inner service failed, or panicked, when it was asked whether it is ready.
    NotReady,
}

/// What happens to a call between admission and end.
#[derive(Debug, Clone, Copy)]
pub enum CallEvent {
    /// The call is sent.
    Sent,
    /// The response's head is here, and its body goes on.
    Head,
    /// The upstream has said in a good response when to come back with the next call.
    Hint(Duration),
    /// The call turns out to have used so many units.
    Used(u32),
    /// The call was answered, and goes on over an upgraded connection. The pass holds what it owes
    /// until that closes: only what counts calls in flight goes on.
    Upgraded(Outcome),
}

/// Circuits that calls pass, as a [retry](crate::retry) around them asks: the handle of a circuit
/// breaker, keyed or not.
pub trait WatchedCircuits: fmt::Debug + Send + Sync {
    /// Returns whether the circuit of a key is certain to reject a call at a moment, as far as is
    /// known now. `false` if the key is not known.
    fn is_open_at(&self, key: Option<&dyn Any>, moment: Instant) -> bool;
}

/// A gate that has a handle.
pub trait Controlled {
    /// The handle.
    type Handle;

    /// Returns the handle.
    fn control(&self) -> Self::Handle;

    /// Returns whether it decides on calls, or is switched off.
    fn is_on(&self) -> bool {
        true
    }

    /// Returns the handle of what is there: one that is switched off may be none.
    fn control_if_on(&self) -> Self::Handle {
        self.control()
    }
}

/// How a sent call ended.
#[derive(Debug, Clone, Copy)]
pub enum Completion {
    /// With a result, and maybe the upstream's word on when to come back.
    Answered(Outcome, Option<Duration>),
    /// Its caller has dropped it.
    Dropped,
    /// Its caller's deadline has ended it. `late`: good answers would have been there by then.
    CutShort {
        /// Whether that is so.
        late: bool,
    },
}

impl Completion {
    /// The end as those see it that do not watch how long calls take: late is failed, and early is
    /// dropped.
    pub(crate) fn untimed(self) -> Self {
        match self {
            Self::CutShort { late: true } => Self::Answered(Outcome::Failure, None),
            Self::CutShort { late: false } => Self::Dropped,
            end => end,
        }
    }
}

impl<Req, A> Inquiry<'_, Req, A> {
    /// The same request for a part of the gate.
    #[inline(always)]
    pub(crate) fn of<B>(&mut self, part: impl FnOnce(&mut A) -> &mut B) -> Inquiry<'_, Req, B> {
        Inquiry {
            request: self.request,
            demand: self.demand,
            asked: part(self.asked),
        }
    }
}

impl<Req, P, A> LimitedCall<'_, Req, P, A> {
    /// The same call for a part of the gate.
    #[inline(always)]
    pub(crate) fn of<Q, B>(
        &mut self,
        pass: impl FnOnce(&P) -> &Q,
        asked: impl FnOnce(&mut A) -> &mut B,
    ) -> LimitedCall<'_, Req, Q, B> {
        match self {
            Self::Sent(sent) => LimitedCall::Sent(pass(sent)),
            Self::Unsent(inquiry, why) => LimitedCall::Unsent(inquiry.of(asked), *why),
        }
    }
}

impl Demand {
    /// The deadline, if it has one, or another if that is earlier.
    pub(crate) fn earlier(&self, deadline: Option<Instant>) -> Option<Instant> {
        match (self.deadline, deadline) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            cost: 1,
            deadline: None,
            arrived: None,
            criticality: Criticality::CriticalPlus,
        }
    }
}

/// Ends a call that goes on over an upgraded connection, for gates that have no more to do with it.
#[inline]
pub(crate) fn end_upgraded<G: Gate + ?Sized>(
    gate: &G,
    pass: &mut G::Pass,
    outcome: Outcome,
    now: &Now,
) {
    if gate.owes(pass) {
        gate.end(mem::take(pass), Completion::Answered(outcome, None), now);
    }
}
