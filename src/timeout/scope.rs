//! How far a timeout reaches: to the head of a response, or to the end of its body.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Instant;

use crate::{
    ambient::{clock, timer::CallTimer},
    sync::Held,
    timeout::{limit::Limit, state::State},
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

/// Whether the time of a call that has to wait is over; makes its timer when it first has to.
pub(super) fn is_over(timer: &mut Option<CallTimer>, limit: Limit, cx: &mut Context<'_>) -> bool {
    let Some(timer) = timer else {
        return starts_over(timer, (limit, clock::moment()), cx);
    };
    // A call that has used up its task's budget is woken again by itself, but the timer, polled
    // within the same poll, does not even look at the clock. So look at it.
    timer.poll(cx).is_ready() || clock::has_passed(timer.until())
}

/// Makes the timer of a call that waits since a moment.
pub(super) fn starts_over(
    timer: &mut Option<CallTimer>,
    (limit, since): (Limit, Instant),
    cx: &mut Context<'_>,
) -> bool {
    let until = match limit {
        Limit::For(duration) => Some(clock::later(since, duration)),
        limit => limit.moment(),
    };
    until.is_some_and(|until| {
        timer
            .insert(CallTimer::new(since, until))
            .poll(cx)
            .is_ready()
    })
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
