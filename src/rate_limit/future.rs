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
    Rejected,
    call::Call,
    protocol::Protocol,
    rate_limit::{
        Actual, Cost, Permit,
        handle::State,
        line::{Place, Turn},
    },
    striped::Striped,
};

pin_project! {
    /// The answer of a [`RateLimit`](super::RateLimit): the inner one, or a rejection. Dropped while it waits, it leaves the
    /// line and has cost nothing.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, M, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        stage: Stage<S::Future, M>,
        // `None` once the inner service has been called, or will not be.
        later: Option<Later<S, M, Req>>,
        advertised: Option<Advertised<M>>,
    }
}

pin_project! {
    #[project = StageProject]
    enum Stage<F, M> {
        Waiting { waiting: Waiting, #[pin] timer: Option<Sleep> },
        Readying { state: Striped<State> },
        Calling { #[pin] call: Call<Billed<F, M>, M, Permit> },
        // After the inner service was not ready.
        Ended,
    }
}

/// What a call needs when its turn has come.
struct Later<S, M, Req> {
    service: S,
    request: Req,
    cost: u32,
    metered: M,
}

/// A limit that its callers are told of.
struct Advertised<M> {
    state: Striped<State>,
    metered: M,
}

/// A place in the line, given up when it is dropped.
struct Waiting {
    place: Place,
    /// What the timer is set to.
    wake: u64,
    state: Striped<State>,
}

pin_project! {
    /// A call whose response tells what it has cost.
    #[derive(Debug)]
    struct Billed<F, M> {
        #[pin]
        inner: F,
        metered: M,
        taken: u32,
        // `None` if what was taken stands.
        state: Option<Striped<State>>,
    }
}

impl<S, M, Req> ResponseFuture<S, M, Req>
where
    S: Service<Req>,
    M: Protocol<S::Response, S::Error> + Cost<Req> + Actual<S::Response>,
{
    pub(super) fn now(service: &mut S, request: Req, cost: u32, metered: M, state: &Striped<State>) -> Self {
        let advertised = Advertised::new(state, &metered);
        let call = admitted(service, request, cost, metered, state);
        Self { stage: Stage::Calling { call }, later: None, advertised }
    }

    pub(super) fn waiting(service: S, request: Req, cost: u32, metered: M, state: Striped<State>, place: Place) -> Self {
        let advertised = Advertised::new(&state, &metered);
        let (waiting, later) = (Waiting { place, wake: 0, state }, Later { service, request, cost, metered });
        Self { stage: Stage::Waiting { waiting, timer: None }, later: Some(later), advertised }
    }

    pub(super) fn rejected(metered: M, rejected: Rejected, state: &Striped<State>) -> Self {
        let advertised = Advertised::new(state, &metered);
        Self { stage: Stage::Calling { call: Call::rejected(metered, rejected) }, later: None, advertised }
    }
}

impl<S, M, Req> Future for ResponseFuture<S, M, Req>
where
    S: Service<Req>,
    M: Protocol<S::Response, S::Error> + Cost<Req> + Actual<S::Response>,
{
    type Output = Result<M::Response<Permit>, M::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProject::Waiting { waiting, timer } => match ready!(waiting.poll(timer, cx)) {
                    Ok(()) => Stage::Readying { state: waiting.state.for_call() },
                    Err(rejected) => {
                        let later = this.later.take().expect("waiting for it");
                        Stage::Calling { call: Call::rejected(later.metered, rejected) }
                    }
                },
                StageProject::Readying { state } => {
                    let later = this.later.as_mut().expect("waiting for it");
                    if let Err(error) = ready!(later.service.poll_ready(cx)) {
                        let error = later.metered.not_ready(error);
                        this.stage.set(Stage::Ended);
                        return Poll::Ready(Err(error));
                    }
                    let Later { mut service, request, cost, metered } = this.later.take().expect("just seen");
                    Stage::Calling { call: admitted(&mut service, request, cost, metered, state) }
                }
                StageProject::Calling { call } => {
                    let result = ready!(call.poll(cx));
                    return Poll::Ready(match this.advertised.take() {
                        Some(advertised) => result.map(|response| advertised.tell::<S::Response, S::Error>(response)),
                        None => result,
                    });
                }
                StageProject::Ended => panic!("polled after completion"),
            };
            this.stage.set(next);
        }
    }
}

impl<M> Advertised<M> {
    fn new(state: &Striped<State>, metered: &M) -> Option<Self>
    where
        M: Clone,
    {
        (state.enabled && state.advertise).then(|| Self { state: state.for_call(), metered: metered.clone() })
    }

    fn tell<Res, Err>(self, response: M::Response<Permit>) -> M::Response<Permit>
    where
        M: Protocol<Res, Err>,
    {
        self.metered.advertise(response, &self.state.quota())
    }
}

impl Waiting {
    fn poll(&mut self, mut timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        loop {
            let now = self.state.clock.now();
            let due = match self.state.line.look(&*self.state.limit, self.place, cx.waker(), now) {
                Turn::Come => return Poll::Ready(Ok(())),
                Turn::Due(due) => due,
            };
            if let Some(rejected) = self.state.too_late(self.place, due, now) {
                return Poll::Ready(Err(rejected));
            }
            // When others are still ahead though the time has come, the last of them to leave wakes this one. One of them
            // may be held by somebody who does not poll it, so it does not wait for that longer than it may.
            let wake = if due > now { due } else { self.state.deadline(self.place).saturating_add(1) };
            if timer.is_none() || wake != self.wake {
                self.wake = wake;
                timer.set(Some(sleep(Duration::from_nanos(wake - now))));
            }
            ready!(timer.as_mut().as_pin_mut().expect("just set").poll(cx));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Finds nothing if the turn has come.
        self.state.line.cancel(&*self.state.limit, self.place, self.state.clock.now());
    }
}

impl<F, M, Res, Err> Future for Billed<F, M>
where
    F: Future<Output = Result<Res, Err>>,
    M: Actual<Res>,
{
    type Output = Result<Res, Err>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let (Ok(response), Some(state)) = (&result, this.state.take()) {
            state.correct(*this.taken, this.metered.actual(response));
        }
        Poll::Ready(result)
    }
}

impl<S, M, Req> fmt::Debug for ResponseFuture<S, M, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("waiting", &self.later.is_some()).finish_non_exhaustive()
    }
}

fn admitted<S, M, Req>(
    service: &mut S,
    request: Req,
    taken: u32,
    metered: M,
    state: &Striped<State>,
) -> Call<Billed<S::Future, M>, M, Permit>
where
    S: Service<Req>,
    M: Actual<S::Response>,
{
    let bill = (state.enabled && metered.asks()).then(|| state.for_call());
    Call::admitted(metered.clone(), Permit::new(state), || Billed { inner: service.call(request), metered, taken, state: bill })
}
