//! The response future.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::{Rejected, call::Call, keyed::handle::State, protocol::Protocol, striped::Striped};

pin_project! {
    /// The answer of a [`KeyedRateLimit`](super::KeyedRateLimit): the inner one, or a rejection.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, P> {
        #[pin]
        call: Call<F, P, ()>,
        advertised: Option<Advertised<P>>,
    }
}

/// A key's limit that its callers are told of.
#[derive(Debug)]
pub(super) struct Advertised<P> {
    state: Striped<State>,
    hash: u64,
    protocol: P,
}

impl<F, P> ResponseFuture<F, P> {
    pub(super) fn admitted(protocol: P, start: impl FnOnce() -> F, advertised: Option<Advertised<P>>) -> Self {
        Self { call: Call::admitted(protocol, (), start), advertised }
    }

    pub(super) fn rejected(protocol: P, rejected: Rejected, advertised: Option<Advertised<P>>) -> Self {
        Self { call: Call::rejected(protocol, rejected), advertised }
    }
}

impl<F, P, Res, Err> Future for ResponseFuture<F, P>
where
    F: Future<Output = Result<Res, Err>>,
    P: Protocol<Res, Err>,
{
    type Output = Result<P::Response<()>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.call.poll(cx));
        Poll::Ready(match this.advertised.take() {
            Some(Advertised { state, hash, protocol }) => result.map(|response| protocol.advertise(response, &state.quota(hash))),
            None => result,
        })
    }
}

impl<P: Clone> Advertised<P> {
    pub(super) fn new(state: &Striped<State>, hash: u64, protocol: &P) -> Option<Self> {
        state.advertise.then(|| Self { state: state.for_call(), hash, protocol: protocol.clone() })
    }
}
