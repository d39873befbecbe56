//! The client side.

mod reading;

use std::any::Any;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tonic::Code;
use tower::BoxError;

use super::codes::Codes;
use crate::{
    CallSettings, CarryDeadline, Deadline, Outcome,
    protocol::{
        Changing, Kept, Replay,
        http::{self as over_http, PathRule, RequestSnapshot, Tape},
    },
};

/// gRPC on the client side. Rejections are errors, boxed as is tower's convention. Tonic's clients
/// convert them to a status of the right code.
///
/// | rejection | status |
/// |---|---|
/// | rate limit, bulkhead | `RESOURCE_EXHAUSTED` |
/// | circuit breaker, a stack that drains | `UNAVAILABLE` |
/// | timeout, a deadline that has passed | `DEADLINE_EXCEEDED` |
///
/// [`Rejected::find`](crate::Rejected::find) finds the rejection in that status.
///
/// The retries, and the reasons:
///
/// | response | retried |
/// |---|---|
/// | `UNAVAILABLE`, reset, timeout | idempotent methods: the upstream may have acted |
/// | `RESOURCE_EXHAUSTED` with `grpc-retry-pushback-ms` | idempotent methods: the upstream says when to come back |
/// | any other status | never |
/// | no connection | all methods: nothing was sent |
///
/// Pushback is exact: the next attempt starts after that time, without jitter, unless the time is
/// longer than the retry's `max_retry_after`. The backoff then restarts from its base. The status
/// is read from the head. It is also read from trailers that arrived together with the head, after
/// at most one message. A stream that fails later is not retried, because the caller already has
/// its messages.
///
/// A `grpc-timeout` of the caller, as set by tonic's `Request::set_timeout`, is the deadline of the
/// call with all its attempts, unless the request has a [`Deadline`] already. A retry is sent with
/// the remaining time.
///
/// Idempotent are methods that are declared so, and requests with an
/// [`Idempotent`](over_http::Idempotent) extension or an `idempotency-key`. A request with a
/// [`NotIdempotent`](over_http::NotIdempotent) extension never is.
///
/// Below a retry, requests have a [`tonic::body::Body`], the type that a channel takes.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    codes: Codes,
    /// `None` if no method is declared.
    idempotent: Option<PathRule>,
    /// Keeps requests for retries.
    http: over_http::Client,
}

impl Client {
    /// Creates the protocol. Codes have the outcomes of the [table](crate::protocol::grpc), no
    /// method is idempotent, and requests of up to 64 KiB are kept for retries.
    #[must_use]
    pub fn new() -> Self {
        Self {
            codes: Codes::default(),
            idempotent: None,
            http: over_http::Client::new(),
        }
    }

    /// Changes the outcomes of codes. The closure is called here, once for each of the 17 codes.
    #[must_use]
    pub fn classify_code(mut self, outcome: impl Fn(Code) -> Outcome) -> Self {
        self.codes = Codes::new(outcome);
        self
    }

    /// Declares methods that may be called more than once: `"/package.Service/Method"`, or
    /// `"/package.Service/"` for all methods of a service. Adds to earlier declarations. The list
    /// lives as long as the program.
    #[must_use]
    pub fn idempotent(self, methods: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let methods = methods.into_iter();
        let methods: Vec<String> = methods.map(|method| method.as_ref().into()).collect();
        self.idempotent_when(move |path| {
            methods.iter().any(|method| match method.ends_with('/') {
                true => path.starts_with(method),
                false => path == method,
            })
        })
    }

    /// Declares methods that may be called more than once: those whose path
    /// (`/package.Service/Method`) the closure accepts. Adds to earlier declarations. The closure
    /// lives as long as the program.
    #[must_use]
    pub fn idempotent_when<F>(mut self, declared: F) -> Self
    where
        F: Fn(&str) -> bool + Send + Sync + 'static,
    {
        self.idempotent = Some(match self.idempotent {
            Some(before) => PathRule::new(move |path| before(path) || declared(path)),
            None => PathRule::new(declared),
        });
        self
    }

    /// Sets defaults by method path (`/package.Service/Method`), for settings that a request does
    /// not have in a [`CallSettings`] extension. The closure may be called more than once for a
    /// request. It lives as long as the program.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_keep::{CallSettings, Criticality, protocol::grpc::Client};
    ///
    /// let client = Client::new().call_settings(|path| match path {
    ///     "/shop.Search/Query" => CallSettings::new().attempt_timeout(Duration::from_millis(50)),
    ///     "/shop.Orders/Place" => CallSettings::new().attempts(1).cost(5),
    ///     _ => CallSettings::new().criticality(Criticality::Critical),
    /// });
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn call_settings<F>(mut self, settings: F) -> Self
    where
        F: Fn(&str) -> CallSettings + Send + Sync + 'static,
    {
        let by_path = move |head: &over_http::RequestHead<'_>| settings(head.uri.path());
        self.http = self.http.call_settings(by_path);
        self
    }

    /// Changes the head of a request just before it is replayed: see
    /// [`http::Client::before_retry`](over_http::Client::before_retry).
    #[must_use]
    pub fn before_retry<F>(mut self, change: F) -> Self
    where
        F: Fn(&mut http::request::Parts) + Send + Sync + 'static,
    {
        self.http = self.http.before_retry(change);
        self
    }

    /// Changes the head like [`before_retry`](Self::before_retry), with a future: see
    /// [`http::Client::before_retry_async`](over_http::Client::before_retry_async).
    #[must_use]
    pub fn before_retry_async<F, Fut>(mut self, change: F) -> Self
    where
        F: Fn(http::request::Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = http::request::Parts> + Send + 'static,
    {
        self.http = self.http.before_retry_async(change);
        self
    }

    /// Sets the most bytes of a request that are kept. A longer request is sent once. Default 64
    /// KiB.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.http = self.http.body_limit(bytes);
        self
    }

    /// Makes a [retry](crate::retry) write the number of the attempt for the upstream. See
    /// [`http::Client::attempt_headers`](over_http::Client::attempt_headers).
    #[must_use]
    pub fn attempt_headers(mut self, send: bool) -> Self {
        self.http = self.http.attempt_headers(send);
        self
    }

    /// Makes a [timeout](crate::timeout) and a [retry](crate::retry) write the remaining time for
    /// the upstream. See [`http::Client::send_deadline`](over_http::Client::send_deadline).
    #[must_use]
    pub fn send_deadline(mut self, send: bool) -> Self {
        self.http = self.http.send_deadline(send);
        self
    }

    /// Declares that the inner service makes several calls of one. See
    /// [`http::Client::composite`](over_http::Client::composite).
    #[must_use]
    pub fn composite(mut self, composite: bool) -> Self {
        self.http = self.http.composite(composite);
        self
    }

    fn is_idempotent(&self, path: &str) -> bool {
        self.idempotent.is_some_and(|rule| rule(path))
    }
}

impl Client {
    pub(super) fn http(&self) -> &over_http::Client {
        &self.http
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Replay<Request<B>> for Client
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Request = Request<tonic::body::Body>;
    type Snapshot = RequestSnapshot<Tape<B>>;

    fn once(&self, request: Request<B>) -> Self::Request {
        request.map(tonic::body::Body::new)
    }

    fn prepare(&self, mut request: Request<B>) -> (Self::Request, Option<Kept<Self::Snapshot>>) {
        // The time of `grpc-timeout` starts with the call, and not again with each attempt.
        if let Some(deadline) = CarryDeadline::deadline(self, &request) {
            request.extensions_mut().insert(deadline);
        }
        let denied = request.extensions().get::<over_http::NotIdempotent>();
        let declared = denied.is_none() && self.is_idempotent(request.uri().path());
        let (request, kept) = self.http.prepare(request);
        let kept = kept.map(|kept| Kept {
            idempotent: kept.idempotent || declared,
            ..kept
        });
        let request = request.map(tonic::body::Body::new);
        if let Some(kept) = &kept {
            // Tonic has checked whether the body is empty, which is not a use of it.
            kept.snapshot.forget_taken();
        }
        (request, kept)
    }

    fn replay(&self, snapshot: &Self::Snapshot) -> Option<Self::Request> {
        let request = Replay::<Request<B>>::replay(&self.http, snapshot)?;
        let request = request.map(tonic::body::Body::new);
        snapshot.forget_taken();
        Some(request)
    }

    fn head<'a>(&self, snapshot: &'a Self::Snapshot) -> Option<&'a dyn Any> {
        Replay::<Request<B>>::head(&self.http, snapshot)
    }

    #[inline]
    fn number(&self, request: &mut Self::Request, attempt: u32) {
        self.http.number_request(request, attempt);
        if attempt > 1 {
            Replay::<Request<B>>::tell_remaining(self, request);
        }
    }

    #[inline]
    fn changing(&self, request: &mut Self::Request, attempt: u32) -> Option<Changing> {
        self.http.changing_head(request, attempt)
    }

    fn change(&self, request: &mut Self::Request, to: Box<dyn Any + Send>) {
        self.http.changed_head(request, to);
    }

    #[inline]
    fn may_change(&self) -> bool {
        Replay::<Request<B>>::may_change(&self.http)
    }

    #[inline]
    fn tell_remaining(&self, request: &mut Self::Request) {
        self.refresh_deadline(request);
    }

    #[inline]
    fn deadline(&self, snapshot: &Self::Snapshot) -> Option<Deadline> {
        Replay::<Request<B>>::deadline(&self.http, snapshot)
    }

    #[inline]
    fn was_taken(&self, snapshot: &Self::Snapshot) -> bool {
        Replay::<Request<B>>::was_taken(&self.http, snapshot)
    }

    #[inline]
    fn can_prove_unsent(&self) -> bool {
        Replay::<Request<B>>::can_prove_unsent(&self.http)
    }
}
