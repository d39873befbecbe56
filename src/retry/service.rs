//! The service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use crate::{
    protocol::{Plain, Protocol, Replay},
    retry::{
        ResponseFuture,
        state::{End, Shared, State},
    },
    striped::Striped,
};

/// A service behind a [`RetryLayer`](super::RetryLayer).
#[derive(Debug, Clone)]
pub struct Retry<S, P = Plain> {
    inner: S,
    shared: Striped<Shared<S>>,
    protocol: P,
}

impl<S: Clone, P> Retry<S, P> {
    pub(super) fn new(inner: S, state: Arc<State>, protocol: P) -> Self {
        let shared = Striped::new(Shared::new(state, inner.clone()));
        Self {
            inner,
            shared,
            protocol,
        }
    }
}

impl<S, P, Req> Service<Req> for Retry<S, P>
where
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
{
    type Response = P::Response<()>;
    type Error = P::Error;
    type Future = ResponseFuture<S, P, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.protocol.not_ready(error))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let protocol = self.protocol.clone();
        let begun = self.shared.state.begin(protocol.can_prove_unsent());
        let (mut request, kept) = match begun {
            Ok(()) => {
                let (request, kept) = protocol.prepare(request);
                (request, kept.ok_or(End::NotReplayable))
            }
            Err(end) => (protocol.once(request), Err(end)),
        };
        protocol.number(&mut request, 1);
        ResponseFuture::new(
            self.inner.call(request),
            kept,
            protocol,
            self.shared.for_call(),
        )
    }
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "grpc")]
impl<S: tonic::server::NamedService, P> tonic::server::NamedService for Retry<S, P> {
    const NAME: &'static str = S::NAME;
}
