//! The response future.

use std::{
    fmt,
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
    striped::Held,
};

pin_project! {
    /// The answer of a [`Retry`](super::Retry): that of the first attempt that succeeded, or of the
    /// last.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req>
    where
        P: Replay<Req>,
        P: Protocol<S::Response, S::Error>,
        S: Service<P::Request>,
    {
        #[pin]
        stage: Stage<S::Future, P::Request, P::Error>,
        // `None` when there will be one attempt only.
        again: Option<Again<S, P::Snapshot>>,
        protocol: P,
        account: Account<S>,
    }
}

pin_project! {
    #[project = StageProject]
    enum Stage<F, Req, Err> {
        Calling { #[pin] attempt: F },
        Sleeping { #[pin] sleep: Sleep, next: Option<Next<Req, Err>> },
        Readying { request: Option<Req> },
        // Between stages, and after the end.
        Ended,
    }
}

/// What a wait ends with.
enum Next<Req, Err> {
    /// The request, made again before its response was dropped, which would otherwise hold a
    /// connection.
    Send(Req),
    /// The request, to be made again now: when an attempt ends with an error, its connection lets
    /// go of the body only after that. Should it not have by now, the error stands.
    Make(Err),
}

/// How long the peer wants the next attempt to wait.
#[derive(Clone, Copy)]
enum Wait {
    Backoff,
    AtLeast(Duration),
    Exactly(Duration),
}

/// What further attempts need.
struct Again<S, T> {
    /// Made for the first retry.
    service: Option<S>,
    kept: Kept<T>,
    /// Retries so far.
    retries: u32,
    previous: Duration,
    /// Whether a retry of a call that was not sent was let through without a token, which is done
    /// once.
    free_ride: bool,
}

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
{
    pub(super) fn new(
        attempt: S::Future,
        kept: Option<Kept<P::Snapshot>>,
        protocol: P,
        shared: Held<Shared<S>>,
    ) -> Self {
        let account = Account::new(shared);
        let previous = account.policy().backoff.base();
        let again = kept.map(|kept| Again {
            service: None,
            kept,
            retries: 0,
            previous,
            free_ride: false,
        });
        Self {
            stage: Stage::Calling { attempt },
            again,
            protocol,
            account,
        }
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
            let stage = match this.stage.as_mut().project() {
                StageProject::Calling { attempt } => {
                    let result = ready!(attempt.poll(cx));
                    let outcome = this.protocol.classify(result.as_ref());
                    let result = this.protocol.settle(result, ());
                    // The attempt goes before its request is made again: it may still hold the
                    // body.
                    this.stage.set(Stage::Ended);
                    let advice = this.protocol.advise(outcome, result.as_ref());
                    let delay = after_attempt(outcome, advice, this.again, this.account);
                    let Some(delay) = delay else {
                        return Poll::Ready(result);
                    };
                    let next = match result {
                        Err(error) => Next::Make(error),
                        Ok(response) => match replay(this.protocol, this.again, this.account) {
                            Some(request) => Next::Send(request),
                            None => return Poll::Ready(Ok(response)),
                        },
                    };
                    Stage::Sleeping {
                        sleep: sleep(delay),
                        next: Some(next),
                    }
                }
                StageProject::Sleeping { sleep, next } => {
                    ready!(sleep.poll(cx));
                    let (request, error) = match next.take().expect("polled after completion") {
                        Next::Send(request) => (Some(request), None),
                        Next::Make(error) => {
                            (replay(this.protocol, this.again, this.account), Some(error))
                        }
                    };
                    match (request, error) {
                        (None, Some(error)) => return Poll::Ready(Err(error)),
                        (request, _) => Stage::Readying { request },
                    }
                }
                StageProject::Readying { request } => {
                    let again = this.again.as_mut().expect("a request is waiting for it");
                    let service = again.service.get_or_insert_with(|| this.account.service());
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        this.account.release();
                        return Poll::Ready(Err(this.protocol.not_ready(error)));
                    }
                    let request = request.take().expect("polled after completion");
                    this.account.send();
                    Stage::Calling {
                        attempt: service.call(request),
                    }
                }
                StageProject::Ended => panic!("polled after completion"),
            };
            this.stage.set(stage);
        }
    }
}

/// Settles what an attempt means to the budget, and how long to wait before the next, if there is
/// to be one.
fn after_attempt<S, T>(
    outcome: Outcome,
    advice: Advice,
    again: &mut Option<Again<S, T>>,
    account: &mut Account<S>,
) -> Option<Duration> {
    match advice {
        Advice::Retry { sent, after } => {
            let wait = after.map_or(Wait::Backoff, Wait::AtLeast);
            return again.as_mut()?.reserve(sent, wait, account);
        }
        Advice::RetryExactly { sent, after } => {
            return again.as_mut()?.reserve(sent, Wait::Exactly(after), account);
        }
        Advice::TurnedAway => account.turned_away(),
        Advice::Stop if outcome == Outcome::Success => account.deposit(),
        Advice::Stop => {}
    }
    None
}

/// The request once more, if it can be made; else the token that was to pay for it goes back.
fn replay<P, S, Req>(
    protocol: &P,
    again: &Option<Again<S, P::Snapshot>>,
    account: &mut Account<S>,
) -> Option<P::Request>
where
    P: Replay<Req>,
{
    let request = again
        .as_ref()
        .and_then(|again| protocol.replay(&again.kept.snapshot));
    if request.is_none() {
        account.release();
    }
    request
}

impl<S, T> Again<S, T> {
    /// How long to wait before the next attempt, if there is to be one; a token is reserved for it
    /// then.
    fn reserve(&mut self, sent: Sent, wait: Wait, account: &mut Account<S>) -> Option<Duration> {
        let policy = account.policy();
        if self.retries + 1 >= policy.attempts || (sent == Sent::Maybe && !self.kept.idempotent) {
            return None;
        }
        let backoff = policy
            .backoff
            .delay(self.retries, self.previous, rand::random());
        let delay = match wait {
            Wait::Backoff => backoff,
            Wait::AtLeast(hint) | Wait::Exactly(hint) if hint > policy.max_retry_after => {
                return None;
            }
            Wait::Exactly(hint) => hint,
            // Spread as widely as the backoff: those that were told the same moment would come back
            // in step.
            Wait::AtLeast(hint) => {
                let spread = Backoff::spread(policy.backoff.range(self.retries), rand::random());
                backoff.max(hint.saturating_add(spread))
            }
        };
        if sent == Sent::No && !self.free_ride {
            self.free_ride = true;
            account.ride_free();
        } else if !account.reserve() {
            return None;
        }
        self.retries += 1;
        self.previous = backoff;
        Some(delay)
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    P: Replay<Req> + Protocol<S::Response, S::Error>,
    S: Service<P::Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retries = self.again.as_ref().map(|again| again.retries);
        f.debug_struct("ResponseFuture")
            .field("retries", &retries)
            .finish_non_exhaustive()
    }
}
