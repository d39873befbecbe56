//! A call that has to wait: for its turn, then for an inner service of its own.

use std::{
    mem,
    task::{Context, Poll, ready},
};

use tower::Service;

use crate::{
    Deadline, Rejected,
    ambient::clock::Now,
    gate::{
        Admit, ClosedWatch, Demand, Gate, Inquiry, LimitedCall, Permit, TicketPoll, Unsent, Visit,
        closing::{changed, poll_changed},
        tower::permit::quotas,
    },
    protocol::{Protocol, Quota},
    sync::Held,
};

/// A call that waits. Boxed, so it may be as large as it needs.
pub(super) struct Deferred<S, G: Gate, P, Req> {
    owed: Owed<G>,
    /// Completes when the gates change while the service is not ready.
    changed: Option<ClosedWatch>,
    service: S,
    /// `None` once the service has been called.
    request: Option<Req>,
    demand: Demand,
    /// The answers of the gates' closures about the request so far.
    asked: G::Asked,
    /// The deadline of the caller, written anew when the request is sent: a header states how long
    /// the caller still waits, and not since when.
    deadline: Option<Deadline>,
    telling: Telling<P, Req>,
}

/// The way in which a waiting request carries a deadline. Function pointers, so that requests need
/// to be `'static` only where a protocol may read a deadline from them.
pub(super) struct Telling<P, Req> {
    deadline: fn(&P, &Req) -> Option<Deadline>,
    tell: fn(&P, &mut Req, Deadline),
}

/// A waiting call's debt to its gates, given back on drop.
pub(super) struct Owed<G: Gate> {
    gate: Held<G>,
    waiting: Waiting<G>,
}

pub(super) enum Waiting<G: Gate> {
    /// The call has a place in a queue.
    Queued(G::Ticket),
    /// The call is admitted, and not sent yet.
    Granted(G::Pass),
    /// The call is sent, or never will be.
    Nothing,
}

/// The outcome of a wait.
pub(super) enum Settled<F, G: Gate, E> {
    /// The call is sent.
    Sent(F, Permit<G>),
    /// The call was rejected after all. The request can be [taken back](Deferred::take_request).
    Rejected(Box<Rejected>, Vec<Quota>),
    /// The inner service failed before it could be called.
    NotReady(E),
}

impl<P, Req> Telling<P, Req> {
    /// Reads and writes deadlines as the protocol does.
    pub(super) fn by_protocol<Res, Err>() -> Self
    where
        P: Protocol<Res, Err>,
        Req: 'static,
    {
        Self {
            deadline: |protocol, request| protocol.deadline_of(request),
            tell: |protocol, request, deadline| protocol.tell_deadline(request, deadline),
        }
    }

    /// Ignores deadlines.
    pub(super) fn nobody() -> Self {
        Self {
            deadline: |_, _| None,
            tell: |_, _, _| {},
        }
    }
}

impl<S, G: Gate, P, Req> Deferred<S, G, P, Req> {
    pub(super) fn new(
        owed: Owed<G>,
        service: S,
        request: Req,
        (demand, asked): (Demand, G::Asked),
        (protocol, telling): (&P, Telling<P, Req>),
    ) -> Self {
        let deadline = (telling.deadline)(protocol, &request);
        Self {
            owed,
            changed: None,
            service,
            request: Some(request),
            demand,
            asked,
            deadline,
            telling,
        }
    }

    pub(super) fn poll(
        &mut self,
        protocol: &P,
        cx: &mut Context<'_>,
    ) -> Poll<Settled<S::Future, G, S::Error>>
    where
        S: Service<Req>,
        G: Admit<Req>,
    {
        if let Err(rejected) = ready!(self.poll_turn(cx)) {
            return Poll::Ready(self.rejected(rejected));
        }
        match self.poll_service(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Settled::NotReady(error)),
            Poll::Pending => {
                let rejected = ready!(self.poll_rejected(cx));
                return Poll::Ready(self.rejected(rejected));
            }
        }
        if let Err(rejected) = self.owed.renew() {
            return Poll::Ready(self.rejected(rejected));
        }
        let request = self
            .take_request(protocol)
            .expect("polled after completion");
        let mut permit = self.owed.send();
        let inner = permit.guarded(|| self.service.call(request));
        Poll::Ready(Settled::Sent(inner, permit))
    }

    /// Polls the call's ticket. Ready when the call is granted or rejected.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<Rejected>>>
    where
        G: Admit<Req>,
    {
        let Owed { gate, waiting } = &mut self.owed;
        let Waiting::Queued(ticket) = waiting else {
            return Poll::Ready(Ok(()));
        };
        let inquiry = Inquiry {
            request: self.request.as_ref().expect("not sent yet"),
            demand: &self.demand,
            asked: &mut self.asked,
        };
        match gate.poll_ticket(ticket, inquiry, cx, &Now::unread()) {
            TicketPoll::Granted(pass) => {
                *waiting = Waiting::Granted(pass);
                Poll::Ready(Ok(()))
            }
            TicketPoll::Rejected(rejected) => {
                *waiting = Waiting::Nothing;
                Poll::Ready(Err(rejected))
            }
            TicketPoll::Queued => Poll::Pending,
        }
    }

    /// Polls the service for readiness. If that fails or panics, the call is not sent, and the
    /// gates learn why.
    fn poll_service(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        let guard = NotReady(&mut self.owed);
        let ready = self.service.poll_ready(cx);
        if !matches!(ready, Poll::Ready(Err(_))) {
            mem::forget(guard);
        }
        ready
    }

    /// Waits, while the service is not ready, until the gates no longer let the call through, so
    /// that it fails fast like the others.
    fn poll_rejected(&mut self, cx: &mut Context<'_>) -> Poll<Box<Rejected>> {
        loop {
            if self.changed.is_none() {
                // Registered before the check, so that no change is missed.
                let Some(changed) = changed(&*self.owed.gate) else {
                    return Poll::Pending;
                };
                self.changed = Some(changed);
                if let Err(rejected) = self.owed.renew() {
                    return Poll::Ready(rejected);
                }
            }
            ready!(poll_changed(&mut self.changed, cx));
            self.changed = None;
        }
    }

    /// Takes the request, if it was not sent, with its remaining time written into it.
    pub(super) fn take_request(&mut self, protocol: &P) -> Option<Req> {
        let mut request = self.request.take()?;
        if let Some(deadline) = self.deadline {
            (self.telling.tell)(protocol, &mut request, deadline);
        }
        Some(request)
    }

    fn rejected<F, E>(&mut self, rejected: Box<Rejected>) -> Settled<F, G, E>
    where
        G: Admit<Req>,
    {
        let gate = &*self.owed.gate;
        let quotas = self.request.as_ref().map(|request| {
            let inquiry = Inquiry {
                request,
                demand: &self.demand,
                asked: &mut self.asked,
            };
            let call = LimitedCall::Unsent(inquiry, Visit::ForQuotas);
            quotas(gate, call, &Now::unread())
        });
        Settled::Rejected(rejected, quotas.unwrap_or_default())
    }
}

impl<G: Gate> Owed<G> {
    pub(super) fn new(gate: Held<G>, waiting: Waiting<G>) -> Self {
        Self { gate, waiting }
    }

    /// Asks the gates whether the admission still holds after the wait.
    fn renew(&mut self) -> Result<(), Box<Rejected>> {
        match &mut self.waiting {
            Waiting::Granted(pass) => self.gate.renew(pass, &Now::unread()),
            _ => Ok(()),
        }
    }

    fn send(&mut self) -> Permit<G> {
        let pass = match &mut self.waiting {
            Waiting::Granted(pass) => mem::take(pass),
            // Nothing is owed for a call that was sent before.
            _ => G::Pass::default(),
        };
        self.waiting = Waiting::Nothing;
        Permit::sent(&self.gate, pass, &Now::unread())
    }

    fn give_back(&mut self, why: Unsent) {
        let now = Now::unread();
        match mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Queued(ticket) => self.gate.leave(ticket, &now),
            Waiting::Granted(pass) => self.gate.give_back(pass, why, &now),
            Waiting::Nothing => {}
        }
    }
}

impl<G: Gate> Drop for Owed<G> {
    fn drop(&mut self) {
        self.give_back(Unsent::Abandoned);
    }
}

/// A guard that gives the pass back when the inner service fails or panics.
struct NotReady<'a, G: Gate>(&'a mut Owed<G>);

impl<G: Gate> Drop for NotReady<'_, G> {
    fn drop(&mut self) {
        self.0.give_back(Unsent::NotReady);
    }
}
