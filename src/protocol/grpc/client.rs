//! The client side.

use std::{any::Any, error::Error};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tonic::{Code, ConnectError};
use tower::BoxError;

use super::{
    TrackedBody,
    body::holds_nothing,
    codes::Codes,
    status::{Ended, Pushback, code_of},
};
use crate::{
    CarryDeadline, Classify, Deadline, Outcome, Rejected,
    call::causes,
    protocol::{
        Advice, Kept, PrimaryError, Proof, Protocol, Replay, Sent, Settle, as_error,
        http::{self as over_http, Cause, RequestSnapshot, Tape},
        in_words, settle,
    },
};

/// gRPC on the client side: rejections are errors, boxed as is tower's convention, from which
/// tonic's clients make a status of the right code.
///
/// | rejection | status |
/// |---|---|
/// | rate limit, bulkhead | `RESOURCE_EXHAUSTED` |
/// | circuit breaker, a stack that drains | `UNAVAILABLE` |
/// | timeout, a deadline that has passed | `DEADLINE_EXCEEDED` |
///
/// [`Rejected::find`] finds the rejection in that status.
///
/// What a retry may do, and why:
///
/// | response | retried |
/// |---|---|
/// | `UNAVAILABLE`, reset, timeout | idempotent methods: the upstream may have acted |
/// | `RESOURCE_EXHAUSTED` with `grpc-retry-pushback-ms` | idempotent methods: the upstream says when to come back |
/// | any other status | never |
/// | no connection | all methods: nothing was sent |
///
/// Pushback is exact: the next attempt is made after that long, without jitter, unless it is longer
/// than the retry's `max_retry_after`, and the backoff starts from its base again. The status is
/// read from the head, or from trailers that have come together with it, with at most one message
/// between them. A stream that fails later is not retried, because the caller has its messages by
/// then.
///
/// A `grpc-timeout` of the caller, as tonic's `Request::set_timeout` sets it, is the deadline of
/// the call with all its attempts, unless the request has a [`Deadline`] already. A retry is sent
/// with what remains of it.
///
/// Idempotent are the methods that are declared so, and requests with an
/// [`Idempotent`](over_http::Idempotent) extension or an `idempotency-key`; never those with a
/// [`NotIdempotent`](over_http::NotIdempotent) extension.
///
/// Below a retry, requests carry a [`tonic::body::Body`], the type that a channel takes.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    codes: Codes,
    listed: &'static [&'static str],
    declared: fn(&str) -> bool,
    /// Keeps requests to send them again.
    http: over_http::Client,
}

impl Client {
    /// Codes mean what the [table](crate::protocol::grpc) says, no method is idempotent, and
    /// requests of up to 64 KiB are kept to be sent again.
    #[must_use]
    pub fn new() -> Self {
        Self {
            codes: Codes::default(),
            listed: &[],
            declared: |_| false,
            http: over_http::Client::new(),
        }
    }

    /// Codes mean what the closure says. It is asked once for each of the 17 codes, here.
    #[must_use]
    pub fn classify_code(mut self, outcome: impl Fn(Code) -> Outcome) -> Self {
        self.codes = Codes::new(outcome);
        self
    }

    /// Declares that these methods may be called more than once: `"/package.Service/Method"`, or
    /// `"/package.Service/"` for all of a service.
    #[must_use]
    pub fn idempotent(mut self, methods: &'static [&'static str]) -> Self {
        self.listed = methods;
        self
    }

    /// Declares which methods may be called more than once, by their path
    /// (`/package.Service/Method`).
    #[must_use]
    pub fn idempotent_when(mut self, declared: fn(&str) -> bool) -> Self {
        self.declared = declared;
        self
    }

    /// Keeps requests of up to this many bytes; a longer one is sent once. Default 64 KiB.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.http = self.http.body_limit(bytes);
        self
    }

    /// A [retry](crate::retry) tells the upstream which attempt a request is. See
    /// [`http::Client::attempt_headers`](over_http::Client::attempt_headers).
    #[must_use]
    pub fn attempt_headers(mut self, send: bool) -> Self {
        self.http = self.http.attempt_headers(send);
        self
    }

    /// A [timeout](crate::timeout) and a [retry](crate::retry) tell the upstream how long the
    /// answer is waited for. See
    /// [`http::Client::send_deadline`](over_http::Client::send_deadline).
    #[must_use]
    pub fn send_deadline(mut self, send: bool) -> Self {
        self.http = self.http.send_deadline(send);
        self
    }

    /// The service beneath makes several calls of one. See
    /// [`http::Client::composite`](over_http::Client::composite).
    #[must_use]
    pub fn composite(mut self, composite: bool) -> Self {
        self.http = self.http.composite(composite);
        self
    }

    fn is_idempotent(&self, path: &str) -> bool {
        let listed = |method: &&str| match method.ends_with('/') {
            true => path.starts_with(*method),
            false => path == *method,
        };
        self.listed.iter().any(listed) || (self.declared)(path)
    }
}

impl Client {
    pub(super) fn http(&self) -> &over_http::Client {
        &self.http
    }

    /// What an error says of the upstream. Without a status it says that it cannot be reached.
    fn outcome_of(&self, error: Option<&(dyn Error + 'static)>) -> Outcome {
        let rejected = error.and_then(Rejected::find);
        rejected.and_then(Rejected::outcome).unwrap_or_else(|| {
            let code = error.and_then(code_of).unwrap_or(Code::Unavailable);
            self.codes.outcome_of(code)
        })
    }
}

impl Client {
    /// What an error says that no layer of this crate made.
    fn advise_on_failure(&self, error: &(dyn Error + 'static)) -> Advice {
        // A channel puts its errors into one of its own. Further in, it is that of a call which
        // somebody's service has made of this one.
        let cause = match causes(error)
            .take(2)
            .any(|cause| cause.is::<ConnectError>())
        {
            true => Cause::NotSent,
            false => match code_of(error) {
                // The second is what a channel's own timeout is.
                Some(Code::Unavailable | Code::DeadlineExceeded) => Cause::Unknown,
                Some(_) => return Advice::Stop,
                None => Cause::of_channel(error),
            },
        };
        self.http.advise_on_error(cause)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Body, Err: 'static> Classify<Response<B>, Err> for Client {
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        match result {
            Ok(response) => self
                .codes
                .read_head(response)
                .map_or(Outcome::Success, |(outcome, _)| outcome),
            Err(error) => self.outcome_of(as_error(error)),
        }
    }
}

impl<B, Err> Protocol<Response<B>, Err> for Client
where
    B: Body<Error: 'static> + Unpin,
    Err: Into<BoxError> + 'static,
{
    type Response<T: Settle> = Response<TrackedBody<B, T>>;
    type Error = BoxError;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        permit: T,
    ) -> Result<Self::Response<T>, BoxError> {
        match result.map_err(Into::into) {
            Ok(response) => {
                let said = self.codes.read_head(&response);
                let peek = said.is_none() && holds_nothing::<T>();
                let mut response =
                    TrackedBody::track(response, permit, said, self.codes, Code::Unknown);
                if peek {
                    response.body_mut().peek();
                }
                Ok(response)
            }
            Err(error) => {
                let outcome = self.outcome_of(Some(&*error));
                settle(permit, Rejected::find(&*error), (outcome, None));
                Err(error)
            }
        }
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Self::Response<T>, BoxError> {
        Err(rejected)
    }

    fn not_ready(&self, error: Err) -> BoxError {
        error.into()
    }

    fn advise(&self, _: Outcome, result: Result<&Self::Response<()>, &BoxError>) -> Advice {
        match result {
            Ok(response) => match response.extensions().get::<Rejected>() {
                Some(rejected) if rejected.kind.is_local() => Advice::from(rejected),
                _ => advise_on_end(Ended::of_head(response).or_else(|| response.body().ended())),
            },
            Err(error) => match Rejected::find(&**error) {
                Some(rejected) if rejected.kind.is_local() => Advice::from(rejected),
                Some(_) => retry(Sent::Maybe),
                None => self.advise_on_failure(&**error),
            },
        }
    }

    fn proof(&self, advice: Advice, result: Result<&Self::Response<()>, &BoxError>) -> Proof {
        match result {
            Ok(_) => advice.into(),
            Err(error) => Cause::of_channel(&**error).proof(advice),
        }
    }

    /// Of requests as tonic makes and takes them.
    fn deadline_of(&self, request: &dyn Any) -> Option<Deadline> {
        let request = request.downcast_ref::<Request<tonic::body::Body>>()?;
        CarryDeadline::deadline(self, request)
    }

    fn tell_deadline(&self, request: &mut dyn Any, deadline: Deadline) {
        if let Some(request) = request.downcast_mut::<Request<tonic::body::Body>>() {
            self.set_deadline(request, deadline);
        }
    }

    #[inline]
    fn judge(
        &self,
        classified: Outcome,
        result: Result<&Self::Response<()>, &BoxError>,
    ) -> Outcome {
        result.map_or_else(|error| self.outcome_of(Some(&**error)), |_| classified)
    }

    fn error<'a>(&self, error: &'a BoxError) -> Option<&'a (dyn Error + 'static)> {
        Some(&**error)
    }

    fn describe(&self, result: Result<&Self::Response<()>, &BoxError>) -> String {
        match result {
            Ok(response) => {
                Ended::in_words(Ended::of_head(response).or_else(|| response.body().ended()))
            }
            Err(error) => in_words(&**error),
        }
    }

    fn note_primary<T: Settle>(&self, response: &mut Self::Response<T>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
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
        // The time of `grpc-timeout` begins with the call, and not again with each attempt.
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
            // tonic has looked whether it is empty.
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

/// What the status says, if it has come.
fn advise_on_end(ended: Option<Ended>) -> Advice {
    let sent = Sent::Maybe;
    match ended {
        Some(Ended { code, pushback }) => match (code, pushback) {
            (Code::Unavailable, Pushback::None) => retry(sent),
            (Code::Unavailable | Code::ResourceExhausted, Pushback::After(after)) => {
                Advice::RetryExactly { sent, after }
            }
            (Code::Unavailable | Code::ResourceExhausted, Pushback::Never) => Advice::DoNotRetry,
            _ => Advice::Stop,
        },
        None => Advice::Stop,
    }
}

fn retry(sent: Sent) -> Advice {
    Advice::Retry { sent, after: None }
}
