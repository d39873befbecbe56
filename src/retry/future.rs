//! The response future.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    Outcome,
    ambient::clock,
    budget::{Counting, FindBudget, Purse},
    observe::trace,
    protocol::{Advice, Kept, Protocol, Replay},
    resend::{FromService, Origin},
    retry::{
        RetryHandle,
        again::{Again, Lost},
        plan::{Plan, Reading},
        state::RetryEnd,
    },
};

pin_project! {
    /// The response future of a [`Retry`](super::Retry). Its output is the result of the first
    /// attempt that succeeded, or else of the last one.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req, B, O = FromService<S, RetryHandle>>
    where
        B: FindBudget<Req>,
        P: Replay<Req>,
        P: Protocol<S::Response, S::Error>,
        S: Service<P::Request>,
    {
        // `None` between attempts, and after the end.
        #[pin]
        attempt: Option<S::Future>,
        // If nothing was kept: how to count a failure.
        kept: Result<Kept<P::Snapshot>, RetryEnd>,
        // The budget of the call's key.
        purse: B::Held,
        // If true, the budget has counted the call, which happens at the first poll.
        has_begun: bool,
        // Made for the first retry: calls that succeed at once do not carry it.
        again: Option<Box<Again<S, P::Request, P::Error>>>,
        protocol: P,
        origin: O,
    }
}

type AttemptResult<S, P, Req> = Result<
    <P as Protocol<
        <S as Service<<P as Replay<Req>>::Request>>::Response,
        <S as Service<<P as Replay<Req>>::Request>>::Error,
    >>::Response<()>,
    <P as Protocol<
        <S as Service<<P as Replay<Req>>::Request>>::Response,
        <S as Service<<P as Replay<Req>>::Request>>::Error,
    >>::Error,
>;

impl<S, P, Req, B, O> ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
{
    #[inline]
    pub(super) fn new(
        attempt: S::Future,
        (kept, purse): (Result<Kept<P::Snapshot>, RetryEnd>, B::Held),
        protocol: P,
        origin: O,
    ) -> Self {
        Self {
            attempt: Some(attempt),
            kept,
            purse,
            has_begun: false,
            again: None,
            protocol,
            origin,
        }
    }
}

impl<S, P, Req, B, O> ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = RetryHandle>,
{
    /// Plans a retry after an attempt that was not a plain success, or returns its result as the
    /// answer.
    #[cold]
    fn after(
        mut self: Pin<&mut Self>,
        read: Reading,
        result: AttemptResult<S, P, Req>,
    ) -> Option<AttemptResult<S, P, Req>> {
        let unsent = self.kept.as_ref().is_ok_and(|kept| {
            let proof = self.protocol.proof(read.advice, result.as_ref());
            proof.holds(|| self.protocol.was_taken(&kept.snapshot))
        });
        let planned = self.as_mut().plan(Reading { unsent, ..read });
        let this = self.project();
        // A rejected retry says less than the error it was meant to mend, if that was kept.
        let kept = match (read.advice, this.again.as_mut()) {
            (Advice::Rejected { .. }, Some(again)) => again.take_kept(),
            _ => None,
        };
        let result = kept.map_or(result, Err);
        if let Err(end) = planned {
            this.origin.handle().state().count(end);
            return Some(result);
        }
        let again = this.again.as_mut().expect("it holds the plan");
        let state = this.origin.handle().state();
        let kept = this.kept.as_ref().ok().map(|kept| &kept.snapshot);
        let protocol = &*this.protocol;
        let tell = |again: &Again<S, P::Request, P::Error>, result: Result<&_, &_>| {
            state.retries(
                (again.history().retries, again.wait(), read.outcome),
                result.ok().and_then(|response| protocol.status(response)),
                result.err().and_then(|error| protocol.error(error)),
                kept.and_then(|kept| protocol.head(kept)),
                &|| protocol.describe(result),
            );
        };
        match result {
            // An attempt that ended with an error may drop its body only later, so its request is
            // made after the wait. The error is kept until the retry is sent.
            Err(error) => {
                tell(again, Err(&error));
                again.sleep_on(error);
            }
            // A response holds its connection. So the request is made first, and the response is
            // dropped before the wait.
            Ok(response) => match kept.and_then(|kept| protocol.replay(kept)) {
                Some(request) => {
                    tell(again, Ok(&response));
                    again.sleep(request);
                }
                None => {
                    again.rejected();
                    state.count(RetryEnd::NotReplayable);
                    return Some(Ok(response));
                }
            },
        }
        None
    }

    /// Plans the next attempt, or returns how the call ends.
    fn plan(self: Pin<&mut Self>, read: Reading) -> Result<(), RetryEnd> {
        let this = self.project();
        let state = this.origin.handle().state();
        if let (Advice::Rejected { .. }, Some(again)) = (read.advice, this.again.as_mut()) {
            again.rejected();
        }
        let history = this.again.as_ref().map(|again| again.history());
        let own = this.purse.own();
        let plan = Plan::make(
            (
                state,
                &*this.purse,
                key_of::<Req, _>(&*this.purse, this.protocol),
            ),
            || this.origin.handle().config_of_call(),
            read,
            this.kept,
            history.unwrap_or_default(),
            |snapshot| this.protocol.deadline(snapshot),
        );
        let plan = match plan {
            Ok(plan) => plan,
            Err(RetryEnd::NotRetryable) if read.outcome == Outcome::Success => {
                if !read.counted {
                    state.succeeded(own);
                }
                return Err(match history {
                    Some(_) => RetryEnd::Recovered,
                    None => RetryEnd::FirstTry,
                });
            }
            Err(end) => {
                // A budget that had no token has already counted the failure.
                let asked = end == RetryEnd::BudgetDenied && this.kept.is_ok();
                // An unfit request of the caller says nothing about the upstream.
                let fails = read.outcome != Outcome::Ignore;
                if fails && !(read.counted || asked || end == RetryEnd::Rejected) {
                    state.failed(own);
                }
                return Err(end);
            }
        };
        match this.again {
            Some(again) => again.set_plan(plan),
            None => *this.again = Some(Box::new(Again::new(this.origin.service(), plan))),
        }
        Ok(())
    }

    /// Waits for the next attempt and sends it.
    #[cold]
    fn poll_again(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AttemptResult<S, P, Req>>> {
        let mut this = self.project();
        let again = this.again.as_mut().expect("polled after completion");
        let (protocol, kept) = (&*this.protocol, &*this.kept);
        let cause = again.cause();
        let attempt = again.history().retries + 1;
        let replay = || protocol.replay(&kept.as_ref().ok()?.snapshot);
        let keep = |error| protocol.keep(error);
        let changing = |request: &mut _| protocol.changing(request, attempt);
        let change = |request: &mut _, to| protocol.change(request, to);
        let state = this.origin.handle().state();
        let key = key_of::<Req, _>(&*this.purse, protocol);
        let is_open = || state.is_open_at(key, clock::moment());
        let lost = match ready!(again.poll_send(cx, (replay, keep), (changing, change), is_open)) {
            Ok((service, mut request)) => {
                protocol.number(&mut request, attempt);
                trace::attempt(attempt);
                this.origin.handle().state().count_retry(cause);
                this.attempt.set(Some(service.call(request)));
                return Poll::Ready(Ok(()));
            }
            Err(lost) => lost,
        };
        let (end, answer) = match lost {
            Lost::NotReplayable(error) => (RetryEnd::NotReplayable, Err(error)),
            Lost::NotReady(kept, error) => {
                let error = kept.unwrap_or_else(|| protocol.not_ready(error));
                (RetryEnd::NotSent, Err(error))
            }
            Lost::TooLate(Some(error)) => (RetryEnd::NotSent, Err(error)),
            Lost::TooLate(None) => (
                RetryEnd::NotSent,
                protocol.reject(this.origin.handle().state().too_late()),
            ),
        };
        this.origin.handle().state().count(end);
        Poll::Ready(Err(answer))
    }
}

impl<S, P, Req, B, O> Future for ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = RetryHandle>,
{
    type Output = AttemptResult<S, P, Req>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let state = this.origin.handle().state();
        let counting = state.enter(this.purse.own(), this.has_begun);
        let polled = self.poll_attempts(cx, &counting);
        if polled.is_ready() {
            counting.counted();
        }
        polled
    }
}

impl<S, P, Req, B, O> ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = RetryHandle>,
{
    #[inline]
    fn poll_attempts(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        counting: &Counting,
    ) -> Poll<AttemptResult<S, P, Req>> {
        loop {
            let mut this = self.as_mut().project();
            if let Some(attempt) = this.attempt.as_mut().as_pin_mut() {
                let result = ready!(attempt.poll(cx));
                let counted = counting.take_counted();
                let classified = this.protocol.classify(result.as_ref());
                let result = this.protocol.settle(result, ());
                let outcome = this.protocol.judge(classified, result.as_ref());
                let advice = this.protocol.advise(outcome, result.as_ref());
                // The attempt is dropped before its request is made again: it may still hold the
                // body.
                this.attempt.set(None);
                let good = outcome == Outcome::Success && advice == Advice::Stop;
                if good && this.again.is_none() {
                    let state = this.origin.handle().state();
                    state.first_try(this.purse.own(), counted);
                    return Poll::Ready(result);
                }
                if let (Advice::Rejected { .. }, None) = (advice, &this.again) {
                    let state = this.origin.handle().state();
                    if !state.fixed().retry_rejected {
                        // Without the plan, which would say the same: a rejection costs little.
                        state.count(RetryEnd::Rejected);
                        return Poll::Ready(result);
                    }
                }
                let read = Reading {
                    outcome,
                    advice,
                    unsent: false,
                    counted,
                };
                if let Some(answer) = self.as_mut().after(read, result) {
                    return Poll::Ready(answer);
                }
            }
            if let Err(answer) = ready!(self.as_mut().poll_again(cx)) {
                return Poll::Ready(answer);
            }
        }
    }
}

/// Returns the key of the next attempt, if that is certain to be the key of the call.
fn key_of<'a, Req, P: Replay<Req>>(purse: &'a impl Purse, protocol: &P) -> Option<&'a dyn Any> {
    purse.key().filter(|_| !protocol.may_change())
}

impl<S, P, Req, B, O> fmt::Debug for ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retries = self
            .again
            .as_ref()
            .map_or(0, |again| again.history().retries);
        f.debug_struct("ResponseFuture")
            .field("retries", &retries)
            .finish_non_exhaustive()
    }
}
