//! The service.

use std::{
    fmt,
    task::{Context, Poll, ready},
};

use tower::Service;

use crate::{
    ambient::clock::Now,
    gate::{
        Admission, Admit, Demand, Inquiry, LimitedCall, Permit, Read, ResponseFuture, Visit,
        tower::{
            deferred::{Owed, Telling, Waiting},
            permit::quotas,
            readiness::{Readiness, Wait},
        },
    },
    protocol::Protocol,
    sync::{Held, Striped},
};

/// A service behind a [`GateLayer`](super::GateLayer).
pub struct Gated<S, G, P> {
    inner: Inner<S>,
    wait: Wait,
    gate: Striped<G>,
    protocol: P,
}

/// The service behind the gates, and its last known readiness.
#[derive(Debug)]
pub(super) struct Inner<S> {
    service: S,
    readiness: Readiness,
}

impl<S, G, P> Gated<S, G, P> {
    pub(super) fn new(inner: S, gate: Striped<G>, protocol: P) -> Self {
        Self {
            inner: Inner {
                service: inner,
                readiness: Readiness::Unasked,
            },
            wait: Wait::default(),
            gate,
            protocol,
        }
    }
}

impl<S> Inner<S> {
    /// Creates one that is ready.
    pub(super) fn ready(service: S) -> Self {
        Self {
            service,
            readiness: Readiness::Ready,
        }
    }

    /// Replaces the service if it was polled for readiness, so that whatever it reserved is free
    /// for others.
    #[inline]
    fn release(&mut self)
    where
        S: Clone,
    {
        if let Readiness::Asked | Readiness::Ready = self.readiness {
            self.readiness = Readiness::Unasked;
            self.service = self.service.clone();
        }
    }
}

impl<S, G, P, Req> Service<Req> for Gated<S, G, P>
where
    S: Service<Req> + Clone,
    G: Admit<Req> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
    Req: 'static,
{
    type Response = P::Response<Permit<G>>;
    type Error = P::Error;
    type Future = ResponseFuture<S, G, P, Req>;

    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        loop {
            match self.wait.poll_closed(&self.gate, cx) {
                Poll::Ready(false) => {}
                Poll::Ready(true) => {
                    // An inner service that hangs must not turn failing fast into hanging.
                    self.inner.release();
                    self.wait.forget();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    // It may have been ready before the gates closed, which can last for long.
                    self.inner.release();
                    return Poll::Pending;
                }
            }
            if self.inner.readiness == Readiness::Spared {
                // Most likely the next call is rejected too. Polling the service and then replacing
                // it costs far more than the rejection. An admitted call waits for the service in
                // its future.
                self.wait.forget();
                return Poll::Ready(Ok(()));
            }
            match self.inner.service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    self.inner.readiness = Readiness::Ready;
                    self.wait.forget();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.protocol.not_ready(error))),
                Poll::Pending => {
                    self.inner.readiness = Readiness::Asked;
                    ready!(self.wait.poll_change(&**self.gate.here(), cx));
                }
            }
        }
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        self.enter(request, drop)
    }
}

impl<S, G, P> Gated<S, G, P> {
    #[inline]
    pub(crate) fn shared_protocol(&self) -> &P {
        &self.protocol
    }

    /// Calls the service. Hands the request back if it is rejected now. After a wait, the future
    /// returns it instead.
    #[inline(always)]
    pub(crate) fn enter<Req>(
        &mut self,
        request: Req,
        hand_back: impl FnOnce(Req),
    ) -> ResponseFuture<S, G, P, Req>
    where
        S: Service<Req> + Clone,
        G: Admit<Req>,
        P: Protocol<S::Response, S::Error>,
        Req: 'static,
    {
        let protocol = (self.protocol.clone(), Telling::by_protocol());
        let demand = Demand::default();
        self.inner
            .enter(&self.gate, request, demand, protocol, hand_back)
    }
}

impl<S> Inner<S> {
    /// Asks the gates, and calls the service if they admit the call at once. Hands the request back
    /// if they reject it now.
    #[inline(always)]
    pub(super) fn enter<G, P, Req>(
        &mut self,
        gates: &Striped<G>,
        request: Req,
        demand: Demand,
        protocol: (P, Telling<P, Req>),
        hand_back: impl FnOnce(Req),
    ) -> ResponseFuture<S, G, P, Req>
    where
        S: Service<Req> + Clone,
        G: Admit<Req>,
    {
        let (now, gate) = (Now::unread(), gates.here());
        let mut asked = G::Asked::default();
        let inquiry = Inquiry {
            request: &request,
            demand: &demand,
            asked: &mut asked,
        };
        let waiting = match gate.admit(inquiry, &now) {
            Admission::Granted(pass) if self.readiness == Readiness::Ready => {
                self.readiness = Readiness::Unasked;
                let permit = Permit::sent(gate, pass, &now);
                let service = &mut self.service;
                return ResponseFuture::calling(protocol.0, permit, || service.call(request));
            }
            Admission::Granted(pass) => (Waiting::Granted(pass), demand),
            Admission::Queued(ticket) => {
                let arrived = Some(now.instant());
                (Waiting::Queued(ticket), Demand { arrived, ..demand })
            }
            Admission::Rejected(rejected) => {
                let inquiry = Inquiry {
                    request: &request,
                    demand: &demand,
                    asked: &mut asked,
                };
                let call = LimitedCall::Unsent(inquiry, Visit::ForQuotas);
                let quotas = quotas(&**gate, call, &now);
                self.release();
                self.readiness = Readiness::Spared;
                hand_back(request);
                return ResponseFuture::rejected(protocol.0, rejected, quotas);
            }
        };
        let (waiting, demand) = waiting;
        self.defer(
            (gates.for_call(), waiting),
            request,
            (demand, asked),
            protocol,
        )
    }

    /// Returns the future of a call that waits for its turn, or for a service that is not known to
    /// be ready.
    #[cold]
    fn defer<G, P, Req>(
        &mut self,
        (gate, waiting): (Held<G>, Waiting<G>),
        request: Req,
        inquiry: (Demand, G::Asked),
        protocol: (P, Telling<P, Req>),
    ) -> ResponseFuture<S, G, P, Req>
    where
        S: Service<Req> + Clone,
        G: Admit<Req>,
    {
        // Made first, so that the pass or ticket is given back if a clone panics.
        let owed = Owed::new(gate, waiting);
        self.release();
        self.readiness = Readiness::Unasked;
        let service = self.service.clone();
        ResponseFuture::deferred(owed, service, request, inquiry, protocol)
    }
}

impl<S: Clone, G, P: Clone> Clone for Gated<S, G, P> {
    fn clone(&self) -> Self {
        // The clone's inner service has not been polled.
        let inner = self.inner.service.clone();
        Self::new(inner, self.gate.clone(), self.protocol.clone())
    }
}

impl<S: fmt::Debug, G, P> fmt::Debug for Gated<S, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated")
            .field("inner", &self.inner.service)
            .field("readiness", &self.inner.readiness)
            .finish_non_exhaustive()
    }
}

/// Lets a layered service still go into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, G, P> tonic::server::NamedService for Gated<S, G, P> {
    const NAME: &'static str = S::NAME;
}
