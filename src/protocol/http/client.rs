//! The side that asks.

use std::{error::Error, io, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use tower::BoxError;

use super::{
    Attempt, deadline, outcome_of, rate_limit_fields,
    replay::{ReplayBody, Tape},
    retry_after,
};
use crate::{
    Classify, Deadline, Outcome, Rejected,
    protocol::{
        Advice, Kept, Protocol, Replay, Sent, Settle,
        plain::{local_rejection, settle_boxed},
    },
};

/// HTTP on the asking side: rejections are errors, boxed as is tower's convention.
///
/// What a retry may do, and why:
///
/// | answer | retried |
/// |---|---|
/// | 502, 503, 504, reset, timeout | idempotent requests: the peer may have acted |
/// | 500 | only with [`retry_500`](Self::retry_500): it is usually a bug, which stays |
/// | 429 with `Retry-After` | idempotent requests, unless [`strict`](Self::strict): the peer says when to come back |
/// | any other 4xx, 501, 505 | never: the same request gets the same answer |
/// | connection refused or not made | all requests: nothing was sent |
/// | a request or a response that hyper cannot write or read | never |
///
/// To a [rate limit](crate::rate_limit::RateLimitBuilder::honor_retry_after) the peer says when to
/// come back by `Retry-After` on anything but a success, or by a `RateLimit` field that has nothing
/// left (`r=0;t=30`) on any answer.
///
/// Idempotent are GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, section 9.2.2), any request
/// with an `Idempotency-Key` field, and any with an [`Idempotent`] extension.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    retry_500: bool,
    strict: bool,
    attempt_headers: bool,
    send_deadline: bool,
    body_limit: usize,
}

/// A request extension that declares this one request idempotent, whatever its method.
#[derive(Debug, Clone, Copy, Default)]
pub struct Idempotent;

impl Client {
    /// Retries as the table says; bodies of up to 64 KiB are kept to be sent again.
    #[must_use]
    pub fn new() -> Self {
        Self {
            retry_500: false,
            strict: false,
            attempt_headers: false,
            send_deadline: false,
            body_limit: 64 * 1024,
        }
    }

    /// Retries 500 Internal Server Error as well.
    #[must_use]
    pub fn retry_500(mut self) -> Self {
        self.retry_500 = true;
        self
    }

    /// Never retries a 429, not even one with `Retry-After`.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Keeps bodies of up to this many bytes; a request with a longer one is sent once. Default 64
    /// KiB.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// A [retry](crate::retry) tells the upstream which attempt a request is, in
    /// `x-envoy-attempt-count` and `grpc-previous-rpc-attempts`; what the caller put there is
    /// overwritten. Default `false`. Handlers and inner layers know it anyway: see
    /// [`Attempt`](super::Attempt).
    #[must_use]
    pub fn attempt_headers(mut self, send: bool) -> Self {
        self.attempt_headers = send;
        self
    }

    /// A [timeout](crate::timeout) and a [retry](crate::retry) tell the upstream how long the answer
    /// is waited for, in `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`: on each attempt what
    /// remains then. What the caller put there is overwritten. Default `false`.
    #[must_use]
    pub fn send_deadline(mut self, send: bool) -> Self {
        self.send_deadline = send;
        self
    }

    #[inline]
    pub(super) fn sends_deadline(&self) -> bool {
        self.send_deadline
    }

    fn advise_on_status(&self, status: StatusCode, headers: &HeaderMap) -> Advice {
        let after = retry_after::parse(headers);
        let retried = match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => true,
            StatusCode::INTERNAL_SERVER_ERROR => self.retry_500,
            StatusCode::TOO_MANY_REQUESTS => after.is_some() && !self.strict,
            _ => false,
        };
        if retried {
            Advice::Retry {
                sent: Sent::Maybe,
                after,
            }
        } else {
            Advice::Stop
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, Err> Classify<Response<B>, Err> for Client {
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        result.map_or(Outcome::Failure, outcome_of)
    }
}

impl<B, Err> Protocol<Response<B>, Err> for Client
where
    Err: Into<BoxError>,
{
    type Response<T: Settle> = Response<B>;
    type Error = BoxError;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        permit: T,
    ) -> Result<Response<B>, BoxError> {
        let outcome = self.classify(result.as_ref());
        let hint = result
            .as_ref()
            .ok()
            .and_then(|response| come_back_after(outcome, response.headers()));
        settle_boxed(result, outcome, hint, permit)
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Response<B>, BoxError> {
        Err(rejected)
    }

    fn not_ready(&self, error: Err) -> BoxError {
        error.into()
    }

    fn advise(&self, _: Outcome, result: Result<&Response<B>, &BoxError>) -> Advice {
        match result {
            Ok(response) if response.extensions().get::<Rejected>().is_some() => Advice::Stop,
            Ok(response) => self.advise_on_status(response.status(), response.headers()),
            Err(error) => {
                local_rejection(error).map_or_else(|| advise_on_error(&**error), Advice::from)
            }
        }
    }
}

impl<B> Replay<Request<B>> for Client
where
    B: Body<Data = Bytes> + Unpin,
{
    type Request = Request<ReplayBody<B>>;
    type Snapshot = RequestSnapshot<B>;

    fn once(&self, request: Request<B>) -> Self::Request {
        request.map(ReplayBody::unrecorded)
    }

    fn prepare(&self, request: Request<B>) -> (Self::Request, Option<Kept<RequestSnapshot<B>>>) {
        let idempotent = is_idempotent(&request);
        let (parts, body) = request.into_parts();
        let (body, tape) = ReplayBody::record(body, self.body_limit);
        let kept = tape.map(|tape| Kept {
            idempotent,
            snapshot: RequestSnapshot {
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                version: parts.version,
                headers: parts.headers.clone(),
                extensions: parts.extensions.clone(),
                tape,
            },
        });
        (Request::from_parts(parts, body), kept)
    }

    fn replay(&self, snapshot: &RequestSnapshot<B>) -> Option<Self::Request> {
        let mut request = Request::new(snapshot.tape.play()?);
        *request.method_mut() = snapshot.method.clone();
        *request.uri_mut() = snapshot.uri.clone();
        *request.version_mut() = snapshot.version;
        *request.headers_mut() = snapshot.headers.clone();
        *request.extensions_mut() = snapshot.extensions.clone();
        Some(request)
    }

    #[inline]
    fn number(&self, request: &mut Self::Request, attempt: u32) {
        // An extension costs an allocation, so the first attempt has none.
        if attempt > 1 {
            request.extensions_mut().insert(Attempt(attempt));
        }
        if self.attempt_headers {
            Attempt(attempt).write(request.headers_mut());
        }
        if self.send_deadline {
            if let Some(deadline) = request.extensions().get::<Deadline>().copied() {
                deadline::write(request.headers_mut(), deadline.remaining());
            }
        }
    }

    #[inline]
    fn deadline(&self, snapshot: &RequestSnapshot<B>) -> Option<Deadline> {
        snapshot.extensions.get().copied()
    }

    #[inline]
    fn can_prove_unsent(&self) -> bool {
        true
    }
}

/// What is kept of a request to make it again: its head, copied, and its body, recorded by
/// reference count.
#[derive(Debug)]
pub struct RequestSnapshot<B> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
    tape: Tape<B>,
}

/// When the peer wants to hear of us again. `Retry-After` goes before `RateLimit`, as the draft has
/// it, where it can mean that: on a success it can not, but "nothing left" does.
fn come_back_after(outcome: Outcome, headers: &HeaderMap) -> Option<Duration> {
    let asked = if outcome == Outcome::Success {
        None
    } else {
        retry_after::parse(headers)
    };
    asked.or_else(|| rate_limit_fields::used_up(headers))
}

fn is_idempotent<B>(request: &Request<B>) -> bool {
    matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    ) || request.headers().contains_key("idempotency-key")
        || request.extensions().get::<Idempotent>().is_some()
}

/// Looks through the causes for the first that tells whether the request was sent.
fn advise_on_error(error: &(dyn Error + 'static)) -> Advice {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            if error.is_connect() {
                return retry(Sent::No);
            }
            if is_users_fault(error) {
                return Advice::Stop;
            }
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_user() || error.is_parse() {
                return Advice::Stop;
            }
            if error.is_canceled() {
                return retry(Sent::No);
            }
        }
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return retry(Sent::No);
        }
        cause = error.source();
    }
    retry(Sent::Maybe)
}

/// Whether hyper-util would not send the request as it is: without an absolute URI, or of a version
/// that it does not speak. It says so only in the error's text.
fn is_users_fault(error: &hyper_util::client::legacy::Error) -> bool {
    error.source().is_none() && error.to_string().contains("User")
}

fn retry(sent: Sent) -> Advice {
    Advice::Retry {
        sent,
        after: None::<Duration>,
    }
}
