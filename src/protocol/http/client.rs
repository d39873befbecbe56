//! The client side.

use http::{HeaderMap, Request, StatusCode, request::Parts};

use super::{
    Attempt, CloneBody, CopyBody, RecordBody, deadline_fields,
    error::ErrorCause,
    rules::{
        AdviceRule, ChangingRule, ClassifyRule, HintRule, IdempotentRule, ResendRule, SettingsRule,
    },
    status::Statuses,
};
use crate::{Deadline, Outcome, protocol::Advice};

mod calls;
mod hints;
mod reading;

/// HTTP on the client side. Rejections are errors, boxed as is tower's convention.
///
/// [One table](super#what-a-result-means) has the outcome of each result, and which results are
/// retried.
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
pub struct Client<K = RecordBody> {
    classifier: Option<ClassifyRule>,
    also_retried: Statuses,
    strict: bool,
    attempt_headers: bool,
    send_deadline: bool,
    /// `None` if it is not set.
    composite: Option<bool>,
    body_limit: usize,
    bodies: K,
    idempotent: Option<IdempotentRule>,
    advice: Option<AdviceRule>,
    settings: Option<SettingsRule>,
    before_retry: Option<ResendRule>,
    hints: Option<HintRule>,
    changing: Option<ChangingRule>,
}

/// A request extension that declares this one request idempotent, whatever its method.
#[derive(Debug, Clone, Copy, Default)]
pub struct Idempotent;

/// A request extension that declares this one request not idempotent, whatever its method and other
/// declarations. It is replayed only if it was certainly not processed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotIdempotent;

impl Client {
    /// Creates the protocol, which reads and retries by the table. Keeps request bodies of up to 64
    /// KiB for retries.
    #[must_use]
    pub fn new() -> Self {
        Self {
            classifier: None,
            also_retried: Statuses::default(),
            strict: false,
            attempt_headers: false,
            send_deadline: false,
            composite: None,
            body_limit: 64 * 1024,
            bodies: RecordBody,
            idempotent: None,
            advice: None,
            settings: None,
            before_retry: None,
            hints: None,
            changing: None,
        }
    }
}

impl<K> Client<K> {
    /// Classifies responses by status and fields. If the closure returns `None`, the table applies.
    /// The closure lives as long as the program.
    ///
    /// A 502, 503, 504, 529 or 429 that it calls a success, or ignores, is not retried either. The
    /// closure is not called for responses that an inner layer of this crate made.
    #[must_use]
    pub fn classify_response<F>(mut self, classify: F) -> Self
    where
        F: Fn(StatusCode, &HeaderMap) -> Option<Outcome> + Send + Sync + 'static,
    {
        self.classifier = Some(ClassifyRule::new(classify));
        self
    }

    /// Also retries these statuses, with or without a `Retry-After`, if the request is idempotent.
    /// Their outcome stays that of the table. Statuses other than 4xx and 5xx are never retried.
    #[must_use]
    pub fn also_retry(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        for status in statuses {
            self.also_retried.insert(status);
        }
        self
    }

    /// Declares more requests idempotent, by their head, for example a search that is a POST. For
    /// other requests the method decides. A single request can be declared with the extensions
    /// [`Idempotent`] and [`NotIdempotent`].
    ///
    /// The closure lives as long as the program.
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

    /// Sets what a retry may do after a response, by status and fields. If the closure returns
    /// `None`, the table applies. `Sent::No` declares that the upstream has not processed the
    /// request, so that even a POST is replayed. The closure is not called for responses that an
    /// inner layer of this crate made. The outcome stays that of the table or of
    /// [`classify_response`](Self::classify_response).
    ///
    /// The closure lives as long as the program.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::StatusCode;
    /// use tower_keep::protocol::{Advice, Sent, http::Client};
    ///
    /// // This API processes nothing that it answers with a 429.
    /// let client = Client::new().advise(|status, _| {
    ///     let after = Some(Duration::from_secs(1));
    ///     (status == StatusCode::TOO_MANY_REQUESTS)
    ///         .then_some(Advice::Retry { sent: Sent::No, after })
    /// });
    /// # let _ = client;
    /// ```
    ///
    /// For a provider that reports its quota in fields of its own, as GitHub does, see the
    /// [guide](crate::guide::retrying#apis-with-their-own-signals).
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

    /// Sets the most bytes of a request body that are kept. A request with a longer body is sent
    /// once. Default 64 KiB.
    ///
    /// The bytes are copied, so that a request keeps no more than this alive: a frame may be a
    /// small part of a large read buffer. The number of frames does not matter. Trailers count too.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Makes a [retry](crate::retry) write the number of the attempt for the upstream, in
    /// `x-envoy-attempt-count` and `grpc-previous-rpc-attempts`. Overwrites the caller's values.
    /// Default `false`. Handlers and inner layers see the number anyway: see
    /// [`Attempt`](super::Attempt).
    #[must_use]
    pub fn attempt_headers(mut self, send: bool) -> Self {
        self.attempt_headers = send;
        self
    }

    /// Makes a [timeout](crate::timeout) and a [retry](crate::retry) write the remaining time for
    /// the upstream, in `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`. Each attempt has the
    /// time that remains then, at least a millisecond. Overwrites the caller's values. Default
    /// `false`.
    ///
    /// A queue between these layers and the client makes the value too large. A timeout per
    /// attempt, inside the queue, writes it again. A [stack](crate::stack) always writes the time
    /// that remains when the request is sent.
    #[must_use]
    pub fn send_deadline(mut self, send: bool) -> Self {
        self.send_deadline = send;
        self
    }

    /// Declares that the inner service makes several requests of one, for example to fetch a token
    /// first. Then no error and no inner rejection proves that nothing was sent. Default: decided
    /// by the recorded body, as `false` if nothing has polled it.
    ///
    /// This is detected without a declaration for a service that sends the request itself and then
    /// another one, for example to follow a redirect. It is not detected for a service that sends
    /// its own copies. There, a `POST` without a body would be repeated if the second request finds
    /// no connection.
    ///
    /// A [cloned](Self::clone_body) or [copied](Self::copy_body) body cannot show this, so no error
    /// counts as a proof. Set `false` for a service that sends each request itself and follows no
    /// redirects. Then a `POST` is replayed after a refused connection.
    #[must_use]
    pub fn composite(mut self, composite: bool) -> Self {
        self.composite = Some(composite);
        self
    }

    /// Clones the bodies of requests in place of recording them. A retry then sends a `Request<B>`
    /// of the type that it was given, for services that take no other. For a whole
    /// [stack](crate::stack), use `.protocol(|http| http.clone_body())`.
    ///
    /// A clone should be cheap, like that of a `Full<Bytes>`. Each request that may be retried is
    /// cloned once, and once more for each retry. [`body_limit`](Self::body_limit) applies to
    /// recorded bodies only.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower::{Layer, service_fn};
    /// use tower_keep::stack;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
    /// // A client that takes requests of one type.
    /// async fn send(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    ///     Ok(Response::new(Full::from("hello")))
    /// }
    /// let stack = stack::client().http().protocol(|http| http.clone_body()).build()?;
    /// let client = stack.layer(service_fn(send));
    /// # use tower::ServiceExt;
    /// # client.oneshot(Request::get("http://a.example/").body(Full::default())?).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn clone_body(self) -> Client<CloneBody> {
        self.keep_bodies(CloneBody)
    }

    /// Copies the bodies of requests with a closure, in place of recording them, for example
    /// `.copy_body(Body::try_clone)`. A retry then sends a `Request<B>` of the type that it was
    /// given. If the closure returns `None`, for a stream for example, nothing is kept, and the
    /// request is sent once.
    ///
    /// The closure is called for each request that may be retried, and once more for each retry, so
    /// a copy should be cheap. [`body_limit`](Self::body_limit) applies to recorded bodies only.
    #[must_use]
    pub fn copy_body<B, F>(self, copy: F) -> Client<CopyBody<F>>
    where
        F: Fn(&B) -> Option<B> + Clone,
    {
        self.keep_bodies(CopyBody(copy))
    }

    fn keep_bodies<T>(self, bodies: T) -> Client<T> {
        let Self {
            classifier,
            also_retried,
            strict,
            attempt_headers,
            send_deadline,
            composite,
            body_limit,
            idempotent,
            advice,
            settings,
            before_retry,
            hints,
            changing,
            ..
        } = self;
        Client {
            classifier,
            also_retried,
            strict,
            attempt_headers,
            send_deadline,
            composite,
            body_limit,
            bodies,
            idempotent,
            advice,
            settings,
            before_retry,
            hints,
            changing,
        }
    }

    #[inline]
    pub(super) fn is_composite(&self) -> bool {
        self.composite == Some(true)
    }

    /// Returns whether an inner service may have made another request from this one, and sent that.
    /// `taken` tells whether something has taken the body, if that can be seen.
    #[inline]
    pub(super) fn may_have_sent(&self, taken: Option<bool>) -> bool {
        self.is_composite() || taken.unwrap_or(self.composite.is_none())
    }

    #[inline]
    pub(super) fn bodies(&self) -> &K {
        &self.bodies
    }

    /// Returns the longest body that is kept, in bytes.
    pub(super) fn longest_kept(&self) -> usize {
        self.body_limit
    }

    #[inline]
    pub(super) fn sends_deadline(&self) -> bool {
        self.send_deadline
    }

    /// Writes an attempt's number and its remaining time, for inner layers and the upstream.
    #[inline]
    pub(in crate::protocol) fn number_request<B>(&self, request: &mut Request<B>, attempt: u32) {
        if attempt > 1 || self.attempt_headers {
            let number = Attempt::counted_on(request.extensions(), attempt);
            // An extension costs an allocation, so the first attempt has none.
            if attempt > 1 {
                request.extensions_mut().insert(number);
                self.change_head(request);
            }
            if self.attempt_headers {
                number.write(request.headers_mut());
            }
        }
        self.tell_deadline(request);
    }

    /// Writes the remaining time of the request for the upstream, if that is enabled.
    #[inline]
    pub(in crate::protocol) fn tell_deadline<B>(&self, request: &mut Request<B>) {
        if self.send_deadline {
            if let Some(deadline) = request.extensions().get::<Deadline>().copied() {
                deadline_fields::write(request.headers_mut(), deadline.remaining());
            }
        }
    }

    /// Returns whether a closure declares this request idempotent.
    pub(super) fn accepts_as_idempotent(&self, head: &Parts) -> bool {
        self.idempotent.is_some_and(|rule| rule(head))
    }

    /// Returns what a retry may do after an error.
    pub(in crate::protocol) fn advise_on_error(&self, cause: ErrorCause) -> Advice {
        match cause {
            ErrorCause::NotSent | ErrorCause::Unprocessed if self.is_composite() => {
                ErrorCause::Unknown.advice()
            }
            cause => cause.advice(),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
