//! The service of a fallback.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    fallback::{Answer, Passed, ResponseFuture, state::State},
    protocol::{Plain, Protocol},
    sync::Striped,
};

/// A service behind a [`FallbackLayer`](super::FallbackLayer).
#[derive(Debug)]
pub struct Fallback<S, F, P = Plain> {
    inner: S,
    fallback: F,
    state: Striped<State>,
    protocol: P,
}

impl<S, F, P> Fallback<S, F, P> {
    pub(super) fn new(inner: S, fallback: F, state: Striped<State>, protocol: P) -> Self {
        Self {
            inner,
            fallback,
            state,
            protocol,
        }
    }
}

impl<S, F, P, Req> Service<Req> for Fallback<S, F, P>
where
    S: Service<Passed<F, Req, P>>,
    P: Protocol<S::Response, S::Error>,
    F: Answer<Req, P, P::Response<()>, P::Error> + Clone,
{
    type Response = P::Response<()>;
    type Error = P::Error;
    type Future = ResponseFuture<S, F, P, Req>;

    /// Polls the inner service. Passes its error on, because a service that fails here is broken
    /// for every request.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| self.protocol.not_ready(error))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let of_call = (self.protocol.clone(), &self.state);
        send(&mut self.inner, &self.fallback, request, of_call)
    }
}

/// Sends a call with a fallback.
#[inline]
pub(super) fn send<S, F, P, Req>(
    service: &mut S,
    fallback: &F,
    request: Req,
    (protocol, state): (P, &Striped<State>),
) -> ResponseFuture<S, F, P, Req>
where
    S: Service<Passed<F, Req, P>>,
    P: Protocol<S::Response, S::Error>,
    F: Answer<Req, P, P::Response<()>, P::Error> + Clone,
{
    let (request, kept) = if state.settings.enabled {
        let (request, kept) = fallback.keep(&protocol, request);
        (request, Some((kept, fallback.clone())))
    } else {
        (fallback.pass(&protocol, request), None)
    };
    ResponseFuture::new(service.call(request), kept, state.for_call(), protocol)
}

impl<S: Clone, F: Clone, P: Clone> Clone for Fallback<S, F, P> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.fallback.clone(),
            self.state.clone(),
            self.protocol.clone(),
        )
    }
}

/// A layered service still goes into tonic's `Server::add_service`.
#[cfg(feature = "tonic-014")]
impl<S: tonic::server::NamedService, F, P> tonic::server::NamedService for Fallback<S, F, P> {
    const NAME: &'static str = S::NAME;
}
