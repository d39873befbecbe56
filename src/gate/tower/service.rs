//! The service.

use std::{
    fmt,
    task::{Context, Poll, ready},
};

use tower::Service;

use crate::{
    Rejected,
    ambient::clock::Now,
    gate::{
        Admission, Admit, Demand, Inquiry, Permit, Read, ResponseFuture,
        tower::{
            deferred::{Owed, Waiting},
            readiness::{Readiness, Wait},
        },
    },
    protocol::Protocol,
    sync::Striped,
};

/// A service behind a [`GateLayer`](super::GateLayer).
pub struct Gated<S, G, P> {
    inner: S,
    readiness: Readiness,
    wait: Wait,
    gate: Striped<G>,
    protocol: P,
}

impl<S, G, P> Gated<S, G, P> {
    pub(super) fn new(inner: S, gate: Striped<G>, protocol: P) -> Self {
        Self {
            inner,
            readiness: Readiness::Unasked,
            wait: Wait::default(),
            gate,
            protocol,
        }
    }

    /// Replaces the inner service if it was asked for readiness, so that what it has reserved is
    /// free for others.
    #[inline]
    fn release(&mut self)
    where
        S: Clone,
    {
        if self.readiness != Readiness::Unasked {
            self.readiness = Readiness::Unasked;
            self.inner = self.inner.clone();
        }
    }
}

impl<S, G, P, Req> Service<Req> for Gated<S, G, P>
where
    S: Service<Req> + Clone,
    G: Admit<Req> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
{
    type Response = P::Response<Permit<G>>;
    type Error = P::Error;
    type Future = ResponseFuture<S, G, P, Req>;

    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        loop {
            if ready!(self.wait.poll_closed(self.gate.here(), cx)) {
                // An inner service that hangs must not turn failing fast into hanging.
                self.release();
                self.wait.forget();
                return Poll::Ready(Ok(()));
            }
            match self.inner.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    self.readiness = Readiness::Ready;
                    self.wait.forget();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.protocol.not_ready(error))),
                Poll::Pending => {
                    self.readiness = Readiness::Asked;
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

    /// Calls, and hands the request back if it is rejected now; of one that is rejected after a
    /// wait the future does.
    #[inline(always)]
    pub(crate) fn enter<Req>(
        &mut self,
        request: Req,
        hand_back: impl FnOnce(Req),
    ) -> ResponseFuture<S, G, P, Req>
    where
        S: Service<Req> + Clone,
        G: Admit<Req>,
        P: Clone,
    {
        let (now, demand) = (Now::unread(), Demand::default());
        let mut asked = G::Asked::default();
        let gate = self.gate.here();
        let inquiry = Inquiry {
            request: &request,
            demand: &demand,
            asked: &mut asked,
        };
        match gate.admit(inquiry, &now) {
            Admission::Granted(grant) if self.readiness == Readiness::Ready => {
                self.readiness = Readiness::Unasked;
                let permit = Permit::new(gate, gate.send(grant));
                let inner = &mut self.inner;
                ResponseFuture::calling(self.protocol.clone(), permit, || inner.call(request))
            }
            Admission::Granted(grant) => {
                self.defer(Waiting::Granted(grant), request, (demand, asked))
            }
            Admission::Queued(ticket) => {
                let demand = Demand {
                    arrived: Some(now.instant()),
                    ..demand
                };
                self.defer(Waiting::Queued(ticket), request, (demand, asked))
            }
            Admission::Rejected(rejected) => {
                let inquiry = Inquiry {
                    request: &request,
                    demand: &demand,
                    asked: &mut asked,
                };
                let future = self.reject(rejected, inquiry, &now);
                hand_back(request);
                future
            }
        }
    }

    /// A call that waits for its turn, or for an inner service that was not asked.
    #[cold]
    fn defer<Req>(
        &mut self,
        waiting: Waiting<G>,
        request: Req,
        inquiry: (Demand, G::Asked),
    ) -> ResponseFuture<S, G, P, Req>
    where
        S: Service<Req> + Clone,
        G: Admit<Req>,
        P: Clone,
    {
        // Owned first: it is given back if a clone panics.
        let owed = Owed::new(self.gate.for_call(), waiting);
        self.release();
        let service = self.inner.clone();
        ResponseFuture::deferred(owed, service, request, inquiry, self.protocol.clone())
    }

    fn reject<Req>(
        &mut self,
        rejected: Box<Rejected>,
        inquiry: Inquiry<'_, Req, G::Asked>,
        now: &Now,
    ) -> ResponseFuture<S, G, P, Req>
    where
        S: Service<Req> + Clone,
        G: Admit<Req>,
        P: Clone,
    {
        let mut quotas = Vec::new();
        if self.gate.advertises() {
            self.gate.quotas_for(inquiry, now, &mut quotas);
        }
        self.release();
        ResponseFuture::rejected(self.protocol.clone(), rejected, quotas)
    }
}

impl<S: Clone, G, P: Clone> Clone for Gated<S, G, P> {
    fn clone(&self) -> Self {
        // The clone's inner service has not been asked.
        Self::new(self.inner.clone(), self.gate.clone(), self.protocol.clone())
    }
}

impl<S: fmt::Debug, G, P> fmt::Debug for Gated<S, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            inner, readiness, ..
        } = self;
        f.debug_struct("Gated")
            .field("inner", inner)
            .field("readiness", readiness)
            .finish_non_exhaustive()
    }
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, G, P> tonic::server::NamedService for Gated<S, G, P> {
    const NAME: &'static str = S::NAME;
}
