//! How far a timeout reaches: to the head of a response, or to the end of its body.

use std::{pin::Pin, task::Context};

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::{
    striped::Held,
    time,
    timeout::state::{Limit, State},
};

/// A timeout that ends with the response: over HTTP, with its head.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToResponse;

/// How far a timeout reaches, whatever the response.
#[doc(hidden)]
pub trait Reach {
    /// Whether the time runs on after the response.
    const COVERS_BODY: bool;
}

/// What a timeout does to the response that came in time.
pub trait Scope<Res>: Reach {
    /// What the caller gets.
    type Response;

    /// Passes it on, with what is left of its time; `None` if its time is not limited.
    #[doc(hidden)]
    fn pass_on(response: Res, left: Option<Left>) -> Self::Response;
}

/// What is left of a call's time.
#[doc(hidden)]
#[derive(Debug)]
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "only HTTP has bodies")
)]
pub struct Left {
    pub(super) until: Instant,
    pub(super) state: Held<State>,
}

impl Reach for ToResponse {
    const COVERS_BODY: bool = false;
}

impl<Res> Scope<Res> for ToResponse {
    type Response = Res;

    #[inline]
    fn pass_on(response: Res, _: Option<Left>) -> Res {
        response
    }
}

/// Whether the time of a call that has to wait is over; makes its timer when it first has to.
pub(super) fn is_over(
    timer: &mut Option<Pin<Box<Sleep>>>,
    limit: Limit,
    cx: &mut Context<'_>,
) -> bool {
    let Some(timer) = timer else {
        let sleep = match limit {
            Limit::Unlimited => return false,
            Limit::For(duration) => sleep(duration),
            Limit::Until(moment) => sleep_until(moment),
        };
        return timer.insert(Box::pin(sleep)).as_mut().poll(cx).is_ready();
    };
    // A call that has used up its task's budget is woken again by itself, but the timer, polled
    // within the same poll, does not even look at the clock. So look at it.
    timer.as_mut().poll(cx).is_ready() || time::has_passed(timer.deadline())
}
