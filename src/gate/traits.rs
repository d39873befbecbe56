//! What a pattern provides to be plugged into Tower.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Criticality, Outcome, Rejected, ambient::clock::Now, protocol::Quota};

/// What admits calls, apart from the types of requests and responses.
///
/// A call is *admitted* with a grant, which is [sent](Self::send) or [given back](Self::give_back);
/// a sent call has a pass, which [ends](Self::end). Nothing of the three may be `()`.
#[doc(hidden)]
pub trait Gate {
    /// What an admission owes until the call is sent.
    type Grant;
    /// What a sent call owes until its end. The default owes nothing.
    type Pass: Default + Send;
    /// A place in a queue.
    type Ticket;
    /// What closures have said of a request: its key, its cost. Kept until the call is sent or
    /// rejected, so that each is asked once: a second answer may be another, and may be dear.
    type Asked: Default;

    /// The call is sent.
    fn send(&self, grant: Self::Grant) -> Self::Pass;

    /// The call is not sent.
    fn give_back(&self, grant: Self::Grant, why: Unsent, now: &Now);

    /// The call has ended.
    fn end(&self, pass: Self::Pass, end: End, now: &Now);

    /// A place in the queue is given up.
    fn leave(&self, ticket: Self::Ticket, now: &Now);

    /// Returns whether a sent call has to be told of its end. If not, it holds no reference.
    fn owes(&self, pass: &Self::Pass) -> bool {
        let _ = pass;
        true
    }

    /// Asked after a wait elsewhere, before the call is sent: whether the grant still stands.
    ///
    /// # Errors
    /// The call is rejected after all. The grant is gone.
    fn renew(&self, grant: Self::Grant, now: &Now) -> Result<Self::Grant, Box<Rejected>> {
        let _ = now;
        Ok(grant)
    }

    /// The response's head is here, and its body goes on.
    fn answered(&self, pass: &mut Self::Pass, now: &Now) {
        let _ = (pass, now);
    }

    /// The call was answered, and goes on over an upgraded connection. Returns what it owes until
    /// that closes. By default the call has ended: only what counts calls in flight goes on.
    fn upgraded(&self, pass: Self::Pass, outcome: Outcome, now: &Now) -> Self::Pass {
        if self.owes(&pass) {
            self.end(pass, End::Answered(outcome, None), now);
        }
        Self::Pass::default()
    }

    /// The upstream has said in a good response when to come back with the next call.
    fn honor(&self, pass: &Self::Pass, retry_after: Duration, now: &Now) {
        let _ = (pass, retry_after, now);
    }

    /// The call turns out to have used so many units.
    fn used(&self, pass: &mut Self::Pass, units: u32, now: &Now) {
        let _ = (pass, units, now);
    }

    /// Returns whether callers are told of the limits.
    fn advertises(&self) -> bool {
        false
    }

    /// The limits that a sent call was counted under.
    fn quotas(&self, pass: &Self::Pass, now: &Now, quotas: &mut Vec<Quota>) {
        let _ = (pass, now, quotas);
    }

    /// What `poll_ready` finds here, before there is a request. Only circuits close.
    #[inline]
    fn access(&self, now: &Now) -> Access {
        let _ = now;
        Access::Open
    }

    /// Ends with the next change of what [`access`](Self::access) says, counted from this call on;
    /// `None` if it never changes.
    fn changed(&self) -> Option<Changed> {
        None
    }

    /// How long until time alone ends [`Access::Withheld`].
    fn until_change(&self, now: &Now) -> Option<Duration> {
        let _ = now;
        None
    }

    /// That time is over.
    fn expire(&self, now: &Now) {
        let _ = now;
    }
}

/// The decision about a request.
#[doc(hidden)]
pub trait Admit<Req>: Gate {
    /// Admits the call, rejects it, or gives it a place in a queue.
    fn admit(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
    ) -> Admission<Self::Grant, Self::Ticket>;

    /// Returns whether the turn of a queued call has come.
    fn poll_ticket(
        &self,
        ticket: &mut Self::Ticket,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        cx: &mut Context<'_>,
        now: &Now,
    ) -> Turn<Self::Grant>;

    /// How long until the call would fit, where that is known.
    fn wait(&self, inquiry: Inquiry<'_, Req, Self::Asked>, now: &Now) -> Option<Duration> {
        let _ = (inquiry, now);
        None
    }

    /// The limits that a rejected request was counted under.
    fn quotas_for(
        &self,
        inquiry: Inquiry<'_, Req, Self::Asked>,
        now: &Now,
        quotas: &mut Vec<Quota>,
    ) {
        let _ = (inquiry, now, quotas);
    }
}

/// What a gate learns of a response before its protocol does.
#[doc(hidden)]
pub trait Read<Res>: Gate {
    /// Sees a response. By default nothing follows.
    #[inline]
    fn read(&self, pass: &mut Self::Pass, response: &Res, now: &Now) {
        let _ = (pass, response, now);
    }
}

/// What a call asks for.
#[doc(hidden)]
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
#[doc(hidden)]
#[derive(Debug)]
pub struct Inquiry<'a, Req, A> {
    /// The request.
    pub request: &'a Req,
    /// What is known of the call without asking this gate's closures.
    pub demand: &'a Demand,
    /// What they were asked so far.
    pub asked: &'a mut A,
}

/// What `poll_ready` finds at a gate.
#[doc(hidden)]
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

/// What a gate says of a request.
#[doc(hidden)]
#[derive(Debug)]
pub enum Admission<G, T> {
    /// It may be sent.
    Granted(G),
    /// It has joined a queue. Poll the ticket.
    Queued(T),
    /// It may not be sent.
    Rejected(Box<Rejected>),
}

/// What a gate says of a queued request.
#[doc(hidden)]
#[derive(Debug)]
pub enum Turn<G> {
    /// Its turn has come; the ticket is gone.
    Granted(G),
    /// Poll again at that moment at the latest, or when woken.
    Queued(Option<Instant>),
    /// It may not be sent; the ticket is gone.
    Rejected(Box<Rejected>),
}

/// Why a grant comes back.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// Another gate rejected the call, or its caller has dropped it.
    Abandoned,
    /// The inner service failed, or panicked, when it was asked whether it is ready.
    NotReady,
}

/// Circuits that calls pass, as a [retry](crate::retry) around them asks: the handle of a circuit
/// breaker, keyed or not.
pub trait WatchedCircuits: fmt::Debug + Send + Sync {
    /// Returns whether the circuit of a key is certain to reject a call at a moment, as far as is
    /// known now. `false` if the key is not known.
    #[doc(hidden)]
    fn is_open_at(&self, key: Option<&dyn Any>, moment: Instant) -> bool;
}

/// How a sent call ended.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum End {
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

impl End {
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

/// A wait for a change.
#[doc(hidden)]
pub type Changed = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

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

/// Polls a wait for a change, if there is one; never ready without.
pub(super) fn poll_changed(changed: &mut Option<Changed>, cx: &mut Context<'_>) -> Poll<()> {
    changed
        .as_mut()
        .map_or(Poll::Pending, |changed| changed.as_mut().poll(cx))
}
