//! The response future of a hedge.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    budget::{Counting, FindBudget},
    hedge::{
        HedgeHandle,
        hedges::{AttemptResult, Hedges, Of, Verdict},
        state::Winner,
    },
    protocol::{Protocol, Replay},
    resend::{FromService, Origin},
};

pin_project! {
    /// The response future of a [`Hedge`](super::Hedge). Its output is the first success of its
    /// attempts, or the last failure.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req, B, O = FromService<S, HedgeHandle>>
    where
        B: FindBudget<Req>,
        P: Replay<Req>,
        P: Protocol<S::Response, S::Error>,
        S: Service<P::Request>,
        O: Origin<S, Handle = HedgeHandle>,
    {
        // `None` once it has failed.
        #[pin]
        first: Option<S::Future>,
        hedges: Hedges<S, P, Req, B, O>,
    }

    impl<S, P, Req, B, O> PinnedDrop for ResponseFuture<S, P, Req, B, O>
    where
        B: FindBudget<Req>,
        P: Replay<Req>,
        P: Protocol<S::Response, S::Error>,
        S: Service<P::Request>,
        O: Origin<S, Handle = HedgeHandle>,
    {
        fn drop(this: Pin<&mut Self>) {
            this.project().hedges.dropped();
        }
    }
}

impl<S, P, Req, B, O> ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
    O: Origin<S, Handle = HedgeHandle>,
{
    pub(super) fn new(first: S::Future, hedges: Hedges<S, P, Req, B, O>) -> Self {
        let first = Some(first);
        Self { first, hedges }
    }
}

impl<S, P, Req, B, O> ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = HedgeHandle>,
{
    fn poll_attempts(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        counting: &Counting,
    ) -> Poll<AttemptResult<S, P, Req>> {
        let mut this = self.project();
        let hedges = &mut *this.hedges;
        loop {
            let mut verdict = None;
            if let Some(first) = this.first.as_mut().as_pin_mut() {
                if let Poll::Ready(result) = first.poll(cx) {
                    this.first.set(None);
                    let of = Of {
                        winner: Winner::First,
                        first_runs: false,
                        counted: counting.take_counted(),
                    };
                    verdict = Some(hedges.judge(result, of));
                }
            }
            if verdict.is_none() {
                let running = hedges.poll_running(cx, counting, this.first.is_some());
                if let Poll::Ready(judged) = running {
                    verdict = Some(judged);
                }
            }
            match verdict {
                Some(Verdict::Stands(answer)) => {
                    this.first.set(None);
                    hedges.end();
                    return Poll::Ready(answer);
                }
                Some(Verdict::Failed(next)) => {
                    hedges.go_on(next);
                    continue;
                }
                None => {}
            }
            if this.first.is_none() && hedges.are_over() {
                let last = hedges.give_up().expect("polled after completion");
                return Poll::Ready(last);
            }
            ready!(hedges.poll_due(cx));
        }
    }
}

impl<S, P, Req, B, O> Future for ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = HedgeHandle>,
{
    type Output = AttemptResult<S, P, Req>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let hedges = self.as_mut().project().hedges;
        let counting = hedges.enter();
        let polled = self.poll_attempts(cx, &counting);
        if polled.is_ready() {
            counting.counted();
        }
        polled
    }
}

impl<S, P, Req, B, O> fmt::Debug for ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
    O: Origin<S, Handle = HedgeHandle>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("hedges", &self.hedges.started())
            .finish_non_exhaustive()
    }
}
