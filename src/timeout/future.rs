//! The response future of a timeout.

use std::{
    fmt,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use crate::{
    CarryDeadline, Rejected, RejectedKind,
    ambient::{
        clock,
        timer::{self, CallTimer},
    },
    protocol::Protocol,
    sync::Held,
    timeout::{
        TimeoutScope,
        limit::Limit,
        scope::{Left, is_over, starts_over},
        state::{Ended, Entered, State, TimerShare},
    },
};

pin_project! {
    /// The response future of a [`Timeout`](super::Timeout). Its output is the inner result, or a
    /// rejection when the time was over.
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
            let state = &this.within.state;
            // The clock is read only if durations are recorded: an ended call, whose duration was
            // recorded, has no more of it.
            if state.times_calls() {
                if let Some(waited) = this.rest.waited() {
                    state.ended(Ended::Cancelled, waited);
                }
            }
            this.rest.retract(state);
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
    /// Begins a call, unless its stack is draining, or its deadline has passed.
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
    /// Also runs for a call that panics before there is a future.
    #[inline]
    fn drop(&mut self) {
        self.state.leave(&mut self.entered);
    }
}

/// The state that few calls need. Boxed in parts, so that the other calls do not carry it.
enum Rest<S, Req> {
    /// Sent, and has not had to wait yet.
    Nothing,
    /// Sent, and waiting.
    Timer(CallTimer),
    /// Sent, and waiting since this time. The timer of an attempt beneath wakes the task.
    Shared(Instant),
    /// To be sent when the inner service is ready.
    Unready(Box<Unready<S, Req>>),
    Rejected(Box<Rejected>),
}

struct Unready<S, Req> {
    service: S,
    request: Req,
    timer: Option<CallTimer>,
}

impl<S, Req> Rest<S, Req> {
    /// Withdraws the timer's announcement: the timer is dropped, or no longer matters. It may have
    /// been announced earlier in this poll.
    #[inline]
    fn retract(&self, state: &State) {
        if matches!(self, Self::Timer(_)) && state.timer_share() == TimerShare::Attempt {
            timer::retract();
        }
    }

    /// Returns how long the call has waited since it was sent, if it has.
    fn waited(&self) -> Option<Duration> {
        match self {
            Self::Timer(timer) => Some(timer.elapsed()),
            Self::Shared(since) => Some(clock::moment().saturating_duration_since(*since)),
            Self::Nothing | Self::Unready(_) | Self::Rejected(_) => None,
        }
    }
}

/// The inner answer, before the scope has passed it on.
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

    /// Makes the future of a call that is rejected unsent.
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
    /// Sends the call once the inner service is ready. Returns an answer if that never happens.
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
            Rest::Nothing | Rest::Timer(_) | Rest::Shared(_) => panic!("polled after completion"),
        };
        match unready.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                let Unready {
                    mut service,
                    mut request,
                    timer,
                } = *unready;
                // The deadline was written before the wait.
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

    /// Gives the call up if its time is over. `announced` is when the timer of a waiting attempt
    /// wakes the task.
    fn poll_timer(
        self: Pin<&mut Self>,
        announced: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer<S, P, Req>> {
        let mut this = self.project();
        let (mut timer, since) = match mem::replace(this.rest, Rest::Nothing) {
            Rest::Timer(timer) => (Some(timer), None),
            Rest::Shared(since) => (None, Some(since)),
            _ => (None, None),
        };
        if let (None, Some(announced), Some(until)) = (&timer, announced, this.limit.moment()) {
            if announced <= until {
                *this.rest = Rest::Shared(since.unwrap_or_else(clock::moment));
                return Poll::Pending;
            }
        }
        let is_over = match since {
            Some(since) => starts_over(&mut timer, (*this.limit, since), cx),
            None => is_over(&mut timer, *this.limit, cx),
        };
        if is_over {
            // Dropped now, and not with this future.
            this.inner.set(None);
            let elapsed = timer.as_ref().map(|timer| timer.elapsed());
            this.within
                .state
                .ended(Ended::TimedOut, elapsed.unwrap_or_default());
            let rejected = this.within.state.time_out(*this.limit);
            return Poll::Ready(this.within.protocol.reject(rejected));
        }
        if let Some(timer) = timer {
            if this.within.state.timer_share() == TimerShare::Attempt {
                timer::announce(timer.until());
            }
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
        let (polled, announced) = match this.within.state.timer_share() {
            TimerShare::Total => timer::listen(|| inner.poll(cx)),
            _ => (inner.poll(cx), None),
        };
        if let Poll::Ready(result) = polled {
            this.rest.retract(&this.within.state);
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
                // `None` if answered at once.
                let waited = mem::replace(this.rest, Rest::Nothing).waited();
                let outcome = this.within.protocol.judge(classified, result.as_ref());
                this.within.state.answered(outcome, waited);
            }
            this.within.state.leave(&mut this.within.entered);
            return Poll::Ready(result.map(|response| M::pass_on(response, left)));
        }
        let expired = ready!(self.poll_timer(announced, cx));
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
