//! The response future.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::Service;

use crate::{
    Outcome,
    algorithm::Backoff,
    protocol::{Advice, Kept, Protocol, Replay, Sent},
    retry::handle::{Account, Shared},
    striped::Striped,
};

pin_project! {
    /// The answer of a [`Retry`](super::Retry): that of the first attempt that succeeded, or of the last.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req>
    where
        P: Replay<Req>,
        S: Service<P::Request>,
    {
        #[pin]
        stage: Stage<S::Future, P::Request>,
        // `None` when there will be one attempt only.
        again: Option<Again<S, P::Snapshot>>,
        protocol: P,
        account: Account<S>,
    }
}

pin_project! {
    #[project = StageProject]
    enum Stage<F, Req> {
        Calling { #[pin] attempt: F },
        Sleeping { #[pin] sleep: Sleep, request: Option<Req> },
        Readying { request: Option<Req> },
        // Between stages, and after the end.
        Ended,
    }
}

/// What further attempts need.
struct Again<S, T> {
    /// Made for the first retry.
    service: Option<S>,
    kept: Kept<T>,
    /// Retries so far.
    retries: u32,
    previous: Duration,
    /// Whether a retry of a call that was not sent was let through without a token, which is done once.
    free_ride: bool,
}

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    P: Replay<Req>,
    S: Service<P::Request>,
{
    pub(super) fn new(attempt: S::Future, kept: Option<Kept<P::Snapshot>>, protocol: P, shared: Striped<Shared<S>>) -> Self {
        let account = Account::new(shared);
        let previous = account.policy().backoff.base();
        let again = kept.map(|kept| Again { service: None, kept, retries: 0, previous, free_ride: false });
        Self { stage: Stage::Calling { attempt }, again, protocol, account }
    }
}

impl<S, P, Req> Future for ResponseFuture<S, P, Req>
where
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request> + Clone,
{
    type Output = Result<P::Response<()>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProject::Calling { attempt } => {
                    let result = ready!(attempt.poll(cx));
                    let outcome = this.protocol.classify(result.as_ref());
                    let result = this.protocol.settle(result, ());
                    if outcome == Outcome::Success {
                        this.account.deposit();
                    }
                    let advice = this.protocol.advise(outcome, result.as_ref());
                    let delay = this.again.as_mut().and_then(|again| again.reserve(advice, this.account));
                    // The attempt goes before its request is made again: it may still hold the body.
                    this.stage.set(Stage::Ended);
                    let request = match (delay, &this.again) {
                        (Some(_), Some(again)) => this.protocol.replay(&again.kept.snapshot),
                        _ => None,
                    };
                    let Some((delay, request)) = delay.zip(request) else { return Poll::Ready(result) };
                    // The result goes before the wait: a response holds its connection.
                    drop(result);
                    Stage::Sleeping { sleep: sleep(delay), request: Some(request) }
                }
                StageProject::Sleeping { sleep, request } => {
                    ready!(sleep.poll(cx));
                    Stage::Readying { request: mem::take(request) }
                }
                StageProject::Readying { request } => {
                    let again = this.again.as_mut().expect("a request is waiting for it");
                    let service = again.service.get_or_insert_with(|| this.account.service());
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        this.stage.set(Stage::Ended);
                        return Poll::Ready(Err(this.protocol.not_ready(error)));
                    }
                    let request = request.take().expect("taken only here");
                    this.account.spend();
                    Stage::Calling { attempt: service.call(request) }
                }
                StageProject::Ended => panic!("polled after completion"),
            };
            this.stage.set(next);
        }
    }
}

impl<S, T> Again<S, T> {
    /// How long to wait before the next attempt, if there is to be one; the budget has paid for it then.
    fn reserve(&mut self, advice: Advice, account: &mut Account<S>) -> Option<Duration> {
        let Advice::Retry { sent, after } = advice else { return None };
        let policy = account.policy();
        if self.retries + 1 >= policy.attempts || (sent == Sent::Maybe && !self.kept.idempotent) {
            return None;
        }
        let mut delay = policy.backoff.delay(self.retries, self.previous, rand::random());
        if let Some(hint) = after {
            if hint > policy.longest_retry_after {
                return None;
            }
            delay = delay.max(hint.saturating_add(Backoff::spread(policy.backoff.base(), rand::random())));
        }
        if sent == Sent::No && !self.free_ride {
            self.free_ride = true;
        } else if !account.reserve() {
            return None;
        }
        self.retries += 1;
        self.previous = delay;
        Some(delay)
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    P: Replay<Req>,
    S: Service<P::Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retries = self.again.as_ref().map(|again| again.retries);
        f.debug_struct("ResponseFuture").field("retries", &retries).finish_non_exhaustive()
    }
}
