//! The response future.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    Rejected,
    gate::{
        Admit, Demand, Gate, Permit, Read,
        tower::deferred::{Deferred, Owed, Settled, Telling},
    },
    protocol::{Protocol, Quota},
};

pin_project! {
    /// The answer of a [`Gated`](super::Gated) service: the inner answer, or a rejection. If it is
    /// dropped while it waits, it leaves the queue at no cost.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, G, P, Req>
    where
        S: Service<Req>,
        G: Gate,
    {
        #[pin]
        stage: Stage<S::Future, G, Deferred<S, G, P, Req>>,
        protocol: P,
    }
}

pin_project! {
    #[project = StageProject]
    enum Stage<F, G: Gate, D> {
        Calling { #[pin] inner: F, permit: Permit<G> },
        // Boxed: most calls never wait, and the future stays small.
        Deferred { deferred: Box<D> },
        Rejected { rejected: Option<Box<Rejected>>, quotas: Vec<Quota> },
    }
}

impl<S, G, P, Req> ResponseFuture<S, G, P, Req>
where
    S: Service<Req>,
    G: Gate,
{
    #[inline(always)]
    pub(super) fn calling(
        protocol: P,
        mut permit: Permit<G>,
        start: impl FnOnce() -> S::Future,
    ) -> Self {
        let inner = permit.guarded(start);
        Self {
            stage: Stage::Calling { inner, permit },
            protocol,
        }
    }

    pub(super) fn rejected(protocol: P, rejected: Box<Rejected>, quotas: Vec<Quota>) -> Self {
        Self {
            stage: Stage::Rejected {
                rejected: Some(rejected),
                quotas,
            },
            protocol,
        }
    }

    /// Returns whether the call was rejected at once, so that the answer is known and nothing
    /// remains to be done.
    pub(crate) fn is_rejected(&self) -> bool {
        self.rejection().is_some()
    }

    /// Returns the rejection, if the call was rejected.
    pub(crate) fn rejection(&self) -> Option<&Rejected> {
        match &self.stage {
            Stage::Rejected { rejected, .. } => rejected.as_deref(),
            _ => None,
        }
    }

    pub(super) fn deferred(
        owed: Owed<G>,
        service: S,
        request: Req,
        inquiry: (Demand, G::Asked),
        (protocol, telling): (P, Telling<P, Req>),
    ) -> Self {
        let protocol_of_call = (&protocol, telling);
        let deferred = Deferred::new(owed, service, request, inquiry, protocol_of_call);
        let deferred = Box::new(deferred);
        Self {
            stage: Stage::Deferred { deferred },
            protocol,
        }
    }
}

impl<S, G, P, Req> ResponseFuture<S, G, P, Req>
where
    S: Service<Req>,
    G: Admit<Req>,
    P: Protocol<S::Response, S::Error>,
{
    /// Waits until the call is granted. Ready at once if it need not wait. Returns the request if
    /// the call is rejected after the wait.
    pub(crate) fn poll_turn(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Req>, P::Error>> {
        let this = self.project();
        let mut stage = this.stage;
        let StageProject::Deferred { deferred } = stage.as_mut().project() else {
            return Poll::Ready(Ok(None));
        };
        let (next, returned) = match ready!(deferred.poll(this.protocol, cx)) {
            Settled::Sent(inner, permit) => (Stage::Calling { inner, permit }, None),
            Settled::Rejected(rejected, quotas) => {
                let rejected = Some(rejected);
                let request = deferred.take_request(this.protocol);
                (Stage::Rejected { rejected, quotas }, request)
            }
            Settled::NotReady(error) => return Poll::Ready(Err(this.protocol.not_ready(error))),
        };
        stage.set(next);
        Poll::Ready(Ok(returned))
    }
}

impl<S, G, P, Req> Future for ResponseFuture<S, G, P, Req>
where
    S: Service<Req>,
    G: Admit<Req> + Read<S::Response> + Send + Sync + 'static,
    P: Protocol<S::Response, S::Error>,
{
    type Output = Result<P::Response<Permit<G>>, P::Error>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = self.as_mut().project();
            match this.stage.project() {
                StageProject::Calling { inner, permit } => {
                    let result = ready!(permit.guarded(|| inner.poll(cx)));
                    return Poll::Ready(settle::<_, _, Req, _, _>(this.protocol, result, permit));
                }
                StageProject::Rejected { rejected, quotas } => {
                    let rejected = rejected.take().expect("polled after completion");
                    let response = this.protocol.reject(rejected);
                    return Poll::Ready(advertise(this.protocol, response, quotas));
                }
                StageProject::Deferred { .. } => {
                    ready!(self.as_mut().poll_turn(cx))?;
                }
            }
        }
    }
}

#[inline(always)]
fn settle<G, P, Req, Res, Err>(
    protocol: &P,
    result: Result<Res, Err>,
    permit: &mut Permit<G>,
) -> Result<P::Response<Permit<G>>, P::Error>
where
    G: Admit<Req> + Read<Res> + Send + Sync + 'static,
    P: Protocol<Res, Err>,
{
    if let Ok(response) = &result {
        permit.read(response);
        let quotas = permit.quotas();
        if !quotas.is_empty() {
            return advertise(protocol, protocol.settle(result, permit.take()), &quotas);
        }
    }
    protocol.settle(result, permit.take())
}

#[cold]
fn advertise<G, P, Res, Err>(
    protocol: &P,
    result: Result<P::Response<Permit<G>>, P::Error>,
    quotas: &[Quota],
) -> Result<P::Response<Permit<G>>, P::Error>
where
    G: Gate + Send + Sync + 'static,
    P: Protocol<Res, Err>,
{
    let tell = |response, quota| protocol.advertise(response, quota);
    result.map(|response| quotas.iter().fold(response, tell))
}

impl<S, G, P, Req> fmt::Debug for ResponseFuture<S, G, P, Req>
where
    S: Service<Req>,
    G: Gate,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Calling { .. } => "calling",
            Stage::Deferred { .. } => "waiting",
            Stage::Rejected { .. } => "rejected",
        };
        f.debug_struct("ResponseFuture")
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}
