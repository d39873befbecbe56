//! The side that asks.

use http::{HeaderMap, Request, StatusCode, request::Parts};

use super::{
    Attempt, CloneBody, CopyBody, RecordBody, deadline_fields,
    error::Cause,
    rules::{
        AdviceRule, ChangingRule, ClassifyRule, HintRule, IdempotentRule, ResendRule, SettingsRule,
    },
    status::Statuses,
};
use crate::{Deadline, Outcome, protocol::Advice};

mod calls;
mod hints;
mod reading;

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
pub struct Client<K = RecordBody> {
    classifier: Option<ClassifyRule>,
    also_retried: Statuses,
    strict: bool,
    attempt_headers: bool,
    send_deadline: bool,
    /// `None`: nobody has said.
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
    /// Classifies responses by status and fields. Where the closure says `None`, the table does. It
    /// is kept for as long as the program runs.
    ///
    /// A 502, 503, 504 or 429 that it calls a success, or ignores, is not retried either. What a
    /// layer of this crate further in made is never asked about.
    #[must_use]
    pub fn classify_response<F>(mut self, classify: F) -> Self
    where
        F: Fn(StatusCode, &HeaderMap) -> Option<Outcome> + Send + Sync + 'static,
    {
        self.classifier = Some(ClassifyRule::new(classify));
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
    /// // This API processes nothing that it answers with a 429.
    /// let client = Client::new().advise(|status, _| {
    ///     let after = Some(Duration::from_secs(1));
    ///     (status == StatusCode::TOO_MANY_REQUESTS)
    ///         .then_some(Advice::Retry { sent: Sent::No, after })
    /// });
    /// # let _ = client;
    /// ```
    ///
    /// One that tells its quota in a way of its own, as GitHub does, is in the
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
    /// no error of it, nor a rejection further in, proves that nothing was sent. Default: what the
    /// recorded body shows, `false` if nothing has looked into it.
    ///
    /// It is known without this of a service that sends the request itself, and then another, as
    /// one does that follows redirects. It is not known of one that sends copies of its own making:
    /// a `POST` without a body would be repeated when the second of them finds no connection.
    ///
    /// A body that is [cloned](Self::clone_body) or [copied](Self::copy_body) shows nothing, so
    /// nothing is believed of it. Say `false` of a service that sends each request itself and
    /// follows no redirects: then a `POST` is sent again when a connection was refused.
    #[must_use]
    pub fn composite(mut self, composite: bool) -> Self {
        self.composite = Some(composite);
        self
    }

    /// Clones the bodies of requests in place of recording them, so that a retry sends a
    /// `Request<B>` of just the type that it was given: for services that take no other. The whole
    /// [stack](crate::stack) does so then: `.protocol(|http| http.clone_body())`.
    ///
    /// A clone should be cheap, as that of a `Full<Bytes>` is: each request of a call that may be
    /// sent again is cloned, and once more for each retry. [`body_limit`](Self::body_limit) is for
    /// recorded bodies alone.
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

    /// Copies the bodies of requests by a closure, in place of recording them, so that a retry
    /// sends a `Request<B>` of just the type that it was given: `.copy_body(Body::try_clone)`. Of
    /// what the closure answers with `None`, a stream for example, nothing is kept, and the request
    /// is sent once.
    ///
    /// It is asked for each request that may be sent again, and once more for each retry, so a copy
    /// should be cheap. [`body_limit`](Self::body_limit) is for recorded bodies alone.
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

    /// Returns whether a service beneath may have made another request of one, and sent that.
    /// `taken`: whether something has taken the body, where that can be seen.
    #[inline]
    pub(super) fn may_have_sent(&self, taken: Option<bool>) -> bool {
        self.is_composite() || taken.unwrap_or(self.composite.is_none())
    }

    #[inline]
    pub(super) fn bodies(&self) -> &K {
        &self.bodies
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
            self.change_head(request);
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

    /// Returns whether a closure declares this request idempotent.
    pub(super) fn accepts_as_idempotent(&self, head: &Parts) -> bool {
        self.idempotent.is_some_and(|rule| rule(head))
    }

    /// What a retry may do after an error.
    pub(in crate::protocol) fn advise_on_error(&self, cause: Cause) -> Advice {
        match cause {
            Cause::NotSent | Cause::Unprocessed if self.is_composite() => Cause::Unknown.advice(),
            cause => cause.advice(),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
