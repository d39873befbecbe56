//! A body that is read as it passes, and settled at its end.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    meter::{End, Meter, UsageReport},
    shape::Shape,
};

pin_project! {
    /// A body that passes each byte on unchanged and at once, and reports at its end the units that
    /// the response has used. Made by [`meter`].
    pub struct MeteredBody<B, F: FnOnce(UsageReport)> {
        #[pin]
        body: B,
        reading: MeterGuard<F>,
    }
}

/// The reading of a body, until it is settled. Settles when it is dropped.
struct MeterGuard<F: FnOnce(UsageReport)> {
    /// Boxed, because it is larger than most bodies. `None` once settled.
    open: Option<(Box<Meter>, F)>,
    /// Bytes still promised, if known.
    missing: Option<u64>,
}

/// Reads a response's usage as its body passes, and calls `settle` once. That is at the stream's
/// last event, at the body's end, at a failure, at an error of the provider, or when the reader
/// drops the body. `settle` runs in the task that reads the body, so it must not block.
///
/// ```
/// use tower_keep::{protocol::http::usage, rate_limit::{Rate, RateLimitLayer}};
///
/// # type Body = http_body_util::Full<bytes::Bytes>;
/// # fn answer(response: http::Response<Body>) -> Result<(), tower_keep::ConfigError> {
/// let tokens = RateLimitLayer::builder(Rate::per_minute(80_000)).burst(80_000).build()?;
/// let (handle, taken) = (tokens.handle(), 4096);
/// let response = usage::meter(response, usage::openai(), move |report| {
///     // A provider that has said nothing has used what was taken.
///     if let Some(used) = report.usage.and_then(|usage| usage.output) {
///         handle.settle(taken, used.try_into().unwrap_or(u32::MAX));
///     }
/// });
/// # let _ = response;
/// # Ok(()) }
/// ```
pub fn meter<B, F>(response: Response<B>, shape: Shape, settle: F) -> Response<MeteredBody<B, F>>
where
    B: Body<Data = Bytes>,
    F: FnOnce(UsageReport),
{
    let meter = Box::new(Meter::new(shape, response.headers()));
    let missing = response.body().size_hint().exact();
    let mut reading = MeterGuard {
        open: Some((meter, settle)),
        missing,
    };
    if response.body().is_end_stream() {
        reading.finish();
    }
    response.map(|body| MeteredBody { body, reading })
}

impl<F: FnOnce(UsageReport)> MeterGuard<F> {
    fn feed(&mut self, bytes: &[u8]) {
        if let Some(missing) = &mut self.missing {
            *missing = missing.saturating_sub(bytes.len() as u64);
        }
        let end = self.open.as_mut().and_then(|(meter, _)| meter.feed(bytes));
        if let Some(end) = end {
            self.settle(end);
        }
    }

    /// Settles at the end that the body itself reports.
    fn finish(&mut self) {
        if let Some(end) = self.open.as_mut().map(|(meter, _)| meter.finish()) {
            self.settle(end);
        }
    }

    fn settle(&mut self, end: End) {
        if let Some((meter, settle)) = self.open.take() {
            settle(meter.report(end));
        }
    }
}

impl<F: FnOnce(UsageReport)> Drop for MeterGuard<F> {
    fn drop(&mut self) {
        // A reader of a known length drops the body at that length.
        if self.missing == Some(0) {
            self.finish();
        }
        self.settle(End::Left);
    }
}

impl<B, F> Body for MeteredBody<B, F>
where
    B: Body<Data = Bytes>,
    F: FnOnce(UsageReport),
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.reading.feed(data);
                }
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.reading.finish();
                }
            }
            Some(Err(_)) => this.reading.settle(End::Cut),
            None => this.reading.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: fmt::Debug, F: FnOnce(UsageReport)> fmt::Debug for MeteredBody<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredBody")
            .field("body", &self.body)
            .field("settled", &self.reading.open.is_none())
            .finish()
    }
}
