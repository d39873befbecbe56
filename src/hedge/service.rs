//! The service of a hedge.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    budget::{FindBudget, OneBudget, Purse},
    hedge::{HedgeHandle, ResponseFuture, hedges::Hedges},
    protocol::{Plain, Protocol, Replay},
    resend::{FromService, Origin, Shared},
    sync::Striped,
};

/// A service behind a [`HedgeLayer`](super::HedgeLayer).
#[derive(Debug, Clone)]
pub struct Hedge<S, P = Plain, B = OneBudget> {
    inner: S,
    shared: Striped<Shared<S, HedgeHandle>>,
    protocol: P,
    budgets: B,
}

impl<S: Clone, P, B> Hedge<S, P, B> {
    pub(super) fn new(inner: S, handle: HedgeHandle, (protocol, budgets): (P, B)) -> Self {
        let shared = Striped::new(Shared::new(handle, inner.clone()));
        Self {
            inner,
            shared,
            protocol,
            budgets,
        }
    }
}

impl<S, P, B, Req> Service<Req> for Hedge<S, P, B>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
{
    type Response = P::Response<()>;
    type Error = P::Error;
    type Future = ResponseFuture<S, P, Req, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.protocol.not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let origin = FromService(self.shared.for_call());
        let protocol = self.protocol.clone();
        start(&mut self.inner, request, protocol, &self.budgets, origin)
    }
}

/// Sends the first attempt of a call.
pub(super) fn start<S, P, B, Req, O>(
    inner: &mut S,
    request: Req,
    protocol: P,
    budgets: &B,
    origin: O,
) -> ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
    O: Origin<S, Handle = HedgeHandle>,
{
    let purse = budgets.hold(&request);
    let (mut request, kept) = if origin.handle().state().begin(purse.own()) {
        protocol.prepare(request)
    } else {
        (protocol.once(request), None)
    };
    protocol.number(&mut request, 1);
    let kept = kept.filter(|kept| kept.idempotent && kept.attempts.is_none_or(|most| most > 1));
    let first = inner.call(request);
    ResponseFuture::new(first, Hedges::new((kept, purse), protocol, origin))
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, P, B> tonic::server::NamedService for Hedge<S, P, B> {
    const NAME: &'static str = S::NAME;
}
