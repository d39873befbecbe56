//! The response's body, broken or not.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::BoxError;

use crate::fault::broken::{BodyStep, Broken};

pin_project! {
    /// A body that passed a [`FaultLayer`](super::FaultLayer): the service's own, broken or not, or
    /// the body of an answer that a fault has made.
    ///
    /// Frames of an unbroken body pass unchanged, trailers too. The error is boxed.
    pub struct FaultBody<B> {
        // `None` for an answer that a fault has made, and once the body was cut.
        #[pin]
        body: Option<B>,
        made: Bytes,
        broken: Option<Box<Broken>>,
    }
}

impl<B> FaultBody<B> {
    pub(super) fn of_service(body: B, broken: Option<Box<Broken>>) -> Self {
        Self {
            body: Some(body),
            made: Bytes::new(),
            broken,
        }
    }
}

impl<B> Body for FaultBody<B>
where
    B: Body<Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if !this.made.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.made)))));
        }
        loop {
            let Some(body) = this.body.as_mut().as_pin_mut() else {
                return Poll::Ready(None);
            };
            let Some(broken) = this.broken.as_mut() else {
                return body.poll_frame(cx).map(|frame| frame.map(unbroken));
            };
            match ready!(broken.poll(body.is_end_stream(), cx)) {
                BodyStep::Pass(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                BodyStep::Fail(error) => {
                    // Dropped now, and not when the reader drops it: it holds a connection.
                    this.body.set(None);
                    *this.broken = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                BodyStep::Heal(held) => {
                    *this.broken = None;
                    if !held.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(held))));
                    }
                }
                BodyStep::Read => match ready!(body.poll_frame(cx)).map(unbroken) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            if let Some(passed) = broken.take(data) {
                                return Poll::Ready(Some(Ok(Frame::data(passed))));
                            }
                        }
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    end => {
                        *this.broken = None;
                        return Poll::Ready(end);
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.made.is_empty() && self.held() == 0 && self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let more = self.held() + self.made.len() as u64;
        let inner = self.body.as_ref().map(B::size_hint);
        let inner = inner.unwrap_or_else(|| SizeHint::with_exact(0));
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(more));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(more));
        }
        hint
    }
}

impl<B> FaultBody<B> {
    fn held(&self) -> u64 {
        self.broken.as_ref().map_or(0, |broken| broken.held())
    }
}

fn unbroken<D: Buf, E: Into<BoxError>>(
    frame: Result<Frame<D>, E>,
) -> Result<Frame<Bytes>, BoxError> {
    match frame {
        Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
        Err(error) => Err(error.into()),
    }
}

/// An empty body, for a rejection by an outer layer.
impl<B> Default for FaultBody<B> {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl<B> From<Bytes> for FaultBody<B> {
    fn from(made: Bytes) -> Self {
        Self {
            body: None,
            made,
            broken: None,
        }
    }
}

impl<B> From<String> for FaultBody<B> {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl<B> From<&'static str> for FaultBody<B> {
    fn from(text: &'static str) -> Self {
        Bytes::from(text).into()
    }
}

impl<B> From<Vec<u8>> for FaultBody<B> {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl<B: fmt::Debug> fmt::Debug for FaultBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultBody")
            .field("body", &self.body)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}
