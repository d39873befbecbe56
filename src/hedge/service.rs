//! The service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    budget::{FindBudget, OneBudget, Prototype, Purse},
    hedge::{
        ResponseFuture,
        state::{Shared, State},
    },
    protocol::{Plain, Protocol, Replay},
    sync::Striped,
};

/// A service behind a [`HedgeLayer`](super::HedgeLayer).
#[derive(Debug, Clone)]
pub struct Hedge<S, P = Plain, B = OneBudget> {
    inner: S,
    shared: Striped<Shared<S>>,
    protocol: P,
    budgets: B,
}

impl<S: Clone, P, B> Hedge<S, P, B> {
    pub(super) fn new(inner: S, state: Arc<State>, (protocol, budgets): (P, B)) -> Self {
        let prototype = Prototype::new(inner.clone());
        Self {
            inner,
            shared: Striped::new(Shared { state, prototype }),
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
        let protocol = self.protocol.clone();
        let purse = self.budgets.hold(&request);
        let (mut request, kept) = if self.shared.state.begin(purse.own()) {
            protocol.prepare(request)
        } else {
            (protocol.once(request), None)
        };
        protocol.number(&mut request, 1);
        let snapshot = kept
            .filter(|kept| kept.idempotent)
            .map(|kept| kept.snapshot);
        let shared = self.shared.for_call();
        ResponseFuture::new(
            self.inner.call(request),
            (snapshot, purse),
            protocol,
            shared,
        )
    }
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, P, B> tonic::server::NamedService for Hedge<S, P, B> {
    const NAME: &'static str = S::NAME;
}
