//! A layer that delivers a response with its first byte.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// Delivers each response once the first byte of its body has arrived, and not with its head.
///
/// The head of a stream often arrives at once, and says nothing about the wait for the first byte.
/// A hedge around this layer waits for the first byte, and its quantile learns the time to it. So
/// do a circuit's slow calls, an adaptive limit and a timeout around it. A body that fails before
/// its first byte is delivered with that failure, and a body without a byte at its end. Empty
/// frames before the first byte are dropped, because they are none, as in
/// [`TimeoutBuilder::first_byte`](crate::timeout::TimeoutBuilder::first_byte). No byte is copied,
/// kept for longer, or read ahead after the first frame with one.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_keep::{hedge::HedgeLayer, protocol::http::{Client, FirstByteLayer}};
///
/// # type Body = http_body_util::Full<bytes::Bytes>;
/// let hedge = HedgeLayer::builder().quantile(0.95).protocol(Client::new()).build()?;
/// let client = service_fn(async |_: Request<Body>| {
///     Ok::<_, std::io::Error>(Response::new(Body::default()))
/// });
/// let client = ServiceBuilder::new().layer(hedge).layer(FirstByteLayer::new()).service(client);
/// # let _ = client;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstByteLayer(());

/// A service behind a [`FirstByteLayer`].
#[derive(Debug, Clone)]
pub struct FirstByte<S>(S);

pin_project! {
    /// The response of a [`FirstByte`].
    pub struct FirstByteFuture<U, B> {
        #[pin]
        inner: U,
        // The response, once its head has arrived. Boxed, because its body is read here first.
        response: Option<Response<Pin<Box<B>>>>,
    }
}

/// A body whose first byte has arrived.
pub struct FirstByteBody<B: Body> {
    first: Option<First<B>>,
    /// `None` if it had no byte and has ended.
    rest: Option<Pin<Box<B>>>,
}

type First<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

impl FirstByteLayer {
    /// Makes the layer.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for FirstByteLayer {
    type Service = FirstByte<S>;

    fn layer(&self, inner: S) -> FirstByte<S> {
        FirstByte(inner)
    }
}

impl<S, R, B> Service<R> for FirstByte<S>
where
    S: Service<R, Response = Response<B>>,
    B: Body,
{
    type Response = Response<FirstByteBody<B>>;
    type Error = S::Error;
    type Future = FirstByteFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        FirstByteFuture {
            inner: self.0.call(request),
            response: None,
        }
    }
}

impl<U, B, E> Future for FirstByteFuture<U, B>
where
    U: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<FirstByteBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.response.take() {
            Some(response) => response,
            None => match ready!(this.inner.poll(cx)) {
                Ok(response) => response.map(Box::pin),
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        let body = response.body_mut();
        while !body.is_end_stream() {
            let Poll::Ready(first) = body.as_mut().poll_frame(cx) else {
                *this.response = Some(response);
                return Poll::Pending;
            };
            if matches!(&first, Some(Ok(frame)) if is_empty(frame)) {
                continue;
            }
            return Poll::Ready(Ok(response.map(|rest| FirstByteBody {
                rest: first.is_some().then_some(rest),
                first,
            })));
        }
        Poll::Ready(Ok(response.map(|rest| FirstByteBody {
            first: None,
            rest: Some(rest),
        })))
    }
}

/// Returns whether a frame has no byte. Trailers end the wait for one.
fn is_empty<D: Buf>(frame: &Frame<D>) -> bool {
    frame.data_ref().is_some_and(|data| !data.has_remaining())
}

impl<B: Body> Body for FirstByteBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match (self.first.take(), &mut self.rest) {
            (Some(first), _) => Poll::Ready(Some(first)),
            (None, Some(rest)) => rest.as_mut().poll_frame(cx),
            (None, None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let data = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Buf::remaining),
            _ => 0,
        };
        let mut all = SizeHint::new();
        all.set_lower(rest.lower() + data as u64);
        if let Some(upper) = rest.upper() {
            all.set_upper(upper + data as u64);
        }
        all
    }
}

/// No part of it is pinned in place.
impl<B: Body> Unpin for FirstByteBody<B> {}

impl<U, B> fmt::Debug for FirstByteFuture<U, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstByteFuture").finish_non_exhaustive()
    }
}

impl<B: Body> fmt::Debug for FirstByteBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstByteBody").finish_non_exhaustive()
    }
}
