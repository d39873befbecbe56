//! The side that asks.

use std::{error::Error, time::Duration};

use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use tower::BoxError;

use super::{
    Attempt, deadline_fields,
    error::Cause,
    rate_limit_fields, retry_after,
    rules::{AdviceRule, IdempotentRule},
    status::{self, Classifier, Retried, Statuses, outcome_of, rejection_of},
    upgrade,
};
use crate::{
    Classify, Deadline, Outcome, Rejected,
    protocol::{Advice, PrimaryError, Proof, Protocol, Sent, Settle, in_words},
};

/// HTTP on the asking side: rejections are errors, boxed as is tower's convention.
///
/// What each result means, and which are retried, is [one table](super#what-a-result-means).
///
/// ```
/// use http::StatusCode;
/// use tower_keep::{Outcome, protocol::http::Client};
///
/// // This API answers 404 while it restores a backup, and its 500s come and go.
/// let client = Client::new()
///     .classify_response(|status, _| (status == 404).then_some(Outcome::Failure))
///     .also_retry([StatusCode::REQUEST_TIMEOUT, StatusCode::INTERNAL_SERVER_ERROR]);
/// # let _ = client;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Client {
    classifier: Option<Classifier>,
    also_retried: Statuses,
    strict: bool,
    attempt_headers: bool,
    send_deadline: bool,
    composite: bool,
    body_limit: usize,
    idempotent: Option<IdempotentRule>,
    advice: Option<AdviceRule>,
}

/// A request extension that declares this one request idempotent, whatever its method.
#[derive(Debug, Clone, Copy, Default)]
pub struct Idempotent;

/// A request extension that declares this one request not idempotent, whatever its method and
/// whatever else is said: it is sent again only if it was certainly not processed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotIdempotent;

impl Client {
    /// Reads and retries as the table says. Keeps request bodies of up to 64 KiB to send them
    /// again.
    #[must_use]
    pub fn new() -> Self {
        Self {
            classifier: None,
            also_retried: Statuses::default(),
            strict: false,
            attempt_headers: false,
            send_deadline: false,
            composite: false,
            body_limit: 64 * 1024,
            idempotent: None,
            advice: None,
        }
    }

    /// Classifies responses by status and fields; where the function says `None`, the table does.
    ///
    /// A 502, 503, 504 or 429 that it calls a success, or ignores, is not retried either. What a
    /// layer of this crate further in made is never asked about.
    #[must_use]
    pub fn classify_response(
        mut self,
        classify: fn(StatusCode, &HeaderMap) -> Option<Outcome>,
    ) -> Self {
        self.classifier = Some(classify);
        self
    }

    /// Retries these statuses as well, with or without a `Retry-After`, if the request is
    /// idempotent. Their outcome stays that of the table. Statuses other than 4xx and 5xx are never
    /// retried.
    #[must_use]
    pub fn also_retry(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        for status in statuses {
            self.also_retried.insert(status);
        }
        self
    }

    /// Declares more requests idempotent, by their head: a search that is a POST, for example. What
    /// the closure does not accept is as the method says. One request says so itself by the
    /// extensions [`Idempotent`] and [`NotIdempotent`].
    ///
    /// The closure is kept for as long as the program runs.
    ///
    /// ```
    /// use tower_keep::protocol::http::Client;
    ///
    /// let client = Client::new().idempotent_when(|head| head.uri.path() == "/search");
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn idempotent_when<F>(mut self, accepts: F) -> Self
    where
        F: Fn(&Parts) -> bool + Send + Sync + 'static,
    {
        self.idempotent = Some(IdempotentRule::new(accepts));
        self
    }

    /// Says by status and fields what a retry may do after a response; where the closure says
    /// `None`, the table does. `Sent::No` declares that the upstream has not processed the request,
    /// so that a POST is sent again as well. What a layer of this crate further in made is never
    /// asked about, and the outcome stays that of the table or of
    /// [`classify_response`](Self::classify_response).
    ///
    /// The closure is kept for as long as the program runs.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::StatusCode;
    /// use tower_keep::protocol::{Advice, Sent, http::Client};
    ///
    /// // This API processes nothing that it answers with a 429, or a 403 with no quota left.
    /// let client = Client::new().advise(|status, fields| {
    ///     let used_up = fields.get("x-ratelimit-remaining").is_some_and(|left| left == "0");
    ///     let after = Some(Duration::from_secs(1)); // or by `x-ratelimit-reset`
    ///     let quota = status == StatusCode::FORBIDDEN && used_up;
    ///     (quota || status == StatusCode::TOO_MANY_REQUESTS)
    ///         .then_some(Advice::Retry { sent: Sent::No, after })
    /// });
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn advise<F>(mut self, advise: F) -> Self
    where
        F: Fn(StatusCode, &HeaderMap) -> Option<Advice> + Send + Sync + 'static,
    {
        self.advice = Some(AdviceRule::new(advise));
        self
    }

    /// Never retries a 429, not even one with `Retry-After`.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Keeps request bodies of up to this many bytes; a request with a longer one is sent once.
    /// Default 64 KiB.
    ///
    /// The bytes are copied, so that no more than this is kept alive by a request: a frame may be a
    /// small part of a large read buffer. How many frames they came in does not matter. Trailers
    /// count too.
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

    /// A [timeout](crate::timeout) and a [retry](crate::retry) tell the upstream how long the
    /// answer is waited for, in `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`: on each
    /// attempt what remains then, but at least a millisecond. What the caller put there is
    /// overwritten. Default `false`.
    ///
    /// A queue between them and the client makes that too much: a timeout of the attempt, beneath
    /// the queue, tells it anew. A [stack](crate::stack) always tells what remains when the request
    /// is sent.
    #[must_use]
    pub fn send_deadline(mut self, send: bool) -> Self {
        self.send_deadline = send;
        self
    }

    /// The service beneath makes several requests of one, as one does that asks for a token first:
    /// no error of it, nor a rejection further in, proves that nothing was sent. Default `false`.
    ///
    /// It is known without this of a service that sends the request itself, and then another, as
    /// one does that follows redirects. It is not known of one that sends copies of its own making:
    /// a `POST` without a body would be repeated when the second of them finds no connection.
    #[must_use]
    pub fn composite(mut self, composite: bool) -> Self {
        self.composite = composite;
        self
    }

    #[inline]
    pub(super) fn is_composite(&self) -> bool {
        self.composite
    }

    /// The longest body that is kept, in bytes.
    pub(super) fn longest_kept(&self) -> usize {
        self.body_limit
    }

    #[inline]
    pub(super) fn sends_deadline(&self) -> bool {
        self.send_deadline
    }

    /// Tells an attempt's number and what remains of its time, to inner layers and upstream.
    #[inline]
    pub(in crate::protocol) fn number_request<B>(&self, request: &mut Request<B>, attempt: u32) {
        // An extension costs an allocation, so the first attempt has none.
        if attempt > 1 {
            request.extensions_mut().insert(Attempt(attempt));
        }
        if self.attempt_headers {
            Attempt(attempt).write(request.headers_mut());
        }
        self.tell_deadline(request);
    }

    /// Tells the upstream what remains of the request's deadline, if it is to know.
    #[inline]
    pub(in crate::protocol) fn tell_deadline<B>(&self, request: &mut Request<B>) {
        if self.send_deadline {
            if let Some(deadline) = request.extensions().get::<Deadline>().copied() {
                deadline_fields::write(request.headers_mut(), deadline.remaining());
            }
        }
    }

    /// Returns whether a closure has told it, and not a rejection further in.
    fn is_told(&self, advice: Advice) -> bool {
        self.advice.is_some() && !matches!(advice, Advice::Rejected { .. })
    }

    /// Returns whether a closure declares this request idempotent.
    pub(super) fn accepts_as_idempotent(&self, head: &Parts) -> bool {
        self.idempotent.is_some_and(|rule| rule(head))
    }

    /// What a retry may do after an error.
    pub(in crate::protocol) fn advise_on_error(&self, cause: Cause) -> Advice {
        match cause {
            Cause::NotSent | Cause::Unprocessed if self.composite => Cause::Unknown.advice(),
            cause => cause.advice(),
        }
    }

    /// Returns whether an error, of which `advice` was given, proves that nothing was done.
    pub(in crate::protocol) fn proof_of_error(cause: Cause, advice: Advice) -> Proof {
        match cause {
            Cause::Unprocessed if Proof::from(advice) == Proof::NotSent => Proof::Unprocessed,
            _ => advice.into(),
        }
    }

    fn advise_on_response<B>(&self, outcome: Outcome, response: &Response<B>) -> Advice {
        if let Some(rejected) = rejection_of(response) {
            return Advice::from(rejected);
        }
        let status = response.status();
        let told = self
            .advice
            .and_then(|rule| rule(status, response.headers()));
        if let Some(advice) = told {
            return advice;
        }
        let after = retry_after::parse(response.headers());
        let bad = matches!(outcome, Outcome::Failure | Outcome::Overload);
        let by_table = match status::meaning(status).1 {
            Retried::Always => bad,
            Retried::WithHint => bad && after.is_some(),
            Retried::Never => false,
        };
        let forbidden = self.strict && status == StatusCode::TOO_MANY_REQUESTS;
        if forbidden || !(by_table || self.also_retried.contains(status)) {
            return Advice::Stop;
        }
        Advice::Retry {
            sent: Sent::Maybe,
            after,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, Err: 'static> Classify<Response<B>, Err> for Client {
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        match result {
            Ok(response) => outcome_of(response, self.classifier),
            Err(error) => Cause::of_any(error).outcome(),
        }
    }
}

impl<B, Err> Protocol<Response<B>, Err> for Client
where
    Err: Into<BoxError> + 'static,
{
    type Response<T: Settle> = Response<B>;
    type Error = BoxError;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        permit: T,
    ) -> Result<Response<B>, BoxError> {
        let mut result = result.map_err(Into::into);
        match &mut result {
            Ok(response) => {
                let outcome = outcome_of(response, self.classifier);
                let hint = come_back_after(outcome, response);
                upgrade::guard(response);
                upgrade::settle(response, permit, outcome, hint);
            }
            Err(error) => Cause::of(&**error).settle(permit),
        }
        result
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Response<B>, BoxError> {
        Err(rejected)
    }

    fn not_ready(&self, error: Err) -> BoxError {
        error.into()
    }

    fn advise(&self, outcome: Outcome, result: Result<&Response<B>, &BoxError>) -> Advice {
        match result {
            Ok(response) => self.advise_on_response(outcome, response),
            Err(error) => self.advise_on_error(Cause::of(&**error)),
        }
    }

    fn proof(&self, advice: Advice, result: Result<&Response<B>, &BoxError>) -> Proof {
        match result {
            // A response came, so the request was sent, and what is known is the upstream's word.
            Ok(_) if Proof::from(advice) == Proof::NotSent && self.is_told(advice) => {
                Proof::Unprocessed
            }
            Ok(_) => advice.into(),
            Err(error) => Self::proof_of_error(Cause::of(&**error), advice),
        }
    }

    #[inline]
    fn judge(&self, classified: Outcome, result: Result<&Response<B>, &BoxError>) -> Outcome {
        result.map_or_else(|error| Cause::of(&**error).outcome(), |_| classified)
    }

    fn status(&self, response: &Response<B>) -> Option<u16> {
        Some(response.status().as_u16())
    }

    fn error<'a>(&self, error: &'a BoxError) -> Option<&'a (dyn Error + 'static)> {
        Some(&**error)
    }

    fn describe(&self, result: Result<&Response<B>, &BoxError>) -> String {
        match result {
            Ok(response) => response.status().to_string(),
            Err(error) => in_words(&**error),
        }
    }

    fn note_primary<T: Settle>(&self, response: &mut Response<B>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
    }
}

/// When the upstream wants to hear of us again. `Retry-After` goes before `RateLimit`, as the draft
/// has it, where it can mean that: on a success it cannot, but "nothing left" does.
fn come_back_after<B>(outcome: Outcome, response: &Response<B>) -> Option<Duration> {
    let asked = match outcome {
        Outcome::Ignore => return None,
        Outcome::Success => None,
        Outcome::Failure | Outcome::Overload => retry_after::parse(response.headers()),
    };
    asked.or_else(|| rate_limit_fields::used_up(response))
}
