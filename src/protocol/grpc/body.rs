//! The end of a call: trailers, or the lack of them.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Code;

use super::{
    codes::Codes,
    status::{CallStatus, code_of},
};
use crate::{
    Outcome,
    protocol::{Settle, as_error, guarded, settle},
};

pin_project! {
    /// The body of a gRPC response, which settles a permit `T` by the status at its end.
    ///
    /// It is not [`http::TrackedBody`](crate::protocol::http::TrackedBody). There, an end without
    /// trailers, or at the promised length, is a success. Here, it is a call cut short.
    pub struct TrackedBody<B, T>
    where
        B: Body,
    {
        #[pin]
        body: B,
        // `None` once settled, and in a response that had no permit.
        permit: Option<T>,
        codes: Codes,
        // The code of an end without a status.
        missing: Code,
        early: Early<B::Data, B::Error>,
    }
}

/// Parts of the body that arrived together with the head and that the reader has not read yet: at
/// most one message, and the frame or end after it.
struct Early<D, E> {
    data: Option<D>,
    next: Option<Polled<D, E>>,
}

/// The output of `poll_frame`.
type Polled<D, E> = Option<Result<Frame<D>, E>>;

impl<B: Body, T: Settle> TrackedBody<B, T> {
    /// Settles by the head if `said` has the outcome, else by the body.
    pub(super) fn track(
        response: Response<B>,
        mut permit: T,
        said: Option<(Outcome, Option<Duration>)>,
        codes: Codes,
        missing: Code,
    ) -> Response<Self> {
        let permit = match said {
            Some(said) => {
                settle(permit, response.extensions().get(), said);
                None
            }
            None => {
                permit.answered();
                Some(permit)
            }
        };
        response.map(|body| Self {
            body,
            permit,
            codes,
            missing,
            early: Early::none(),
        })
    }
}

impl<B: Body + Unpin, T> TrackedBody<B, T> {
    /// Polls for an end that is available now, after at most one message. Does not wait: a server
    /// may need messages of the client before it sends its own.
    pub(super) fn peek(&mut self) {
        // No waker is needed: the reader of the body polls it again.
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut self.body).poll_frame(&mut cx);
        let mut next = poll();
        if let Poll::Ready(Some(Ok(frame))) = next {
            match frame.into_data() {
                Ok(data) => {
                    self.early.data = Some(data);
                    next = poll();
                }
                Err(frame) => next = Poll::Ready(Some(Ok(frame))),
            }
        }
        if let Poll::Ready(polled) = next {
            self.early.next = Some(polled);
        }
    }
}

impl<B: Body, T> TrackedBody<B, T>
where
    B::Error: 'static,
{
    /// Returns the end of the call, if `peek` found it.
    pub(super) fn ended(&self) -> Option<CallStatus> {
        let next = self.early.next.as_ref()?;
        read(next, self.missing)
    }
}

impl<B: Body, T: Settle> Body for TrackedBody<B, T>
where
    B::Error: 'static,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let mut body = this.body;
        let polled = match this.early.take() {
            Some(polled) => polled,
            None => ready!(guarded(this.permit, || body.as_mut().poll_frame(cx))),
        };
        let ended = read(&polled, *this.missing).or_else(|| {
            // A reader that sees the end does not poll again.
            let ended = this.early.is_empty() && body.is_end_stream();
            ended.then(|| CallStatus::with(*this.missing))
        });
        if let Some(ended) = ended {
            if let Some(permit) = this.permit.take() {
                let (outcome, hint) = this.codes.read(ended);
                permit.settle(outcome, hint);
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.early.is_empty() {
            self.body.size_hint()
        } else {
            SizeHint::default()
        }
    }
}

/// The body of a rejection by an outer layer.
impl<B: Body + Default, T> Default for TrackedBody<B, T> {
    fn default() -> Self {
        Self {
            body: B::default(),
            permit: None,
            codes: Codes::default(),
            missing: Code::Ok,
            early: Early::none(),
        }
    }
}

impl<B: Body + fmt::Debug, T> fmt::Debug for TrackedBody<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedBody")
            .field("body", &self.body)
            .field("settled", &self.permit.is_none())
            .finish_non_exhaustive()
    }
}

impl<D, E> Early<D, E> {
    fn none() -> Self {
        Self {
            data: None,
            next: None,
        }
    }

    fn take(&mut self) -> Option<Polled<D, E>> {
        match self.data.take() {
            Some(data) => Some(Some(Ok(Frame::data(data)))),
            None => self.next.take(),
        }
    }

    fn is_empty(&self) -> bool {
        self.data.is_none() && self.next.is_none()
    }
}

/// Returns the end of the call, if this is the end.
fn read<D, E: 'static>(polled: &Polled<D, E>, missing: Code) -> Option<CallStatus> {
    match polled {
        None => Some(CallStatus::with(missing)),
        Some(Err(error)) => Some(CallStatus::with(code_of_body(error))),
        Some(Ok(frame)) => {
            let trailers = frame.trailers_ref()?;
            Some(CallStatus::of_headers(trailers).unwrap_or(CallStatus::with(missing)))
        }
    }
}

/// Returns the code of a body's error: a status in tonic's bodies, a box in others.
fn code_of_body<E: 'static>(error: &E) -> Code {
    as_error(error)
        .and_then(code_of)
        .unwrap_or(Code::Unavailable)
}

/// Returns whether a permit is the empty one of layers that hold nothing to the end of the body.
/// Retry is such a layer, and the only one that needs the end of the call at once.
pub(super) fn holds_nothing<T>() -> bool {
    mem::size_of::<T>() == 0
}
