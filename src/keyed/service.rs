//! The service.

use std::task::{Context, Poll};

use tower::Service;

use crate::{
    keyed::{Key, Keyed, ResponseFuture, future::Advertised, handle::State},
    protocol::Protocol,
    striped::Striped,
};

/// A service behind a [`KeyedRateLimitLayer`](super::KeyedRateLimitLayer).
///
/// What a call costs is taken in `call`, and not given back when the call is dropped: the peer may have seen it.
#[derive(Debug, Clone)]
pub struct KeyedRateLimit<S, M> {
    inner: S,
    state: Striped<State>,
    keyed: M,
}

impl<S, M> KeyedRateLimit<S, M> {
    pub(super) fn new(inner: S, state: Striped<State>, keyed: M) -> Self {
        Self { inner, state, keyed }
    }
}

impl<S, P, K, Req> Service<Req> for KeyedRateLimit<S, Keyed<P, K>>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error>,
    K: Key<Req>,
{
    type Response = P::Response<()>;
    type Error = P::Error;
    type Future = ResponseFuture<S::Future, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        self.inner.poll_ready(cx).map_err(|error| self.keyed.protocol.not_ready(error))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let Keyed { protocol, key } = &self.keyed;
        let protocol = protocol.clone();
        let hash = match self.state.hash(key, &request) {
            Ok(Some(hash)) => hash,
            Ok(None) => return ResponseFuture::admitted(protocol, || self.inner.call(request), None),
            Err(rejected) => return ResponseFuture::rejected(protocol, rejected, None),
        };
        let advertised = Advertised::new(&self.state, hash, &protocol);
        match self.state.acquire(hash, key, &request) {
            Ok(()) => ResponseFuture::admitted(protocol, || self.inner.call(request), advertised),
            Err(rejected) => ResponseFuture::rejected(protocol, rejected, advertised),
        }
    }
}
