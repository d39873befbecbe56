//! The response future.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use crate::{
    Deadline, Outcome,
    ambient::clock,
    budget::{FindBudget, FromService, Origin, Purse, Token},
    hedge::{HedgeHandle, state::Winner},
    protocol::{Advice, Protocol, Replay},
};

pin_project! {
    /// The answer of a [`Hedge`](super::Hedge): the first success of its attempts, or the last
    /// failure.
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

/// Everything but the first attempt.
struct Hedges<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
{
    /// Those under way.
    running: Vec<Running<S, P::Request>>,
    /// How many were sent.
    sent: usize,
    /// `None` if the request may not be sent again, or no further time.
    snapshot: Option<P::Snapshot>,
    /// For the next one; made when the call first has to wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// When the first attempt was sent, if that is to be known and it is under way.
    sent_at: Option<Instant>,
    /// The last failure.
    last: Option<Answer<S, P, Req>>,
    /// The budget of its key.
    purse: B::Held,
    protocol: P,
    origin: O,
}

/// A hedge.
struct Running<S: Service<R>, R> {
    /// What it is made of, until its service is ready.
    unsent: Option<Box<(S, R)>>,
    sent: Option<Pin<Box<S::Future>>>,
    token: Token,
}

type Answer<S, P, Req> = Result<
    <P as Protocol<
        <S as Service<<P as Replay<Req>>::Request>>::Response,
        <S as Service<<P as Replay<Req>>::Request>>::Error,
    >>::Response<()>,
    <P as Protocol<
        <S as Service<<P as Replay<Req>>::Request>>::Response,
        <S as Service<<P as Replay<Req>>::Request>>::Error,
    >>::Error,
>;

/// The result of a hedge, or the error of its service's readiness.
type Ended<S, R> =
    Result<Result<<S as Service<R>>::Response, <S as Service<R>>::Error>, <S as Service<R>>::Error>;

/// What the result of an attempt means for the call.
enum Verdict<A> {
    /// It is the answer.
    Stands(A),
    /// Another attempt may do better.
    Failed { next_at_once: bool },
}

impl<S, P, Req, B, O> ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
    O: Origin<S, Handle = HedgeHandle>,
{
    pub(super) fn new(
        first: S::Future,
        (snapshot, purse): (Option<P::Snapshot>, B::Held),
        protocol: P,
        origin: O,
    ) -> Self {
        let sent_at = origin.handle().state().sent_at();
        Self {
            first: Some(first),
            hedges: Hedges {
                running: Vec::new(),
                sent: 0,
                snapshot,
                timer: None,
                sent_at,
                last: None,
                purse,
                protocol,
                origin,
            },
        }
    }
}

impl<S, P, Req, B, O> Hedges<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
    O: Origin<S, Handle = HedgeHandle>,
{
    /// Dropped unfinished. Only if a hedge was due does the time that the first attempt had say
    /// something: a caller that gives up sooner is no quick answer.
    fn dropped(&mut self) {
        if self.sent > 0 {
            self.first_took();
        }
    }

    /// The first attempt has succeeded, or was overtaken: it took at least as long as it had.
    fn first_took(&mut self) {
        if let Some(sent_at) = self.sent_at.take() {
            self.origin.handle().state().took(sent_at);
        }
    }

    /// Reads the result of an attempt.
    fn judge(
        &mut self,
        result: Result<S::Response, S::Error>,
        winner: Winner,
    ) -> Verdict<Answer<S, P, Req>> {
        let classified = self.protocol.classify(result.as_ref());
        let answer = self.protocol.settle(result, ());
        let outcome = self.protocol.judge(classified, answer.as_ref());
        let advice = self.protocol.advise(outcome, answer.as_ref());
        let succeeded = outcome == Outcome::Success && advice == Advice::Stop;
        if succeeded {
            self.first_took();
        } else if winner == Winner::First {
            // A failure may be quick, which says nothing of how long answers take.
            self.sent_at = None;
        }
        let state = self.origin.handle().state();
        if succeeded {
            state.succeeded(self.purse.own());
            if self.sent > 0 {
                state.ended(winner);
            }
            return Verdict::Stands(answer);
        }
        let next_at_once = matches!(advice, Advice::Retry { .. } | Advice::RetryExactly { .. });
        let rejected = matches!(advice, Advice::Rejected { .. });
        if !rejected {
            state.failed(self.purse.own());
        }
        if !next_at_once && !rejected {
            self.lose();
            return Verdict::Stands(answer);
        }
        // A rejection says less than the failure of an attempt that was sent.
        if !(rejected && self.last.is_some()) {
            self.last = Some(answer);
        }
        Verdict::Failed { next_at_once }
    }

    fn lose(&self) {
        if self.sent > 0 {
            self.origin.handle().state().ended(Winner::Nobody);
        }
    }
}

impl<S, P, Req, B, O> Hedges<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = HedgeHandle>,
{
    /// Starts another attempt, if there is one left and something to pay for it.
    fn start(&mut self) -> bool {
        let state = self.origin.handle().state();
        let Some(snapshot) = &self.snapshot else {
            return false;
        };
        let deadline = self.protocol.deadline(snapshot).map(Deadline::moment);
        let in_time = deadline.is_none_or(|deadline| clock::moment() < deadline);
        let token = in_time.then(|| state.withdraw(self.purse.own())).flatten();
        let (Some(token), Some(mut request)) = (token, self.protocol.replay(snapshot)) else {
            self.snapshot = None;
            return false;
        };
        self.sent += 1;
        let is_last = self.sent >= state.policy().most_hedges();
        let number = u32::try_from(self.sent + 1).unwrap_or(u32::MAX);
        self.protocol.number(&mut request, number);
        let service = self.origin.service();
        self.timer = None;
        if is_last {
            self.snapshot = None;
        }
        self.running.push(Running {
            unsent: Some(Box::new((service, request))),
            sent: None,
            token,
        });
        true
    }

    /// Whether the next one is due, by its time.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.snapshot.is_none() {
            return Poll::Pending;
        }
        let Some(delay) = self.origin.handle().state().delay() else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| {
            let due = clock::later(clock::moment(), delay);
            Box::pin(sleep_until(due))
        });
        timer.as_mut().poll(cx)
    }

    /// Polls the hedges; the answer, or whether another one is to be started.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<Verdict<Answer<S, P, Req>>> {
        let mut number = 0;
        while number < self.running.len() {
            let state = self.origin.handle().state();
            let result = match self.running[number].poll(cx, || state.hedged()) {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    number += 1;
                    continue;
                }
            };
            let mut over = self.running.swap_remove(number);
            match result {
                Ok(result) => {
                    let verdict = self.judge(result, Winner::Hedge);
                    if matches!(
                        verdict,
                        Verdict::Failed {
                            next_at_once: false
                        }
                    ) {
                        // It never reached the upstream.
                        over.token.give_back();
                    }
                    return Poll::Ready(verdict);
                }
                // Never sent: no reason to send the next one, and an answer only if there is none.
                Err(error) => {
                    let error = self.protocol.not_ready(error);
                    self.last.get_or_insert(Err(error));
                }
            }
        }
        Poll::Pending
    }
}

impl<S, R> Running<S, R>
where
    S: Service<R>,
{
    /// Sends it once its service is ready, and waits for its result.
    fn poll(&mut self, cx: &mut Context<'_>, hedged: impl FnOnce()) -> Poll<Ended<S, R>> {
        if let Some(unsent) = &mut self.unsent {
            ready!(unsent.0.poll_ready(cx))?;
        }
        if let Some(unsent) = self.unsent.take() {
            let (mut service, request) = *unsent;
            self.token.send();
            hedged();
            self.sent = Some(Box::pin(service.call(request)));
        }
        let attempt = self
            .sent
            .as_mut()
            .expect("it is sent when it is not unsent");
        attempt.as_mut().poll(cx).map(Ok)
    }
}

impl<S, P, Req, B, O> Future for ResponseFuture<S, P, Req, B, O>
where
    B: FindBudget<Req>,
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
    O: Origin<S, Handle = HedgeHandle>,
{
    type Output = Answer<S, P, Req>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let hedges = &mut *this.hedges;
            let mut verdict = None;
            if let Some(first) = this.first.as_mut().as_pin_mut() {
                if let Poll::Ready(result) = first.poll(cx) {
                    this.first.set(None);
                    verdict = Some(hedges.judge(result, Winner::First));
                }
            }
            if verdict.is_none() {
                if let Poll::Ready(judged) = hedges.poll_running(cx) {
                    verdict = Some(judged);
                }
            }
            match verdict {
                Some(Verdict::Stands(answer)) => {
                    this.first.set(None);
                    hedges.running.clear();
                    return Poll::Ready(answer);
                }
                Some(Verdict::Failed { next_at_once: true }) if hedges.start() => continue,
                // Look at those that are left.
                Some(Verdict::Failed { .. }) => continue,
                None => {}
            }
            if this.first.is_none() && hedges.running.is_empty() {
                hedges.lose();
                let last = hedges.last.take().expect("polled after completion");
                return Poll::Ready(last);
            }
            match hedges.poll_due(cx) {
                Poll::Ready(()) => {
                    hedges.timer = None;
                    hedges.start();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
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
            .field("hedges", &self.hedges.sent)
            .finish_non_exhaustive()
    }
}
