//! A call that waits for its turn, then for the inner service.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::Service;

use crate::{
    algorithm::OverLimit,
    call::Call,
    protocol::Protocol,
    rate_limit::{
        Actual, Meter,
        future::{Billed, Made},
        keyed::Places,
        line::{Line, Place, Turn},
        state::Account,
    },
};

pin_project! {
    pub(super) struct WaitingFor<S, M, Req> {
        waiting: Waiting,
        #[pin]
        timer: Option<Sleep>,
        service: S,
        // `None` once the inner service has been called.
        request: Option<Req>,
        metered: M,
    }
}

/// A place in the line, or what it was for. Given up or given back when it is dropped.
pub(super) struct Waiting {
    account: Account,
    cost: u32,
    line: Arc<Line>,
    standing: Standing,
    /// What the timer is set to.
    wake: u64,
}

enum Standing {
    InLine(Places),
    /// Its units are taken, and the call is yet to be made.
    Taken,
    /// The call is made, or never will be.
    Gone,
}

impl<S, M, Req> WaitingFor<S, M, Req> {
    pub(super) fn new(waiting: Waiting, service: S, request: Req, metered: M) -> Self {
        Self {
            waiting,
            timer: None,
            service,
            request: Some(request),
            metered,
        }
    }

    /// The call, once its turn has come or it is too late for it; the error of an inner service
    /// that was not ready.
    pub(super) fn poll<F, B>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Made<F, B>, B::Error>>
    where
        S: Service<Req, Future = F>,
        F: Future<Output = Result<S::Response, S::Error>>,
        M: Meter<Req, Bill = B>,
        B: Protocol<S::Response, S::Error> + Actual<S::Response>,
    {
        let this = self.project();
        if let Err(denied) = ready!(this.waiting.poll(this.timer, cx)) {
            let Account { state, key } = &this.waiting.account;
            let request = this.request.as_ref().expect("not called yet");
            let rejected = state.refuse(*key, denied, this.metered, request);
            return Poll::Ready(Ok(Call::rejected(this.metered.bill(), rejected)));
        }
        if let Err(error) = ready!(this.service.poll_ready(cx)) {
            return Poll::Ready(Err(this.metered.bill().not_ready(error)));
        }
        this.waiting.standing = Standing::Gone;
        let Waiting {
            account: Account { state, key },
            cost,
            ..
        } = this.waiting;
        let request = this.request.take().expect("called once");
        Poll::Ready(Ok(Billed::call(
            this.service,
            request,
            this.metered.bill(),
            state,
            *key,
            *cost,
        )))
    }
}

impl Waiting {
    pub(super) fn new(account: Account, cost: u32, line: Arc<Line>, place: Place) -> Self {
        Self {
            account,
            cost,
            line,
            standing: Standing::InLine(Places::new(place)),
            wake: 0,
        }
    }

    /// Ready when the turn has come, or when it has been put off, by a penalty, a lower rate or
    /// somebody ahead who does not take his, to later than it may be.
    fn poll(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), OverLimit>> {
        let Account { state, key } = &self.account;
        let places = match &mut self.standing {
            Standing::InLine(places) => places,
            Standing::Taken => return Poll::Ready(Ok(())),
            Standing::Gone => panic!("polled after completion"),
        };
        loop {
            let now = state.clock.now();
            let due =
                match state
                    .limits
                    .look((*key, self.cost), &self.line, places, cx.waker(), now)
                {
                    Turn::Due(due) => due,
                    Turn::Come => {
                        self.standing = Standing::Taken;
                        return Poll::Ready(Ok(()));
                    }
                    Turn::Never(denied) => {
                        self.standing = Standing::Gone;
                        return Poll::Ready(Err(denied));
                    }
                };
            // When others are still ahead though the time has come, the last of them to leave wakes
            // this one. One of them may be held by somebody who does not poll it, so it does not
            // wait for that longer than it may.
            let wake = if due > now {
                due
            } else {
                places.own.latest.saturating_add(1)
            };
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
        let Account { state, key } = &self.account;
        match &mut self.standing {
            Standing::InLine(places) => state.cancel(*key, &self.line, places),
            Standing::Taken => state.refund(*key, self.cost),
            Standing::Gone => {}
        }
    }
}
