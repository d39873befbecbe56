//! The server side.

use std::{any, fmt, time::Duration};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    response::Parts,
};

use super::{
    NoBody, ProblemJson, RejectionBody,
    error::ErrorCause,
    rate_limit_fields, retry_after,
    rules::{ClassifyRule, HeadRule},
    status::{outcome_of, rejection_of},
    upgrade,
    x_rate_limit::{self, XRateLimit},
};
use crate::{
    Classify, Outcome, Rejected, RejectedKind,
    ambient::chance,
    protocol::{
        Advice, PrimaryError, Protocol, Quota, Settle, SpillReport, WOULD_REJECT, WouldReject,
    },
};

/// HTTP on the server side. A rejection is a response, and errors stay the handler's own.
///
/// | rejection | status | `Retry-After` |
/// |---|---|---|
/// | rate limited | 429 Too Many Requests | the wait in whole seconds, rounded up, at least 1 |
/// | cost above the burst | 429 Too Many Requests | none: it never fits |
/// | no key for a keyed rate limit | 400 Bad Request | none: the same request never has one |
/// | circuit open, store down | 503 Service Unavailable | the wait, where it is known |
/// | draining | 503 Service Unavailable | one to three seconds, at random |
/// | bulkhead full, throttled, deadline exceeded, timed out | 503 Service Unavailable | none, or [a guess](Self::hint_when_busy) |
///
/// A rate limit that [advertises](crate::rate_limit::RateLimitBuilder::advertise) itself adds
/// `RateLimit-Policy` and `RateLimit` fields to all its responses, rejections or not. So does a
/// [bulkhead](crate::bulkhead::BulkheadBuilder::advertise), in the unit `concurrent-requests`. All
/// of them are in one list: `RateLimit: "api";r=7;t=1, "api-concurrency";r=12`.
///
/// The [`Rejected`] itself is in the response's extensions, for logs and for outer layers. Its
/// status and fields can be [changed](Self::head). Its body is empty, so the body type must be
/// `Default`, as axum's, tonic's and http-body-util's are. Alternatively, it describes the
/// [problem](Self::problem_json), or is [your own](Self::body).
#[derive(Clone, Copy)]
pub struct Server<R = NoBody> {
    rejection: R,
    head: Option<HeadRule>,
    classifier: Option<ClassifyRule>,
    read_deadline: bool,
    x_rate_limit: Option<XRateLimit>,
    busy_hint: Option<Duration>,
}

impl Server {
    /// Creates the protocol. Rejections have no body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            rejection: NoBody,
            head: None,
            classifier: None,
            read_deadline: false,
            x_rate_limit: None,
            busy_hint: None,
        }
    }
}

impl<R> Server<R> {
    /// Adds an `application/problem+json` body (RFC 9457) to rejections: `type`, `title`, `status`,
    /// `detail`, and `retry_after` in seconds if known. The body type must be `From<String>`, as
    /// axum's and `Full<Bytes>` are.
    ///
    /// Two types are from the draft of the `RateLimit` fields, at
    /// `https://iana.org/assignments/http-problem-types`. A used-up rate limit has
    /// `#quota-exceeded`. A bulkhead, a circuit, a throttle, a drain and a store that is down have
    /// `#temporary-reduced-capacity`. The names of rate limits and bulkheads are in
    /// `violated-policies`, as in `RateLimit-Policy`. Any other rejection is `about:blank`. A
    /// client reads the body as a [`Problem`](super::Problem).
    #[must_use]
    pub fn problem_json(self) -> Server<ProblemJson> {
        self.with_body(ProblemJson)
    }

    /// Adds the body that a closure makes to rejections, with its `Content-Type` if it has any.
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
        self.with_body(body)
    }

    /// Adds `X-RateLimit-Limit`, `-Remaining` and `-Reset` for rate limits that
    /// [advertise](crate::rate_limit::RateLimitBuilder::advertise) themselves, for clients that
    /// read those. Of several limits, they have the one with the least left. Default: none, since
    /// no standard defines them.
    #[must_use]
    pub fn x_rate_limit(mut self, form: XRateLimit) -> Self {
        self.x_rate_limit = Some(form);
        self
    }

    fn with_body<T>(self, rejection: T) -> Server<T> {
        Server {
            rejection,
            head: self.head,
            classifier: self.classifier,
            read_deadline: self.read_deadline,
            x_rate_limit: self.x_rate_limit,
            busy_hint: self.busy_hint,
        }
    }

    /// Changes the head of each rejection with a closure: its status, its fields, its extensions.
    /// The body is made after that, for the new status. Default: as in the table.
    ///
    /// The closure lives as long as the program.
    ///
    /// ```
    /// use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
    /// use tower_keep::{RejectedKind, protocol::http::Server};
    ///
    /// // The key is the caller's token: a request without one has to bring it.
    /// let server = Server::new().problem_json().head(|head, rejected| {
    ///     if rejected.kind == RejectedKind::MissingKey {
    ///         head.status = StatusCode::UNAUTHORIZED;
    ///         head.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    ///     }
    /// });
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn head<F>(mut self, change: F) -> Self
    where
        F: Fn(&mut Parts, &Rejected) + Send + Sync + 'static,
    {
        self.head = Some(HeadRule::new(change));
        self
    }

    /// Classifies responses by status and fields. If the closure returns `None`, [the
    /// table](super#what-a-result-means) applies. The closure lives as long as the program.
    #[must_use]
    pub fn classify_response<F>(mut self, classify: F) -> Self
    where
        F: Fn(StatusCode, &HeaderMap) -> Option<Outcome> + Send + Sync + 'static,
    {
        self.classifier = Some(ClassifyRule::new(classify));
        self
    }
}

impl<R> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A closure has only the name of its type to show.
        f.debug_struct("Server")
            .field("rejection", &any::type_name::<R>())
            .field("classifier", &self.classifier)
            .finish()
    }
}

impl<R> Server<R> {
    /// Makes a [timeout](crate::timeout), and the queues of a [stack](crate::stack), read a
    /// request's [`Deadline`](crate::Deadline) from `grpc-timeout` and
    /// `x-envoy-expected-rq-timeout-ms`, the shorter of the two. Malformed values are ignored. A
    /// client can only shorten its own time with them. Default `false`.
    #[must_use]
    pub fn read_deadline(mut self, read: bool) -> Self {
        self.read_deadline = read;
        self
    }

    /// Sets a hint for rejections with a 503 without one. It is a guess from half of it to two and
    /// a half times that, so that callers do not come back together. Zero means no hint. Default:
    /// none, and a second in a [stack](crate::stack).
    #[must_use]
    pub fn hint_when_busy(mut self, hint: Duration) -> Self {
        self.busy_hint = Some(hint).filter(|hint| !hint.is_zero());
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
            Err(error) => ErrorCause::of_any(error).outcome(),
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
        if !permit.reads_outcome() {
            return result;
        }
        let outcome = Classify::classify(self, result.as_ref());
        let hint = match (&result, outcome) {
            (Ok(response), Outcome::Failure | Outcome::Overload) => {
                retry_after::parse(response.headers())
            }
            _ => None,
        };
        match &result {
            Ok(response) => upgrade::settle(response, permit, outcome, hint),
            Err(error) => ErrorCause::of_any(error).settle(permit),
        }
        result
    }

    fn reject<T: Settle>(&self, mut rejected: Box<Rejected>) -> Result<Response<B>, Err> {
        rejected.guess_wait(|| self.busy_hint.map(chance::spread));
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = status_of(rejected.kind);
        if let Some(wait) = rejected.retry_after {
            head.headers
                .insert(RETRY_AFTER, retry_after::seconds(wait).into());
        }
        if let Some(change) = self.head {
            change(&mut head, &rejected);
        }
        let (body, content_type) = self.rejection.body(head.status, &rejected);
        if let Some(content_type) = content_type {
            head.headers.entry(CONTENT_TYPE).or_insert(content_type);
        }
        head.extensions.insert(*rejected);
        Ok(Response::from_parts(head, body))
    }

    fn not_ready(&self, error: Err) -> Err {
        error
    }

    fn advertise<T: Settle>(&self, mut response: Response<B>, quota: &Quota) -> Response<B> {
        rate_limit_fields::write(&mut response, quota);
        if let Some(form) = self.x_rate_limit {
            x_rate_limit::write(&mut response, quota, form);
        }
        response
    }

    /// Recognizes rejections of this crate, for a layer that asks. There is no retry on a server.
    fn advise(&self, _: Outcome, result: Result<&Response<B>, &Err>) -> Advice {
        match result {
            Ok(response) => rejection_of(response).map_or(Advice::Stop, Advice::from),
            Err(error) => match ErrorCause::of_any(error) {
                rejected @ ErrorCause::Rejected { .. } => rejected.advice(),
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

    fn note_spill<T: Settle>(&self, response: &mut Response<B>, report: SpillReport) {
        response.extensions_mut().insert(report);
    }

    fn note_primary<T: Settle>(&self, response: &mut Response<B>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
    }

    fn note_would_reject<T: Settle>(&self, response: &mut Response<B>, mark: WouldReject) {
        let kind = HeaderValue::from_static(mark.0.kind.as_str());
        response.headers_mut().insert(WOULD_REJECT, kind);
        response.extensions_mut().insert(mark);
    }
}

fn status_of(rejected: RejectedKind) -> StatusCode {
    match rejected {
        RejectedKind::RateLimited | RejectedKind::CostTooHigh => StatusCode::TOO_MANY_REQUESTS,
        RejectedKind::MissingKey => StatusCode::BAD_REQUEST,
        RejectedKind::CircuitOpen
        | RejectedKind::BulkheadFull
        | RejectedKind::Throttled
        | RejectedKind::DeadlineExceeded
        | RejectedKind::TimedOut
        | RejectedKind::Draining
        | RejectedKind::StoreDown => StatusCode::SERVICE_UNAVAILABLE,
    }
}
