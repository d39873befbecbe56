//! The state of a call from its first failed attempt on.

use std::{
    any::Any,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep_until};
use tower::Service;

use crate::{
    ambient::clock,
    protocol::Changing,
    retry::{
        plan::{History, Plan},
        state::Cause,
    },
};

/// The retries of one call. Boxed, because most calls never retry.
pub(super) struct Again<S, Req, Err> {
    service: S,
    timer: Pin<Box<Sleep>>,
    stage: Stage<Req, Err>,
    /// The error of the attempt before the one under way, as far as it was kept.
    kept: Option<Err>,
    /// The retry that is planned or under way, with its token for as long as it can go back.
    plan: Plan,
}

enum Stage<Req, Err> {
    /// The next attempt's request was made before the response was dropped.
    Sleeping(Req),
    /// The next attempt's request is made after the wait. If that is impossible, the error is the
    /// answer.
    SleepingOn(Err),
    /// The next attempt's request is being changed, until the deadline.
    Changing(Req, Option<Err>, Changing),
    /// Waiting for the inner service, until the deadline. The last error, if any, is kept until the
    /// attempt is really sent.
    Readying(Req, Option<Err>),
    /// An attempt is under way, or the call has ended.
    Elsewhere,
}

/// The ready service and the request of the next attempt, or why it is not sent.
type ReadyAttempt<'a, S, Req, Err> =
    Result<(&'a mut S, Req), Lost<Err, <S as Service<Req>>::Error>>;

/// The reason why a planned retry was not sent.
pub(super) enum Lost<Err, Inner> {
    NotReplayable(Err),
    /// The last error, if there was one, and the readiness error.
    NotReady(Option<Err>, Inner),
    TooLate(Option<Err>),
}

impl<S, Req, Err> Again<S, Req, Err> {
    pub(super) fn new(service: S, plan: Plan) -> Self {
        Self {
            service,
            timer: Box::pin(sleep_until(plan.at)),
            stage: Stage::Elsewhere,
            kept: None,
            plan,
        }
    }

    pub(super) fn history(&self) -> History {
        self.plan.history
    }

    /// Returns the wait before the planned attempt.
    pub(super) fn wait(&self) -> Duration {
        self.plan.wait
    }

    pub(super) fn cause(&self) -> Cause {
        self.plan.cause
    }

    /// Plans another attempt after the one that has failed.
    pub(super) fn set_plan(&mut self, plan: Plan) {
        self.timer.as_mut().reset(plan.at);
        self.plan = plan;
    }

    /// Returns the token: the attempt under way was rejected before it reached the upstream.
    pub(super) fn rejected(&mut self) {
        self.plan.token.give_back();
    }

    /// Takes what was kept of the error of the attempt before the one under way.
    pub(super) fn take_kept(&mut self) -> Option<Err> {
        self.kept.take()
    }

    pub(super) fn sleep(&mut self, request: Req) {
        self.stage = Stage::Sleeping(request);
    }

    pub(super) fn sleep_on(&mut self, error: Err) {
        self.stage = Stage::SleepingOn(error);
    }

    /// Waits until the next attempt can be sent. `keep` then returns what to keep of the last
    /// error. `is_open` returns whether a circuit beneath is certain to reject the attempt now. If
    /// so, an error that is still held is the answer.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        (replay, keep): (impl Fn() -> Option<Req>, impl Fn(Err) -> Option<Err>),
        (changing, change): (
            impl Fn(&mut Req) -> Option<Changing>,
            impl Fn(&mut Req, Box<dyn Any + Send>),
        ),
        is_open: impl Fn() -> bool,
    ) -> Poll<ReadyAttempt<'_, S, Req, Err>>
    where
        S: Service<Req>,
    {
        if let Stage::Sleeping(_) | Stage::SleepingOn(_) = self.stage {
            ready!(self.timer.as_mut().poll(cx));
        }
        let (mut request, error, begun) = match mem::replace(&mut self.stage, Stage::Elsewhere) {
            Stage::Sleeping(mut request) => {
                let begun = changing(&mut request);
                (request, None, begun)
            }
            Stage::SleepingOn(error) if is_open() => {
                return self.lose(Lost::TooLate(Some(error)));
            }
            Stage::SleepingOn(error) => match replay() {
                Some(mut request) => {
                    let begun = changing(&mut request);
                    (request, Some(error), begun)
                }
                None => return self.lose(Lost::NotReplayable(error)),
            },
            Stage::Changing(request, error, changing) => (request, error, Some(changing)),
            Stage::Readying(request, error) => (request, error, None),
            Stage::Elsewhere => panic!("polled after completion"),
        };
        // The wait may have ended late, or the service may be ready only now.
        if self.plan.deadline.is_some_and(clock::has_passed) {
            return self.lose(Lost::TooLate(error));
        }
        if let Some(mut changing) = begun {
            match changing.poll(cx) {
                Poll::Ready(to) => change(&mut request, to),
                Poll::Pending if self.is_too_late(cx) => return self.lose(Lost::TooLate(error)),
                Poll::Pending => {
                    self.stage = Stage::Changing(request, error, changing);
                    return Poll::Pending;
                }
            }
        }
        match self.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.plan.token.send();
                self.kept = error.and_then(keep);
                Poll::Ready(Ok((&mut self.service, request)))
            }
            Poll::Ready(Err(not_ready)) => self.lose(Lost::NotReady(error, not_ready)),
            Poll::Pending if self.is_too_late(cx) => self.lose(Lost::TooLate(error)),
            Poll::Pending => {
                self.stage = Stage::Readying(request, error);
                Poll::Pending
            }
        }
    }

    /// Returns whether the deadline has passed while the service is not ready.
    fn is_too_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.plan.deadline else {
            return false;
        };
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Gives up the retry: its token goes back now, and not when the future is dropped.
    fn lose<T, Inner>(&mut self, lost: Lost<Err, Inner>) -> Poll<Result<T, Lost<Err, Inner>>> {
        self.plan.token.give_back();
        Poll::Ready(Err(lost))
    }
}
