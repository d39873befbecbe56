//! The response future.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use crate::{
    Rejected, RejectedKind, protocol::Protocol, striped::Held, time, timeout::handle::State,
};

pin_project! {
    /// The answer of a [`Timeout`](super::Timeout): the inner one, or a rejection when the time was
    /// up.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, P> {
        // `None` once the time is up.
        #[pin]
        inner: Option<F>,
        // `None` until the inner future has to wait, and for ever if nothing limits it.
        #[pin]
        timer: Option<Sleep>,
        limit: Option<Duration>,
        protocol: P,
        state: Held<State>,
    }
}

impl<F, P> ResponseFuture<F, P> {
    pub(super) fn new(inner: F, protocol: P, state: Held<State>) -> Self {
        Self {
            inner: Some(inner),
            timer: None,
            limit: state.limit(),
            protocol,
            state,
        }
    }
}

impl<F, P, Res, Err> Future for ResponseFuture<F, P>
where
    F: Future<Output = Result<Res, Err>>,
    P: Protocol<Res, Err>,
{
    type Output = Result<P::Response<()>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let inner = this
            .inner
            .as_mut()
            .as_pin_mut()
            .expect("polled after completion");
        if let Poll::Ready(result) = inner.poll(cx) {
            return Poll::Ready(this.protocol.settle(result, ()));
        }
        if let (None, Some(limit)) = (this.timer.as_ref().as_pin_ref(), this.limit.take()) {
            this.timer.set(Some(sleep(limit)));
        }
        let Some(timer) = this.timer.as_pin_mut() else {
            return Poll::Pending;
        };
        let deadline = timer.deadline();
        // A call that has used up its task's budget is woken again by itself, but the timer, asked
        // within the same poll, does not even look: so look for it.
        if timer.poll(cx).is_pending() && !time::has_passed(deadline) {
            return Poll::Pending;
        }
        // The call is given up now, not when somebody drops this future.
        this.inner.set(None);
        this.state.count_expired();
        let rejected = Rejected {
            kind: RejectedKind::TimedOut,
            layer: "timeout",
            name: this.state.name(),
            retry_after: None,
        };
        Poll::Ready(this.protocol.reject(Box::new(rejected)))
    }
}
