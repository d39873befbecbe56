//! The service of a retry.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    budget::{FindBudget, OneBudget, Purse},
    observe::trace,
    protocol::{Plain, Protocol, Replay},
    resend::{FromService, Origin, Shared},
    retry::{ResponseFuture, RetryHandle, state::RetryEnd},
    sync::Striped,
};

/// A service behind a [`RetryLayer`](super::RetryLayer).
#[derive(Debug, Clone)]
pub struct Retry<S, P = Plain, B = OneBudget> {
    inner: S,
    shared: Striped<Shared<S, RetryHandle>>,
    protocol: P,
    budgets: B,
}

impl<S: Clone, P, B> Retry<S, P, B> {
    pub(super) fn new(inner: S, handle: RetryHandle, (protocol, budgets): (P, B)) -> Self {
        let shared = Striped::new(Shared::new(handle, inner.clone()));
        Self {
            inner,
            shared,
            protocol,
            budgets,
        }
    }
}

impl<S, P, B, Req> Service<Req> for Retry<S, P, B>
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

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let origin = FromService(self.shared.for_call());
        let protocol = self.protocol.clone();
        start(&mut self.inner, request, protocol, &self.budgets, origin)
    }
}

/// Sends the first attempt of a call.
#[inline]
pub(crate) fn start<S, P, B, Req, O>(
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
    O: Origin<S, Handle = RetryHandle>,
{
    let purse = budgets.hold(&request);
    let can_be_free = protocol.can_prove_unsent();
    let begun = origin.handle().state().begin(purse.own(), can_be_free);
    let (mut request, kept) = match begun {
        Ok(()) => {
            let (request, kept) = protocol.prepare(request);
            (request, kept.ok_or(RetryEnd::NotReplayable))
        }
        Err(end) => (protocol.once(request), Err(end)),
    };
    protocol.number(&mut request, 1);
    trace::attempt(1);
    ResponseFuture::new(inner.call(request), (kept, purse), protocol, origin)
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, P, B> tonic::server::NamedService for Retry<S, P, B> {
    const NAME: &'static str = S::NAME;
}
