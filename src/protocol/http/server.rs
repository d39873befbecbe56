//! The side that answers.

use std::{any, fmt};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use super::{
    NoBody, ProblemJson, RejectionBody,
    error::Cause,
    rate_limit_fields, retry_after,
    status::{Classifier, outcome_of, rejection_of},
    upgrade,
};
use crate::{
    Classify, Outcome, Rejected, RejectedKind,
    protocol::{Advice, PrimaryError, Protocol, Quota, Settle},
};

/// HTTP on the answering side: a rejection is a response, and errors stay the handler's own.
///
/// | rejection | status | `Retry-After` |
/// |---|---|---|
/// | rate limited | 429 Too Many Requests | the wait in whole seconds, rounded up, at least 1 |
/// | cost above the burst | 429 Too Many Requests | none: it never fits |
/// | no key for a keyed rate limit | 400 Bad Request | none: the same request never has one |
/// | circuit open | 503 Service Unavailable | the wait, where it is known |
/// | bulkhead full, throttled, deadline exceeded, timed out | 503 Service Unavailable | none |
///
/// A rate limit that [advertises](crate::rate_limit::RateLimitBuilder::advertise) itself adds
/// `RateLimit-Policy` and `RateLimit` fields to all its responses, rejections or not.
///
/// The [`Rejected`] itself is in the response's extensions, for logs and for layers further out.
/// Its body is empty, for which the body type must be `Default`, as axum's, tonic's and
/// http-body-util's are; or it tells the [problem](Self::problem_json); or it is [your
/// own](Self::body).
#[derive(Clone, Copy)]
pub struct Server<R = NoBody> {
    rejection: R,
    classifier: Option<Classifier>,
    read_deadline: bool,
}

impl Server {
    /// Rejections without a body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            rejection: NoBody,
            classifier: None,
            read_deadline: false,
        }
    }
}

impl<R> Server<R> {
    /// Rejections with an `application/problem+json` body (RFC 9457): `type`, `title`, `status`,
    /// `detail`, and `retry_after` in seconds where it is known. The body type must be
    /// `From<String>`, as axum's and `Full<Bytes>` are.
    ///
    /// A full rate limit has the type
    /// `https://iana.org/assignments/http-problem-types#quota-exceeded` of the `RateLimit` fields'
    /// draft, with the limit's name in `violated-policies`; any other rejection is `about:blank`.
    #[must_use]
    pub fn problem_json(self) -> Server<ProblemJson> {
        Server {
            rejection: ProblemJson,
            classifier: self.classifier,
            read_deadline: self.read_deadline,
        }
    }

    /// Rejections with the body that a closure makes, and its `Content-Type` if it has any.
    ///
    /// ```
    /// use axum::body::Body;
    /// use http::{HeaderValue, StatusCode};
    /// use tower_keep::{Rejected, protocol::http::Server};
    ///
    /// let server = Server::new().body(|status: StatusCode, rejected: &Rejected| {
    ///     let text = format!("{status}: {rejected}\n");
    ///     (Body::from(text), Some(HeaderValue::from_static("text/plain; charset=utf-8")))
    /// });
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn body<F, B>(self, body: F) -> Server<F>
    where
        F: Fn(StatusCode, &Rejected) -> (B, Option<HeaderValue>) + Clone,
    {
        Server {
            rejection: body,
            classifier: self.classifier,
            read_deadline: self.read_deadline,
        }
    }

    /// Classifies responses by status and fields; where the function says `None`,
    /// [the table](super#what-a-result-means) does.
    #[must_use]
    pub fn classify_response(
        mut self,
        classify: fn(StatusCode, &HeaderMap) -> Option<Outcome>,
    ) -> Self {
        self.classifier = Some(classify);
        self
    }
}

impl<R> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A closure has a type's name and nothing else to show.
        f.debug_struct("Server")
            .field("rejection", &any::type_name::<R>())
            .field("classifier", &self.classifier)
            .finish()
    }
}

impl<R> Server<R> {
    /// A [timeout](crate::timeout) gives requests a [`Deadline`](crate::Deadline) from
    /// `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`, the shorter of the two; nonsense is
    /// ignored. A client can only shorten its own time by it. Default `false`.
    #[must_use]
    pub fn read_deadline(mut self, read: bool) -> Self {
        self.read_deadline = read;
        self
    }

    #[inline]
    pub(super) fn reads_deadline(&self) -> bool {
        self.read_deadline
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl<R, B, Err: 'static> Classify<Response<B>, Err> for Server<R> {
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        match result {
            Ok(response) => outcome_of(response, self.classifier),
            Err(error) => Cause::of_any(error).outcome(),
        }
    }
}

impl<R: RejectionBody<B>, B, Err: 'static> Protocol<Response<B>, Err> for Server<R> {
    type Response<T: Settle> = Response<B>;
    type Error = Err;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        permit: T,
    ) -> Result<Response<B>, Err> {
        let outcome = Classify::classify(self, result.as_ref());
        let hint = match (&result, outcome) {
            (Ok(response), Outcome::Failure | Outcome::Overload) => {
                retry_after::parse(response.headers())
            }
            _ => None,
        };
        match &result {
            Ok(response) => upgrade::settle(response, permit, outcome, hint),
            Err(error) => Cause::of_any(error).settle(permit),
        }
        result
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Response<B>, Err> {
        let status = match rejected.kind {
            RejectedKind::RateLimited | RejectedKind::CostTooHigh => StatusCode::TOO_MANY_REQUESTS,
            RejectedKind::MissingKey => StatusCode::BAD_REQUEST,
            RejectedKind::CircuitOpen
            | RejectedKind::BulkheadFull
            | RejectedKind::Throttled
            | RejectedKind::DeadlineExceeded
            | RejectedKind::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
        };
        let (body, content_type) = self.rejection.body(status, &rejected);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if let Some(content_type) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        if let Some(wait) = rejected.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, retry_after::seconds(wait).into());
        }
        response.extensions_mut().insert(*rejected);
        Ok(response)
    }

    fn not_ready(&self, error: Err) -> Err {
        error
    }

    fn advertise<T: Settle>(&self, mut response: Response<B>, quota: &Quota) -> Response<B> {
        rate_limit_fields::write(&mut response, quota);
        response
    }

    /// There is no retry on a server. A layer that asks all the same learns which results are
    /// rejections of this crate.
    fn advise(&self, _: Outcome, result: Result<&Response<B>, &Err>) -> Advice {
        match result {
            Ok(response) => rejection_of(response).map_or(Advice::Stop, Advice::from),
            Err(error) => match Cause::of_any(error) {
                rejected @ Cause::Rejected { .. } => rejected.advice(),
                _ => Advice::Stop,
            },
        }
    }

    fn describe(&self, result: Result<&Response<B>, &Err>) -> String {
        match result {
            Ok(response) => response.status().to_string(),
            Err(_) => "an error of the service".into(),
        }
    }

    fn note_primary<T: Settle>(&self, response: &mut Response<B>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
    }
}
