//! The scope of a timeout: to the head of a response, or to the end of its body.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ambient::{clock, timer::CallTimer},
    sync::Held,
    timeout::{limit::TimeLimit, state::State},
};

/// A scope: the timeout ends with the response. Over HTTP that is its head.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToResponse;

/// The scope of a timeout, whatever the response.
pub trait TimeoutReach {
    /// If true, the time continues after the response's head.
    const COVERS_BODY: bool;
}

/// The effect of a timeout on a response that arrived in time.
pub trait TimeoutScope<Res>: TimeoutReach {
    /// The caller's response.
    type Response;

    /// Passes the response on, with the rest of its time. `None` if its time is not limited.
    fn pass_on(response: Res, left: Option<Left>) -> Self::Response;

    /// Passes a result on.
    #[inline]
    fn pass<E>(result: Result<Res, E>, left: Option<Left>) -> Result<Self::Response, E> {
        result.map(|response| Self::pass_on(response, left))
    }
}

/// The rest of a call's time.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "only HTTP has bodies")
)]
pub struct Left {
    pub(super) limit: TimeLimit,
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

    /// Returns the result itself. The compiler does not see that a map of it copies it.
    #[inline]
    fn pass<E>(result: Result<Res, E>, _: Option<Left>) -> Result<Res, E> {
        result
    }
}

/// Returns whether the time of a waiting call is over. Makes its timer when it first has to wait.
/// The timer knows since when if `records`.
pub(super) fn is_over(
    timer: &mut Option<CallTimer>,
    (limit, records): (TimeLimit, bool),
    cx: &mut Context<'_>,
) -> bool {
    let Some(timer) = timer else {
        return starts_over(timer, (limit, records.then(clock::moment)), cx);
    };
    // A call that has used up its task's tokio budget is woken again at once. But the timer, polled
    // within that poll, stays pending without reading the clock. So read the clock here.
    timer.poll(cx).is_ready() || clock::has_passed(timer.until())
}

/// Makes the timer of a call that has waited since `since`, if that is known. Returns whether its
/// time is over.
pub(super) fn starts_over(
    timer: &mut Option<CallTimer>,
    (limit, since): (TimeLimit, Option<Instant>),
    cx: &mut Context<'_>,
) -> bool {
    let (since, until) = match limit {
        TimeLimit::For(nanos) => {
            let start = since.unwrap_or_else(clock::moment);
            let until = clock::later(start, Duration::from_nanos(nanos));
            (Some(start), Some(until))
        }
        // The clock is not read: the end is known.
        limit => (since, limit.moment()),
    };
    until.is_some_and(|until| {
        timer
            .insert(CallTimer::new(since, until))
            .poll(cx)
            .is_ready()
    })
}

/// Polls a call until its deadline. Returns `None` if that passes first.
pub(crate) async fn until<F: Future>(
    deadline: Instant,
    mut call: Pin<&mut F>,
) -> Option<F::Output> {
    let (mut timer, limit) = (None, (TimeLimit::Until(deadline), false));
    let in_time = poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if is_over(&mut timer, limit, cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    in_time.await
}
