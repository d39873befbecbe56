//! The response future.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep, sleep_until};
use tower::Service;

use crate::{
    Rejected, RejectedKind,
    protocol::Protocol,
    striped::Held,
    time,
    timeout::state::{Limit, State},
};

pin_project! {
    /// The answer of a [`Timeout`](super::Timeout): the inner one, or a rejection when the time was
    /// up.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req>
    where
        S: Service<Req>,
    {
        // `None` before the call is sent, and once it was given up.
        #[pin]
        inner: Option<S::Future>,
        rest: Rest<S, Req>,
        limit: Limit,
        protocol: P,
        state: Held<State>,
    }
}

/// What few calls need, in a box, so that the others do not carry it.
enum Rest<S, Req> {
    /// Sent, and so far it had not to wait.
    Nothing,
    /// Sent, and waiting.
    Timer(Pin<Box<Sleep>>),
    /// To be sent when the inner service is ready.
    Unready(Box<Unready<S, Req>>),
    Rejected(Box<Rejected>),
}

struct Unready<S, Req> {
    service: S,
    request: Req,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What the caller gets.
type Answer<S, P, Req> = Result<
    <P as Protocol<<S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Response<()>,
    <P as Protocol<<S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Error,
>;

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn sent(inner: S::Future, limit: Limit, protocol: P, state: Held<State>) -> Self {
        Self {
            inner: Some(inner),
            rest: Rest::Nothing,
            limit,
            protocol,
            state,
        }
    }

    pub(super) fn unready(
        service: S,
        request: Req,
        limit: Limit,
        protocol: P,
        state: Held<State>,
    ) -> Self {
        Self {
            inner: None,
            rest: Rest::Unready(Box::new(Unready {
                service,
                request,
                timer: None,
            })),
            limit,
            protocol,
            state,
        }
    }

    pub(super) fn rejected(rejected: Box<Rejected>, protocol: P, state: Held<State>) -> Self {
        Self {
            inner: None,
            rest: Rest::Rejected(rejected),
            limit: Limit::Unlimited,
            protocol,
            state,
        }
    }
}

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error>,
{
    /// Sends the call once the inner service is ready; an answer if it never gets there.
    fn poll_unsent(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Answer<S, P, Req>>> {
        let mut this = self.as_mut().project();
        let mut unready = match mem::replace(this.rest, Rest::Nothing) {
            Rest::Unready(unready) => unready,
            Rest::Rejected(rejected) => return Poll::Ready(Err(this.protocol.reject(rejected))),
            Rest::Nothing | Rest::Timer(_) => panic!("polled after completion"),
        };
        match unready.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                let Unready {
                    mut service,
                    request,
                    timer,
                } = *unready;
                this.inner.set(Some(service.call(request)));
                if let Some(timer) = timer {
                    *this.rest = Rest::Timer(timer);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Err(this.protocol.not_ready(error)))),
            Poll::Pending if is_over(&mut unready.timer, *this.limit, cx) => {
                let rejected = this.state.reject(RejectedKind::DeadlineExceeded);
                Poll::Ready(Err(this.protocol.reject(rejected)))
            }
            Poll::Pending => {
                *this.rest = Rest::Unready(unready);
                Poll::Pending
            }
        }
    }

    /// Gives the call up if its time is over.
    fn poll_timer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<S, P, Req>> {
        let mut this = self.project();
        let mut timer = match mem::replace(this.rest, Rest::Nothing) {
            Rest::Timer(timer) => Some(timer),
            _ => None,
        };
        if is_over(&mut timer, *this.limit, cx) {
            // Now, and not when somebody drops this future.
            this.inner.set(None);
            let rejected = this.state.reject(RejectedKind::TimedOut);
            return Poll::Ready(this.protocol.reject(rejected));
        }
        if let Some(timer) = timer {
            *this.rest = Rest::Timer(timer);
        }
        Poll::Pending
    }
}

impl<S, P, Req> Future for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error>,
{
    type Output = Answer<S, P, Req>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.inner.is_none() {
            if let Err(answer) = ready!(self.as_mut().poll_unsent(cx)) {
                return Poll::Ready(answer);
            }
        }
        let this = self.as_mut().project();
        let inner = this.inner.as_pin_mut().expect("the call was sent");
        if let Poll::Ready(result) = inner.poll(cx) {
            return Poll::Ready(this.protocol.settle(result, ()));
        }
        self.poll_timer(cx)
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("sent", &self.inner.is_some())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// Whether the time of a call that has to wait is over; makes its timer when it first has to.
fn is_over(timer: &mut Option<Pin<Box<Sleep>>>, limit: Limit, cx: &mut Context<'_>) -> bool {
    let Some(timer) = timer else {
        let sleep = match limit {
            Limit::Unlimited => return false,
            Limit::For(duration) => sleep(duration),
            Limit::Until(moment) => sleep_until(moment),
        };
        return timer.insert(Box::pin(sleep)).as_mut().poll(cx).is_ready();
    };
    // A call that has used up its task's budget is woken again by itself, but the timer, polled
    // within the same poll, does not even look at the clock. So look at it.
    timer.as_mut().poll(cx).is_ready() || time::has_passed(timer.deadline())
}
