//! The response future.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::{Rejected, bulkhead::Permit, call::Call, protocol::Protocol};

pin_project! {
    /// The answer of a [`Bulkhead`](super::Bulkhead): the inner one, or a rejection.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, P> {
        #[pin]
        call: Call<F, P, Permit>,
    }
}

impl<F, P> ResponseFuture<F, P> {
    pub(super) fn admitted(protocol: P, permit: Permit, start: impl FnOnce() -> F) -> Self {
        Self {
            call: Call::admitted(protocol, permit, start),
        }
    }

    pub(super) fn rejected(protocol: P, rejected: Rejected) -> Self {
        Self {
            call: Call::rejected(protocol, rejected),
        }
    }
}

impl<F, P, Res, Err> Future for ResponseFuture<F, P>
where
    F: Future<Output = Result<Res, Err>>,
    P: Protocol<Res, Err>,
{
    type Output = Result<P::Response<Permit>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}
