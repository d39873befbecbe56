//! The response body whose end the timeout covers.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;

use crate::{
    ambient::{clock, timer::CallTimer},
    timeout::{
        TimeoutReach, TimeoutScope,
        limit::{FirstByte, TimeLimit},
        scope::{Left, is_over},
    },
};

/// A scope: the timeout ends with the response's body.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToBodyEnd;

pin_project! {
    /// A body that fails when its call's time is over, and drops its connection then.
    ///
    /// The error is a [`Rejected`](crate::Rejected), which `Rejected::find` finds. Frames that
    /// arrive in time pass unchanged, trailers too.
    pub struct TimedBody<B> {
        // `None` once the time is over.
        #[pin]
        body: Option<B>,
        left: Option<Left>,
        // Boxed: few bodies have any.
        frames: Option<Box<FrameTimes>>,
        // Made when the reader first has to wait.
        timer: Option<CallTimer>,
    }
}

/// The time limits for frames.
struct FrameTimes {
    /// The deadline of the first byte, until it arrives.
    first: Option<Instant>,
    between: Option<Duration>,
    /// The deadline of the next frame, set when the reader starts to wait for it.
    due: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TimeoutReach for ToBodyEnd {
    const COVERS_BODY: bool = true;
}

impl<B> TimeoutScope<Response<B>> for ToBodyEnd {
    type Response = Response<TimedBody<B>>;

    fn pass_on(response: Response<B>, left: Option<Left>) -> Self::Response {
        response.map(|body| TimedBody::new(body, left))
    }
}

impl<B> TimedBody<B> {
    fn new(body: B, left: Option<Left>) -> Self {
        Self {
            body: Some(body),
            frames: left.as_ref().and_then(FrameTimes::of).map(Box::new),
            left,
            timer: None,
        }
    }
}

impl FrameTimes {
    fn of(left: &Left) -> Option<Self> {
        let between = left.state.covers().between_frames;
        let first = match left.limit {
            TimeLimit::FirstByte(FirstByte { first, .. }) => Some(first),
            _ => None,
        };
        (first.is_some() || between.is_some()).then_some(Self {
            first,
            between,
            due: None,
            sleep: None,
        })
    }

    /// Returns whether the time of the next frame is over.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let until = match (self.first, self.due, self.between) {
            (Some(first), ..) => first,
            (None, Some(due), _) => due,
            (None, None, Some(between)) => {
                let due = clock::later(clock::moment(), between);
                *self.due.insert(due)
            }
            (None, None, None) => return false,
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        // The timer may stay pending in a task that has used up its tokio budget, so read the clock
        // too.
        sleep.as_mut().poll(cx).is_ready() || clock::has_passed(until)
    }

    /// Notes a frame that has arrived.
    fn came<D: Buf>(&mut self, frame: &Frame<D>) {
        self.due = None;
        if frame.data_ref().is_none_or(Buf::has_remaining) {
            self.first = None;
        }
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Error: Into<BoxError>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = body.poll_frame(cx);
        let Some(left) = this.left else {
            return polled.map_err(Into::into);
        };
        let over = match &polled {
            Poll::Pending => {
                let frames = this.frames.as_mut();
                frames.is_some_and(|frames| frames.is_over(cx))
                    || is_over(this.timer, (left.limit.whole(), false), cx)
            }
            // A peer that trickles is late as well. The end of the body is passed on.
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(frames) = this.frames {
                    frames.came(frame);
                }
                let end = left.limit.end().unwrap_or(left.until);
                frame.is_data() && clock::has_passed(end)
            }
            Poll::Ready(_) => false,
        };
        if !over {
            return polled.map_err(Into::into);
        }
        // Dropped now, and not when the reader drops it: it holds a connection.
        this.body.set(None);
        *this.timer = None;
        *this.frames = None;
        let rejected = left.state.time_out(left.limit);
        Poll::Ready(Some(Err(rejected)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// The body of a rejection by an outer layer.
impl<B: Default> Default for TimedBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: fmt::Debug> fmt::Debug for TimedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedBody")
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
