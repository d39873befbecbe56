//! What a call needs from its first failed attempt on.

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
    protocol::Changing,
    retry::{
        plan::{History, Plan},
        state::Cause,
    },
};

/// The retries of one call. In a box of its own: most calls never have one.
pub(super) struct Again<S, Req, Err> {
    service: S,
    timer: Pin<Box<Sleep>>,
    stage: Stage<Req, Err>,
    /// What was kept of the error before the attempt under way.
    kept: Option<Err>,
    /// For the retry that is planned or under way; its token is there for as long as it can go
    /// back.
    plan: Plan,
}

enum Stage<Req, Err> {
    /// The next attempt's request was made before the response was let go.
    Sleeping(Req),
    /// The next attempt's request is made after the wait. Should that not be possible, the error
    /// stands.
    SleepingOn(Err),
    /// The next attempt's request is being changed, until the deadline.
    Changing(Req, Option<Err>, Changing),
    /// Waiting for the inner service, until the deadline. The last error, where there was one, is
    /// kept until the attempt is really sent.
    Readying(Req, Option<Err>),
    /// An attempt is under way, or the call has ended.
    Elsewhere,
}

/// The service to send the next attempt to, which is ready, and what to send; or why not.
type Next<'a, S, Req, Err> = Result<(&'a mut S, Req), Lost<Err, <S as Service<Req>>::Error>>;

/// Why a planned retry was not sent.
pub(super) enum Lost<Err, Inner> {
    NotReplayable(Err),
    /// The last error, if there was one, and that of the readiness.
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

    /// How long is waited before the attempt that is planned.
    pub(super) fn wait(&self) -> Duration {
        self.plan.wait
    }

    pub(super) fn cause(&self) -> Cause {
        self.plan.cause
    }

    /// Another attempt after the one that has failed.
    pub(super) fn set_plan(&mut self, plan: Plan) {
        self.timer.as_mut().reset(plan.at);
        self.plan = plan;
    }

    /// The attempt under way was rejected before it reached the upstream.
    pub(super) fn rejected(&mut self) {
        self.plan.token.give_back();
    }

    /// What was kept of the error before the attempt under way.
    pub(super) fn take_kept(&mut self) -> Option<Err> {
        self.kept.take()
    }

    pub(super) fn sleep(&mut self, request: Req) {
        self.stage = Stage::Sleeping(request);
    }

    pub(super) fn sleep_on(&mut self, error: Err) {
        self.stage = Stage::SleepingOn(error);
    }

    /// Waits until the next attempt can be sent. `keep`: what is kept of the last one's error then.
    /// `is_open`: whether a circuit beneath is certain to reject it now; an error that was not let
    /// go is the answer then.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        (replay, keep): (impl Fn() -> Option<Req>, impl Fn(Err) -> Option<Err>),
        (changing, change): (
            impl Fn(&mut Req) -> Option<Changing>,
            impl Fn(&mut Req, Box<dyn Any + Send>),
        ),
        is_open: impl Fn() -> bool,
    ) -> Poll<Next<'_, S, Req, Err>>
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

    /// Returns whether the deadline has come while the service is not ready.
    fn is_too_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.plan.deadline else {
            return false;
        };
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// The retry will not be sent: its token goes back now, and not when the future is dropped.
    fn lose<T, Inner>(&mut self, lost: Lost<Err, Inner>) -> Poll<Result<T, Lost<Err, Inner>>> {
        self.plan.token.give_back();
        Poll::Ready(Err(lost))
    }
}
