//! The response future.

use std::{
    fmt,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    CarryDeadline, Rejected, RejectedKind,
    ambient::timer::CallTimer,
    protocol::Protocol,
    sync::Held,
    timeout::{
        TimeoutScope,
        scope::{Left, is_over},
        state::{Ended, Entered, Limit, State},
    },
};

pin_project! {
    /// The answer of a [`Timeout`](super::Timeout): the inner one, or a rejection when the time was
    /// up.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req, M>
    where
        S: Service<Req>,
    {
        // `None` before the call is sent, and once it was given up.
        #[pin]
        inner: Option<S::Future>,
        rest: Rest<S, Req>,
        limit: Limit,
        within: Within<P>,
        scope: PhantomData<fn() -> M>,
    }

    impl<S, P, Req, M> PinnedDrop for ResponseFuture<S, P, Req, M>
    where
        S: Service<Req>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // Of a call that has ended it is there only if nobody asks how long calls take.
            match this.rest {
                Rest::Timer(timer) if this.within.state.times_calls() => {
                    this.within.state.ended(Ended::Cancelled, timer.elapsed());
                }
                _ => {}
            }
        }
    }
}

/// A call that has begun, until its end.
pub(super) struct Within<P> {
    protocol: P,
    state: Held<State>,
    entered: Entered,
}

impl<P> Within<P> {
    /// Begins a call, unless its stack takes none, or its deadline has passed.
    #[inline]
    pub(super) fn enter<Req>(
        protocol: P,
        state: Held<State>,
        request: &mut Req,
    ) -> Result<(Limit, Self), (Box<Rejected>, Self)>
    where
        P: CarryDeadline<Req>,
    {
        let mut within = Self {
            protocol,
            state,
            entered: None,
        };
        match within.state.enter() {
            Ok(entered) => within.entered = entered,
            Err(rejected) => return Err((rejected, within)),
        }
        match within.state.limit(&within.protocol, request) {
            Some(limit) => Ok((limit, within)),
            None => Err((within.state.reject(RejectedKind::DeadlineExceeded), within)),
        }
    }
}

impl<P> Drop for Within<P> {
    /// Also of a call that panics before there is a future.
    #[inline]
    fn drop(&mut self) {
        self.state.leave(&mut self.entered);
    }
}

/// What few calls need, in a box, so that the others do not carry it.
enum Rest<S, Req> {
    /// Sent, and so far it had not to wait.
    Nothing,
    /// Sent, and waiting.
    Timer(CallTimer),
    /// To be sent when the inner service is ready.
    Unready(Box<Unready<S, Req>>),
    Rejected(Box<Rejected>),
}

struct Unready<S, Req> {
    service: S,
    request: Req,
    timer: Option<CallTimer>,
}

/// What the caller gets, before the scope has passed it on.
type Answer<S, P, Req> = Result<
    <P as Protocol<<S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Response<()>,
    <P as Protocol<<S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Error,
>;

impl<S, P, Req, M> ResponseFuture<S, P, Req, M>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn sent(inner: S::Future, limit: Limit, within: Within<P>) -> Self {
        Self {
            inner: Some(inner),
            rest: Rest::Nothing,
            limit,
            within,
            scope: PhantomData,
        }
    }

    pub(super) fn unready(service: S, request: Req, limit: Limit, within: Within<P>) -> Self {
        Self {
            inner: None,
            rest: Rest::Unready(Box::new(Unready {
                service,
                request,
                timer: None,
            })),
            limit,
            within,
            scope: PhantomData,
        }
    }

    /// A call that is not sent.
    pub(super) fn rejected(rejected: Box<Rejected>, within: Within<P>) -> Self {
        Self {
            inner: None,
            rest: Rest::Rejected(rejected),
            limit: Limit::Unlimited,
            within,
            scope: PhantomData,
        }
    }
}

impl<S, P, Req, M> ResponseFuture<S, P, Req, M>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error> + CarryDeadline<Req>,
{
    /// Sends the call once the inner service is ready; an answer if it never gets there.
    fn poll_unsent(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Answer<S, P, Req>>> {
        let mut this = self.as_mut().project();
        let mut unready = match mem::replace(this.rest, Rest::Nothing) {
            Rest::Unready(unready) => unready,
            Rest::Rejected(rejected) => {
                return Poll::Ready(Err(this.within.protocol.reject(rejected)));
            }
            Rest::Nothing | Rest::Timer(_) => panic!("polled after completion"),
        };
        match unready.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                let Unready {
                    mut service,
                    mut request,
                    timer,
                } = *unready;
                // Written before the wait.
                this.within.protocol.refresh_deadline(&mut request);
                this.inner.set(Some(service.call(request)));
                if let Some(timer) = timer {
                    *this.rest = Rest::Timer(timer);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Err(this.within.protocol.not_ready(error)))),
            Poll::Pending if is_over(&mut unready.timer, *this.limit, cx) => {
                let rejected = this.within.state.reject(RejectedKind::DeadlineExceeded);
                Poll::Ready(Err(this.within.protocol.reject(rejected)))
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
            let elapsed = timer.as_ref().map(|timer| timer.elapsed());
            this.within
                .state
                .ended(Ended::TimedOut, elapsed.unwrap_or_default());
            let rejected = this.within.state.time_out(*this.limit);
            return Poll::Ready(this.within.protocol.reject(rejected));
        }
        if let Some(timer) = timer {
            *this.rest = Rest::Timer(timer);
        }
        Poll::Pending
    }
}

impl<S, P, Req, M> Future for ResponseFuture<S, P, Req, M>
where
    S: Service<Req>,
    P: Protocol<S::Response, S::Error> + CarryDeadline<Req>,
    M: TimeoutScope<P::Response<()>>,
{
    type Output = Result<M::Response, P::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.inner.is_none() {
            if let Err(answer) = ready!(self.as_mut().poll_unsent(cx)) {
                return Poll::Ready(answer.map(|response| M::pass_on(response, None)));
            }
        }
        let this = self.as_mut().project();
        let inner = this.inner.as_pin_mut().expect("the call was sent");
        if let Poll::Ready(result) = inner.poll(cx) {
            let left = match this.limit.moment() {
                Some(until) if M::COVERS_BODY => Some(Left {
                    limit: *this.limit,
                    until,
                    state: this.within.state.clone(),
                }),
                _ => None,
            };
            let asks = this.within.state.times_calls() || this.within.state.learns();
            let classified = asks.then(|| this.within.protocol.classify(result.as_ref()));
            let result = this.within.protocol.settle(result, ());
            if let Some(classified) = classified {
                let waited = match mem::replace(this.rest, Rest::Nothing) {
                    Rest::Timer(timer) => Some(timer.elapsed()),
                    // Answered at once.
                    _ => None,
                };
                let outcome = this.within.protocol.judge(classified, result.as_ref());
                this.within.state.answered(outcome, waited);
            }
            this.within.state.leave(&mut this.within.entered);
            return Poll::Ready(result.map(|response| M::pass_on(response, left)));
        }
        let expired = ready!(self.poll_timer(cx));
        Poll::Ready(expired.map(|response| M::pass_on(response, None)))
    }
}

impl<S, P, Req, M> fmt::Debug for ResponseFuture<S, P, Req, M>
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
