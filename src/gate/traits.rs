//! The traits that a pattern implements to be plugged into Tower.

use std::{any::Any, fmt, mem, ops::ControlFlow, pin::Pin, task::Context, time::Duration};

use tokio::time::Instant;

use crate::{
    Criticality, Outcome, Rejected,
    ambient::clock::Now,
    protocol::{Hint, Quota},
};

/// A part of a layer that admits calls, whatever the types of requests and responses.
///
/// A call is *admitted* with a pass. The pass is [given back](Self::give_back) if the call is not
/// sent after all. Otherwise it lasts until the call [ends](Self::end). The default pass owes
/// nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no gate",
    label = "a gate is made by `.gate()?` of a builder",
    note = "up to four gates stand in a tuple, from the outside in"
)]
pub trait Gate {
    /// The debt of an admission until its call has ended.
    type Pass: Default + Send;
    /// A place in a queue. [`Infallible`](std::convert::Infallible) where no call waits.
    type Ticket;
    /// The answers of closures about a request, such as its key or its cost. Kept until the call is
    /// sent or rejected, so that each closure is called once: a second answer may differ, and may
    /// be expensive.
    type Asked: Default;
    /// If true, the gate has parts that can reject every call: [`closing`](Self::closing) visits
    /// them.
    const CLOSES: bool = false;

    /// Takes back the pass of a call that is not sent.
    fn give_back(&self, pass: Self::Pass, why: Unsent, now: &Now);

    /// Ends a sent call.
    fn end(&self, pass: Self::Pass, how: Completion, now: &Now);

    /// Gives up a place in the queue.
    fn leave(&self, ticket: Self::Ticket, now: &Now);

    /// Returns whether a sent call must report its end. If not, it holds no reference.
    fn owes(&self, pass: &Self::Pass) -> bool {
        let _ = pass;
        true
    }

    /// Checks that the admission still holds after a wait elsewhere, before the call is sent.
    ///
    /// # Errors
    /// Rejects the call after all. The pass owes nothing then.
    fn renew(&self, pass: &mut Self::Pass, now: &Now) -> Result<(), Box<Rejected>> {
        let _ = (pass, now);
        Ok(())
    }

    /// Records an event between admission and end. By default an upgrade is the end.
    #[inline(always)]
    fn event(&self, pass: &mut Self::Pass, event: CallEvent, now: &Now) {
        if let CallEvent::Upgraded(outcome) = event {
            end_upgraded(self, pass, outcome, now);
        }
    }

    /// Receives what the upstream says about its own limits. By default it is ignored.
    #[inline]
    fn told(&self, pass: &Self::Pass, hint: &Hint, now: &Now) {
        let _ = (pass, hint, now);
    }

    /// Returns whether no part rejects every call now, as far as that is known without the time.
    #[inline(always)]
    fn is_open(&self) -> bool {
        !Self::CLOSES
    }

    /// Visits the parts that can reject every call, from the outside in, until the visitor breaks
    /// off. By default there are none.
    #[inline(always)]
    fn closing<B>(&self, visit: &mut impl FnMut(&dyn Closes) -> ControlFlow<B>) -> ControlFlow<B> {
        let _ = visit;
        ControlFlow::Continue(())
    }
}

/// A gate that decides on requests of one type.
pub trait Admit<Req>: Gate {
    /// Admits the call, rejects it, or queues it.
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Pass, Self::Ticket>;

    /// Polls a queued call: granted, still queued, or rejected.
    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> TicketPoll<Self::Pass>;

    /// Visits the limits that count the call. By default there are none.
    #[inline(always)]
    fn limits(
        &self,
        call: LimitedCall<'_, Req, Self::Pass, Self::Asked>,
        visit: &mut impl FnMut(&dyn Quoted),
    ) {
        let _ = (call, visit);
    }
}

/// A gate that reads a response before its protocol does.
pub trait Read<Res>: Gate {
    /// Reads a response. By default it is ignored.
    #[inline]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        let _ = (pass, response, now);
    }
}

/// A part of a gate that can reject every call, whatever its request.
pub trait Closes {
    /// Returns what `poll_ready` meets here, before there is a request.
    fn access(&self, now: &Now) -> Access;

    /// Returns a future that completes at the next change of [`access`](Self::access) after this
    /// call.
    fn changed(&self) -> ClosedWatch;

    /// Returns how long until time alone ends [`Access::Withheld`].
    fn until_change(&self, now: &Now) -> Option<Duration>;

    /// Makes a change that is overdue, such as from open to half-open.
    fn expire(&self, now: &Now);
}

/// The state of a gate for `poll_ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Calls may be admitted.
    Open,
    /// A call would be rejected now, whatever its request. `poll_ready` is ready, so that the call
    /// fails fast.
    Rejecting,
    /// The same under backpressure: `poll_ready` is pending until this changes.
    Withheld,
}

/// A future that completes when the [`Access`] of a part changes.
pub(crate) type ClosedWatch = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A limit that counts a call, and is advertised to callers.
pub trait Quoted {
    /// Adds the limit and what is left of it, in a form that a protocol can write.
    fn quotas(&self, now: &Now, quotas: &mut Vec<Quota>);

    /// Returns how long until the call would fit. `None` if it never does.
    fn wait(&self, now: &Now) -> Option<Duration>;
}

/// A call whose limits are visited, and why.
#[derive(Debug)]
pub enum LimitedCall<'a, Req, P, A> {
    /// The call was sent. Its caller is shown the advertised limits.
    Sent(&'a P),
    /// The call was not sent.
    Unsent(Inquiry<'a, Req, A>, Visit),
}

/// The reason to visit the limits of a rejected call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// The caller is shown the advertised limits.
    ForQuotas,
    /// The rejection gets a `retry_after`, which is not before the call would fit.
    ForWait,
}

/// The needs of a call: units, deadline, criticality.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// The number of units.
    pub cost: u32,
    /// The deadline for sending the call.
    pub deadline: Option<Instant>,
    /// The time of arrival, if the call has waited since.
    pub arrived: Option<Instant>,
    /// The call's criticality. The highest by default.
    pub criticality: Criticality,
}

/// A request to decide on.
#[derive(Debug)]
pub struct Inquiry<'a, Req, A> {
    /// The request.
    pub request: &'a Req,
    /// The call's needs, as known without this gate's closures.
    pub demand: &'a Demand,
    /// The answers of this gate's closures so far.
    pub asked: &'a mut A,
}

/// A gate's decision on a request.
#[derive(Debug)]
pub enum Admission<P, T> {
    /// The call may be sent.
    Granted(P),
    /// The call is queued. Poll the ticket.
    Queued(T),
    /// The call may not be sent.
    Rejected(Box<Rejected>),
}

/// The state of a queued request.
#[derive(Debug)]
pub enum TicketPoll<P> {
    /// The call may be sent. The ticket is used up.
    Granted(P),
    /// The call still waits. Poll again when woken.
    Queued,
    /// The call may not be sent. The ticket is used up.
    Rejected(Box<Rejected>),
}

/// The reason for giving a pass back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// Another gate rejected the call, or its caller dropped it.
    Abandoned,
    /// The `poll_ready` of the inner service failed or panicked.
    NotReady,
}

/// An event of a call between admission and end.
#[derive(Debug, Clone, Copy)]
pub enum CallEvent {
    /// The call is sent.
    Sent,
    /// The response's head has arrived. Its body is still to come.
    Head,
    /// The upstream has said, in a good response, after how long to send the next call.
    Hint(Duration),
    /// The call has turned out to have used so many units.
    Used(u32),
    /// The call was answered, and continues over an upgraded connection. Gates that count calls in
    /// flight hold their pass until the connection closes. For all others this is the end.
    Upgraded(Outcome),
}

/// Circuits that calls pass through, as a [retry](crate::retry) around them sees them. Implemented
/// by the handle of a circuit breaker, keyed or not.
pub trait WatchedCircuits: fmt::Debug + Send + Sync {
    /// Returns whether a key's circuit is certain, as far as is known now, to reject a call at
    /// `moment`. `false` if the key is not known.
    fn is_open_at(&self, key: Option<&dyn Any>, moment: Instant) -> bool;
}

/// A gate that has a handle.
pub trait Controlled {
    /// The handle.
    type Handle;

    /// Returns the handle.
    fn control(&self) -> Self::Handle;

    /// Returns whether the gate decides on calls. `false` if it is switched off.
    fn is_on(&self) -> bool {
        true
    }

    /// Returns the handle of this gate. A gate that is switched off may have none.
    fn control_if_on(&self) -> Self::Handle {
        self.control()
    }
}

/// The end of a sent call.
#[derive(Debug, Clone, Copy)]
pub enum Completion {
    /// The call has a result, and perhaps the upstream's hint on when to come back.
    Answered(Outcome, Option<Duration>),
    /// The caller dropped the call.
    Dropped,
    /// The caller's own deadline ended the call.
    CutShort {
        /// If true, good answers would have arrived by then.
        late: bool,
    },
}

impl Completion {
    /// Returns the end for gates that do not measure how long calls take: late is failed, and early
    /// is dropped.
    pub(crate) fn untimed(self) -> Self {
        match self {
            Self::CutShort { late: true } => Self::Answered(Outcome::Failure, None),
            Self::CutShort { late: false } => Self::Dropped,
            end => end,
        }
    }
}

impl<Req, A> Inquiry<'_, Req, A> {
    /// Returns the same request for a part of the gate.
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
    /// Returns the same call for a part of the gate.
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
    /// Returns the earlier of the call's deadline and another one, where either may be missing.
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

/// Ends a call that continues over an upgraded connection, for gates that need nothing more of it.
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
