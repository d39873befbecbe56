//! Results that are known only when the body has ended.

use std::{
    cell::Cell,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    Classify, Outcome, Rejected,
    protocol::{Protocol, Quota, Settle},
};

/// Holds a call's permit until the response's body ends, over any protocol of HTTP responses.
///
/// A head that says failure, or overload, or was made by a layer further in, settles the permit at
/// once. After a good head the body decides: an error fails; trailers say what
/// [`trailers`](Self::trailers) makes of them; the end without any is a success. A body dropped
/// before is an abandoned call, which gives its permit back unsettled. What a good head says of
/// when to come back is heeded at once.
///
/// With it a bulkhead counts a call in flight, and a circuit breaker a call as slow, until the last
/// byte.
///
/// ```
/// use tower_keep::{Outcome, circuit_breaker::CircuitBreakerLayer, protocol::http};
///
/// let protocol = http::UntilBodyEnd::new(http::Client::new()).trailers(|trailers| {
///     let status = trailers.get("grpc-status").map(|status| status.as_bytes());
///     if matches!(status, None | Some(b"0")) { Outcome::Success } else { Outcome::Failure }
/// });
/// let breaker = CircuitBreakerLayer::builder().protocol(protocol).build()?;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct UntilBodyEnd<P> {
    protocol: P,
    trailers: fn(&HeaderMap) -> Outcome,
}

pin_project! {
    /// A body that settles a permit `T` at its end.
    pub struct TrackedBody<B, T> {
        #[pin]
        body: B,
        // `None` once settled, and under a response that had none.
        permit: Option<T>,
        trailers: fn(&HeaderMap) -> Outcome,
    }
}

/// Notes what another protocol says of a result, in place of settling.
pub struct Note<'a>(&'a Cell<Option<(Outcome, Option<Duration>)>>);

impl<P> UntilBodyEnd<P> {
    /// Over `protocol`, which reads the heads. Trailers are a success.
    pub fn new(protocol: P) -> Self {
        Self {
            protocol,
            trailers: |_| Outcome::Success,
        }
    }

    /// What trailers mean.
    #[must_use]
    pub fn trailers(mut self, classify: fn(&HeaderMap) -> Outcome) -> Self {
        self.trailers = classify;
        self
    }

    /// What reads the heads.
    pub(super) fn inner(&self) -> &P {
        &self.protocol
    }

    fn track<B, T>(&self, response: Response<B>, permit: Option<T>) -> Response<TrackedBody<B, T>> {
        response.map(|body| TrackedBody {
            body,
            permit,
            trailers: self.trailers,
        })
    }
}

impl<P, B, Err> Classify<Response<B>, Err> for UntilBodyEnd<P>
where
    P: Classify<Response<B>, Err>,
{
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        self.protocol.classify(result)
    }
}

impl<P, B, Err> Protocol<Response<B>, Err> for UntilBodyEnd<P>
where
    P: for<'a> Protocol<Response<B>, Err, Response<Note<'a>> = Response<B>>,
    B: Body,
{
    type Response<T: Settle> = Response<TrackedBody<B, T>>;
    type Error = <P as Protocol<Response<B>, Err>>::Error;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        permit: T,
    ) -> Result<Self::Response<T>, Self::Error> {
        let note = Cell::new(None);
        let result = self.protocol.settle(result, Note(&note));
        match (result, note.get()) {
            (Ok(response), Some((Outcome::Success, retry_after))) => {
                if let Some(retry_after) = retry_after {
                    permit.honor(retry_after);
                }
                let ended = response.body().is_end_stream();
                let mut response = self.track(response, Some(permit));
                if ended {
                    response.body_mut().settle(Outcome::Success);
                }
                Ok(response)
            }
            (result, note) => {
                if let Some((outcome, retry_after)) = note {
                    permit.settle(outcome, retry_after);
                }
                result.map(|response| self.track(response, None))
            }
        }
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Self::Response<T>, Self::Error> {
        self.protocol
            .reject::<Note<'_>>(rejected)
            .map(|response| self.track(response, None))
    }

    fn not_ready(&self, error: Err) -> Self::Error {
        self.protocol.not_ready(error)
    }

    fn advertise<T: Settle>(
        &self,
        response: Self::Response<T>,
        quota: &Quota,
    ) -> Self::Response<T> {
        let (parts, TrackedBody { body, permit, .. }) = response.into_parts();
        let response = self
            .protocol
            .advertise::<Note<'_>>(Response::from_parts(parts, body), quota);
        self.track(response, permit)
    }
}

impl<B, T: Settle> TrackedBody<B, T> {
    fn settle(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            permit.settle(outcome, None);
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
        let frame = std::task::ready!(crate::protocol::guarded(this.permit, || body
            .as_mut()
            .poll_frame(cx)));
        let outcome = match &frame {
            None => Some(Outcome::Success),
            Some(Err(_)) => Some(Outcome::Failure),
            Some(Ok(frame)) if frame.is_trailers() => frame.trailers_ref().map(this.trailers),
            // Whoever reads to a known length does not ask again after the last frame.
            Some(Ok(_)) => body.is_end_stream().then_some(Outcome::Success),
        };
        if let Some((permit, outcome)) =
            outcome.and_then(|outcome| this.permit.take().zip(Some(outcome)))
        {
            permit.settle(outcome, None);
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

impl<B: fmt::Debug, T> fmt::Debug for TrackedBody<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedBody")
            .field("body", &self.body)
            .field("settled", &self.permit.is_none())
            .finish()
    }
}

impl Settle for Note<'_> {
    fn settle(self, outcome: Outcome, retry_after: Option<Duration>) {
        self.0.set(Some((outcome, retry_after)));
    }
}

impl fmt::Debug for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Note")
    }
}
