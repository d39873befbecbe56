//! The response future of a timeout.

use std::{
    fmt,
    marker::PhantomData,
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
        covers::TimerShare,
        hold::Hold,
        limit::TimeLimit,
        scope::{Left, is_over, starts_over},
        state::{Ended, State},
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
        // `None` for a call that was sent and has not had to wait yet.
        rest: Option<Rest<S, Req>>,
        limit: TimeLimit,
        within: TimedCall<P>,
        scope: PhantomData<fn() -> M>,
    }

    impl<S, P, Req, M> PinnedDrop for ResponseFuture<S, P, Req, M>
    where
        S: Service<Req>,
    {
        #[inline(always)]
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(rest) = this.rest {
                rest.dropped(&this.within.hold);
            }
        }
    }
}

/// A call that has begun, until its end.
pub(super) struct TimedCall<P> {
    protocol: P,
    hold: Hold,
}

impl<P> TimedCall<P> {
    #[inline(always)]
    pub(super) fn of(protocol: P, state: &Held<State>) -> Self {
        Self {
            protocol,
            hold: Hold::of(state),
        }
    }

    /// Begins the call, unless its stack is draining, or its deadline has passed.
    #[inline(always)]
    pub(super) fn begin<Req>(
        &mut self,
        state: &Held<State>,
        request: &mut Req,
    ) -> Result<TimeLimit, Box<Rejected>>
    where
        P: CarryDeadline<Req>,
    {
        self.hold.enter(state)?;
        let limit = state.limit(&self.protocol, request);
        let limit = limit.ok_or_else(|| state.reject(RejectedKind::DeadlineExceeded))?;
        if let TimeLimit::ByCaller(_) = limit {
            // Its end is recorded.
            self.hold.keep(state);
        }
        Ok(limit)
    }
}

impl<P> TimedCall<P> {
    /// Returns whether the state records how long the call takes.
    fn records(&self) -> bool {
        self.hold.held().is_some_and(|state| state.records())
    }

    fn is_over(
        &self,
        timer: &mut Option<CallTimer>,
        limit: TimeLimit,
        cx: &mut Context<'_>,
    ) -> bool {
        is_over(timer, (limit, self.records()), cx)
    }
}

impl<P> Drop for TimedCall<P> {
    /// Also runs for a call that panics before there is a future.
    #[inline]
    fn drop(&mut self) {
        self.hold.leave();
    }
}

/// The state that few calls need. Boxed in parts, so that the other calls do not carry it.
enum Rest<S, Req> {
    /// Sent, and waiting.
    Timer(CallTimer),
    /// Sent, and waiting since this time, if that is recorded. The timer of an attempt beneath
    /// wakes the task.
    Shared(Option<Instant>),
    /// To be sent when the inner service is ready.
    Unready(Box<Unready<S, Req>>),
    Rejected(Box<Rejected>),
}

struct Unready<S, Req> {
    service: S,
    request: Req,
    timer: Option<CallTimer>,
}

impl<S, Req> Unready<S, Req> {
    /// Returns whether its time has passed without a poll.
    fn is_late(&self, limit: TimeLimit) -> bool {
        let until = self.timer.as_ref().map(CallTimer::until);
        until.or(limit.moment()).is_some_and(clock::has_passed)
    }
}

impl<S, Req> Rest<S, Req> {
    /// Withdraws the timer's announcement: the timer is dropped, or no longer matters. It may have
    /// been announced earlier in this poll.
    fn retract(&self, hold: &Hold) {
        if matches!(self, Self::Timer(_)) && hold.timer_share() == TimerShare::Attempt {
            timer::retract();
        }
    }

    /// Returns how long the call has waited since it was sent, if it has.
    fn waited(&self) -> Option<Duration> {
        match self {
            Self::Timer(timer) => timer.elapsed(),
            Self::Shared(since) => {
                let since = (*since)?;
                Some(clock::moment().saturating_duration_since(since))
            }
            Self::Unready(_) | Self::Rejected(_) => None,
        }
    }

    /// Ends a call that is dropped, or that has waited and ended.
    #[inline(never)]
    fn dropped(&self, hold: &Hold) {
        // The clock is read only if durations are recorded: an ended call, whose duration was
        // recorded, has no more of it.
        if let Some(state) = hold.held().filter(|state| state.times_calls()) {
            if let Some(waited) = self.waited() {
                state.ended(Ended::Cancelled, waited);
            }
        }
        self.retract(hold);
    }
}

/// The inner answer, before the scope has passed it on.
type InnerResult<S, P, Req> = Result<
    <P as Protocol<<S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Response<()>,
    <P as Protocol<<S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Error,
>;

impl<S, P, Req, M> ResponseFuture<S, P, Req, M>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn sent(inner: S::Future, limit: TimeLimit, within: TimedCall<P>) -> Self {
        Self {
            inner: Some(inner),
            rest: None,
            limit,
            within,
            scope: PhantomData,
        }
    }

    pub(super) fn unready(
        service: S,
        request: Req,
        limit: TimeLimit,
        within: TimedCall<P>,
    ) -> Self {
        Self {
            inner: None,
            rest: Some(Rest::Unready(Box::new(Unready {
                service,
                request,
                timer: None,
            }))),
            limit,
            within,
            scope: PhantomData,
        }
    }

    /// Makes the future of a call that is rejected unsent.
    pub(super) fn rejected(rejected: Box<Rejected>, within: TimedCall<P>) -> Self {
        Self {
            inner: None,
            rest: Some(Rest::Rejected(rejected)),
            limit: TimeLimit::Unlimited,
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
    ) -> Poll<Result<(), InnerResult<S, P, Req>>> {
        let mut this = self.as_mut().project();
        let mut unready = match this.rest.take() {
            Some(Rest::Unready(unready)) => unready,
            Some(Rest::Rejected(rejected)) => {
                return Poll::Ready(Err(this.within.protocol.reject(rejected)));
            }
            None | Some(Rest::Timer(_) | Rest::Shared(_)) => panic!("polled after completion"),
        };
        let ready = unready.service.poll_ready(cx);
        let is_over = match &ready {
            Poll::Pending => this.within.is_over(&mut unready.timer, *this.limit, cx),
            // Ready only now: nothing is sent whose answer would be too late.
            Poll::Ready(Ok(())) => unready.is_late(*this.limit),
            Poll::Ready(Err(_)) => false,
        };
        if is_over {
            let kind = RejectedKind::DeadlineExceeded;
            let rejected = this.within.hold.reject(kind, |state| state.reject(kind));
            return Poll::Ready(Err(this.within.protocol.reject(rejected)));
        }
        match ready {
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
                    *this.rest = Some(Rest::Timer(timer));
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Err(this.within.protocol.not_ready(error)))),
            Poll::Pending => {
                *this.rest = Some(Rest::Unready(unready));
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
    ) -> Poll<InnerResult<S, P, Req>> {
        let mut this = self.project();
        let (mut timer, waits) = match this.rest.take() {
            Some(Rest::Timer(timer)) => (Some(timer), None),
            Some(Rest::Shared(since)) => (None, Some(since)),
            _ => (None, None),
        };
        if let (None, Some(announced), Some(until)) = (&timer, announced, this.limit.moment()) {
            if announced <= until {
                let since = || this.within.records().then(clock::moment);
                *this.rest = Some(Rest::Shared(waits.unwrap_or_else(since)));
                return Poll::Pending;
            }
        }
        let is_over = match waits {
            Some(since) => starts_over(&mut timer, (*this.limit, since), cx),
            None => this.within.is_over(&mut timer, *this.limit, cx),
        };
        if is_over {
            // Dropped now, and not with this future.
            this.inner.set(None);
            let hold = &this.within.hold;
            if let Some(state) = hold.held().filter(|state| state.times_calls()) {
                let elapsed = timer.as_ref().and_then(CallTimer::elapsed);
                state.ended(Ended::TimedOut, elapsed.unwrap_or_default());
            }
            let time_out = |state: &State| state.time_out(*this.limit);
            let rejected = hold.reject(RejectedKind::TimedOut, time_out);
            return Poll::Ready(this.within.protocol.reject(rejected));
        }
        if let Some(timer) = timer {
            if this.within.hold.timer_share() == TimerShare::Attempt {
                timer::announce(timer.until());
            }
            *this.rest = Some(Rest::Timer(timer));
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
        let (polled, announced) = match this.within.hold.timer_share() {
            TimerShare::Total => timer::listen(|| inner.poll(cx)),
            _ => (inner.poll(cx), None),
        };
        if let Poll::Ready(result) = polled {
            let TimedCall { protocol, hold, .. } = &this.within;
            if let Some(rest) = this.rest {
                rest.retract(hold);
            }
            let left = match (this.limit.moment(), hold.held()) {
                (Some(until), Some(state)) if M::COVERS_BODY => Some(Left {
                    limit: *this.limit,
                    until,
                    state: state.clone(),
                }),
                _ => None,
            };
            let result = match hold.held().filter(|state| state.records()) {
                None => protocol.settle(result, ()),
                Some(state) => {
                    let classified = protocol.classify(result.as_ref());
                    let result = protocol.settle(result, ());
                    // `None` if answered at once.
                    let waited = this.rest.take().and_then(|rest| rest.waited());
                    state.answered(protocol.judge(classified, result.as_ref()), waited);
                    result
                }
            };
            this.within.hold.leave();
            return Poll::Ready(M::pass(result, left));
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
