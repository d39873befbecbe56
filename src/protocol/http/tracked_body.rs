//! A body that settles a permit at its end.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::upgrade;
use crate::{
    Outcome,
    protocol::{Settle, guarded},
};

pin_project! {
    /// A body that settles a permit `T` at its end.
    pub struct TrackedBody<B, T: Settle> {
        #[pin]
        body: B,
        pending: Pending<T>,
    }
}

/// A call whose head was a success. It is a separate type because it implements `Drop`: a
/// `TrackedBody` can then still be taken apart. `Drop` requires the bound on the type.
pub(super) struct Pending<T: Settle> {
    /// `None` once settled, and in a response that had no permit.
    permit: Option<T>,
    /// Bytes still promised, if known.
    missing: Option<u64>,
    polled: bool,
    trailers: Option<ReadTrailers>,
    /// If true, the call ends with the first byte.
    first_byte: bool,
}

/// Reads the outcome of a response from its trailers.
pub(super) type ReadTrailers = fn(&HeaderMap) -> Outcome;

/// Tracks the body of a response with a good head.
pub(super) fn track<B, T>(
    response: Response<B>,
    mut permit: T,
    (trailers, first_byte): (Option<ReadTrailers>, bool),
) -> Response<TrackedBody<B, T>>
where
    B: Body,
    T: Settle,
{
    if has_ended(&response) || upgrade::is_guarded(&response) {
        upgrade::settle(&response, permit, Outcome::Success, None);
        return settled(response);
    }
    if !first_byte {
        permit.answered();
    }
    let missing = promised(&response);
    response.map(|body| TrackedBody {
        body,
        pending: Pending {
            permit: Some(permit),
            missing,
            polled: false,
            trailers,
            first_byte,
        },
    })
}

/// Wraps a response whose permit is settled.
pub(super) fn settled<B, T: Settle>(response: Response<B>) -> Response<TrackedBody<B, T>> {
    response.map(|body| TrackedBody {
        body,
        pending: Pending::none(),
    })
}

/// Returns whether a response is complete with its head. For some statuses it is by definition (RFC
/// 9110, section 6.4.1), and a server drops their bodies unread.
fn has_ended<B: Body>(response: &Response<B>) -> bool {
    let status = response.status();
    status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || response.body().is_end_stream()
        || promised(response) == Some(0)
}

/// Returns the bytes that a body promises, if known. Of two promises the smaller counts, because a
/// reader of either stops there.
fn promised<B: Body>(response: &Response<B>) -> Option<u64> {
    let hinted = response.body().size_hint().exact();
    let headers = response.headers();
    let told = headers
        .get(CONTENT_LENGTH)
        // A length beside a transfer coding is ignored (RFC 9112, section 6.3).
        .filter(|_| !headers.contains_key(TRANSFER_ENCODING))
        .and_then(|length| length.to_str().ok()?.parse().ok());
    hinted.into_iter().chain(told).min()
}

impl<B, T: Settle> TrackedBody<B, T> {
    pub(super) fn into_parts(self) -> (B, Pending<T>) {
        (self.body, self.pending)
    }

    pub(super) fn from_parts(body: B, pending: Pending<T>) -> Self {
        Self { body, pending }
    }
}

impl<T: Settle> Pending<T> {
    /// Creates the state of a settled call.
    fn none() -> Self {
        Self {
            permit: None,
            missing: None,
            polled: false,
            trailers: None,
            first_byte: false,
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            permit.settle(outcome, None);
        }
    }

    /// Returns whether the body has delivered all that it promised.
    fn is_complete(&self) -> bool {
        self.missing == Some(0)
    }

    /// Observes the output of the body. `ended` tells whether the body reports its end.
    fn observe<D: Buf, E>(&mut self, frame: Option<&Result<Frame<D>, E>>, ended: bool) {
        let frame = match frame {
            None => return self.settle(Outcome::Success),
            Some(Err(_)) => return self.settle(Outcome::Failure),
            Some(Ok(frame)) => frame,
        };
        if let Some(trailers) = frame.trailers_ref() {
            let classify = self.trailers.unwrap_or(|_| Outcome::Success);
            return self.settle(classify(trailers));
        }
        let begins = |data: &D| self.first_byte && data.has_remaining();
        if frame.data_ref().is_some_and(begins) {
            return self.settle(Outcome::Success);
        }
        if let (Some(missing), Some(data)) = (&mut self.missing, frame.data_ref()) {
            *missing = missing.saturating_sub(data.remaining() as u64);
        }
        if ended || self.is_complete() && self.trailers.is_none() {
            self.settle(Outcome::Success);
        }
    }
}

impl<T: Settle> Drop for Pending<T> {
    fn drop(&mut self) {
        if !self.polled || self.is_complete() {
            self.settle(Outcome::Success);
        }
    }
}

impl<B: Body, T: Settle> Body for TrackedBody<B, T> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let mut body = this.body;
        this.pending.polled = true;
        let frame = ready!(guarded(&mut this.pending.permit, || body
            .as_mut()
            .poll_frame(cx)));
        this.pending.observe(frame.as_ref(), body.is_end_stream());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a rejection by an outer layer.
impl<B: Default, T: Settle> Default for TrackedBody<B, T> {
    fn default() -> Self {
        Self {
            body: B::default(),
            pending: Pending::none(),
        }
    }
}

impl<B: fmt::Debug, T: Settle> fmt::Debug for TrackedBody<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedBody")
            .field("body", &self.body)
            .field("settled", &self.pending.permit.is_none())
            .finish()
    }
}
