//! How far a timeout reaches: to the head of a response, or to the end of its body.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    ambient::clock,
    sync::Held,
    timeout::state::{Limit, State},
};

/// A timeout that ends with the response: over HTTP, with its head.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToResponse;

/// How far a timeout reaches, whatever the response.
pub trait TimeoutReach {
    /// Whether the time runs on after the response.
    const COVERS_BODY: bool;
}

/// What a timeout does to the response that came in time.
pub trait TimeoutScope<Res>: TimeoutReach {
    /// What the caller gets.
    type Response;

    /// Passes it on, with what is left of its time; `None` if its time is not limited.
    fn pass_on(response: Res, left: Option<Left>) -> Self::Response;
}

/// What is left of a call's time.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "only HTTP has bodies")
)]
pub struct Left {
    pub(super) limit: Limit,
    pub(super) until: Instant,
    pub(super) state: Held<State>,
}

impl TimeoutReach for ToResponse {
    const COVERS_BODY: bool = false;
}

impl<Res> TimeoutScope<Res> for ToResponse {
    type Response = Res;

    #[inline]
    fn pass_on(response: Res, _: Option<Left>) -> Res {
        response
    }
}

pin_project! {
    /// Of a call that has to wait.
    #[derive(Debug)]
    pub(super) struct Timer {
        #[pin]
        sleep: Sleep,
        since: Instant,
    }
}

impl Timer {
    /// How long the call has waited.
    pub(super) fn elapsed(&self) -> Duration {
        clock::moment().saturating_duration_since(self.since)
    }
}

/// Whether the time of a call that has to wait is over; makes its timer when it first has to.
pub(super) fn is_over(
    timer: &mut Option<Pin<Box<Timer>>>,
    limit: Limit,
    cx: &mut Context<'_>,
) -> bool {
    let Some(timer) = timer else {
        let (since, until) = match (limit, limit.moment()) {
            (Limit::For(duration), _) => {
                let now = clock::moment();
                (now, clock::later(now, duration))
            }
            (_, Some(moment)) => (clock::moment(), moment),
            (_, None) => return false,
        };
        let sleep = sleep_until(until);
        let timer = timer.insert(Box::pin(Timer { sleep, since }));
        return timer.as_mut().project().sleep.poll(cx).is_ready();
    };
    // A call that has used up its task's budget is woken again by itself, but the timer, polled
    // within the same poll, does not even look at the clock. So look at it.
    let timer = timer.as_mut().project();
    let until = timer.sleep.deadline();
    timer.sleep.poll(cx).is_ready() || clock::has_passed(until)
}

/// Waits for a call no longer than until its deadline.
pub(crate) async fn until<F: Future>(
    deadline: Instant,
    mut call: Pin<&mut F>,
) -> Option<F::Output> {
    let mut timer = None;
    let in_time = poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if is_over(&mut timer, Limit::Until(deadline), cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    in_time.await
}
