//! The server side.

use std::{any::Any, time::Duration};

use http::{
    HeaderValue, Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::Body;
use tonic::Code;

use super::{TrackedBody, codes::Codes, rejection, status::CallStatus};
use crate::{
    CarryDeadline, Classify, Deadline, Outcome, Rejected, RejectedKind,
    ambient::chance,
    protocol::{
        Advice, PrimaryError, Protocol, Settle, SpillReport, WOULD_REJECT, WouldReject, as_error,
        http::{self as over_http, status::rejection_of},
        settle,
    },
};

/// gRPC on the server side. Rejections are responses without messages. They have a status, its text
/// and, if known, `grpc-retry-pushback-ms`.
///
/// | rejection | status |
/// |---|---|
/// | rate limit, bulkhead | `RESOURCE_EXHAUSTED` |
/// | circuit breaker, a stack that drains | `UNAVAILABLE` |
/// | timeout, a deadline that has passed | `DEADLINE_EXCEEDED` |
/// | no key to limit the rate by | `INVALID_ARGUMENT` |
///
/// The pushback of a call that costs more than the limit's burst is `-1`: never. The rejection is
/// in the response's extensions, for logs and for outer layers.
///
/// Add the layer with `tonic::transport::Server::builder().layer(..)`, or wrap a service with it
/// and add that service as usual. Responses that are not gRPC, such as those of a health page or of
/// an inner gRPC-Web layer, are read as by [`http::Server`](over_http::Server). A stream among them
/// holds its permit to its end.
///
/// ```
/// use tonic::transport::Server;
/// use tower::Layer;
/// use tower_keep::{bulkhead::BulkheadLayer, protocol::grpc};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let in_all = BulkheadLayer::builder(100).protocol(grpc::Server::new()).build()?;
/// let in_one = BulkheadLayer::builder(10).protocol(grpc::Server::new()).build()?;
///
/// let (_, health) = tonic_health::server::health_reporter();
/// let server = Server::builder().layer(in_all).add_service(in_one.layer(health));
/// # let _ = server;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Server {
    codes: Codes,
    busy_hint: Option<Duration>,
}

impl Server {
    /// Creates the protocol. Codes have the outcomes of the [table](crate::protocol::grpc).
    #[must_use]
    pub fn new() -> Self {
        Self {
            codes: Codes::default(),
            busy_hint: None,
        }
    }

    /// Changes the outcomes of codes. The closure is called here, once for each of the 17 codes.
    #[must_use]
    pub fn classify_code(mut self, outcome: impl Fn(Code) -> Outcome) -> Self {
        self.codes = Codes::new(outcome);
        self
    }

    /// Sets a hint for rejections without one, as pushback: see
    /// [`http::Server::hint_when_busy`](over_http::Server::hint_when_busy). Calls past their
    /// deadline get no hint. Default: none, and a second in a [stack](crate::stack).
    #[must_use]
    pub fn hint_when_busy(mut self, hint: Duration) -> Self {
        self.busy_hint = Some(hint).filter(|hint| !hint.is_zero());
        self
    }

    /// Returns the outcome of the head, if it ends the call.
    fn read_head<B: Body>(&self, response: &Response<B>) -> Option<(Outcome, Option<Duration>)> {
        if speaks_grpc(response) {
            return self.codes.read_head(response);
        }
        let outcome = Classify::<_, ()>::classify(&over_http::Server::new(), Ok(response));
        let ended = outcome != Outcome::Success || length_is_known(response);
        ended.then_some((outcome, None))
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Body, Err: 'static> Classify<Response<B>, Err> for Server {
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        match result {
            Ok(response) => self
                .read_head(response)
                .map_or(Outcome::Success, |(outcome, _)| outcome),
            Err(error) => {
                let rejected = as_error(error).and_then(Rejected::find);
                rejected
                    .and_then(Rejected::outcome)
                    .unwrap_or(Outcome::Failure)
            }
        }
    }
}

impl<B, Err> Protocol<Response<B>, Err> for Server
where
    B: Body + Default,
    Err: 'static,
{
    type Response<T: Settle> = Response<TrackedBody<B, T>>;
    type Error = Err;

    fn settle<T: Settle>(
        &self,
        result: Result<Response<B>, Err>,
        permit: T,
    ) -> Result<Self::Response<T>, Err> {
        match result {
            Ok(response) => {
                let said = self.read_head(&response);
                let missing = match speaks_grpc(&response) {
                    true => Code::Unknown,
                    false => Code::Ok,
                };
                Ok(TrackedBody::track(
                    response, permit, said, self.codes, missing,
                ))
            }
            Err(error) => {
                let outcome = Classify::<Response<B>, _>::classify(self, Err(&error));
                let rejected = as_error(&error).and_then(Rejected::find);
                settle(permit, rejected, (outcome, None));
                Err(error)
            }
        }
    }

    fn reject<T: Settle>(&self, mut rejected: Box<Rejected>) -> Result<Self::Response<T>, Err> {
        let is_late = matches!(
            rejected.kind,
            RejectedKind::DeadlineExceeded | RejectedKind::TimedOut
        );
        let hint = self.busy_hint.filter(|_| !is_late);
        rejected.guess_wait(|| hint.map(chance::spread));
        Ok(rejection::response(*rejected))
    }

    fn not_ready(&self, error: Err) -> Err {
        error
    }

    /// Recognizes rejections of this crate, for a layer that asks. There is no retry on a server.
    fn advise(&self, _: Outcome, result: Result<&Self::Response<()>, &Err>) -> Advice {
        let rejected = match result {
            Ok(response) => rejection_of(response),
            Err(error) => local_rejection(error),
        };
        rejected.map_or(Advice::Stop, Advice::from)
    }

    /// Reads requests with tonic's own body type.
    fn deadline_of(&self, request: &dyn Any) -> Option<Deadline> {
        let request = request.downcast_ref::<Request<tonic::body::Body>>()?;
        CarryDeadline::deadline(self, request)
    }

    fn tell_deadline(&self, request: &mut dyn Any, deadline: Deadline) {
        if let Some(request) = request.downcast_mut::<Request<tonic::body::Body>>() {
            self.set_deadline(request, deadline);
        }
    }

    fn describe(&self, result: Result<&Self::Response<()>, &Err>) -> String {
        match result {
            Ok(response) => CallStatus::in_words(CallStatus::of_headers(response.headers())),
            Err(_) => "an error of the service".into(),
        }
    }

    fn note_spill<T: Settle>(&self, response: &mut Self::Response<T>, report: SpillReport) {
        response.extensions_mut().insert(report);
    }

    fn note_primary<T: Settle>(&self, response: &mut Self::Response<T>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
    }

    fn note_would_reject<T: Settle>(&self, response: &mut Self::Response<T>, mark: WouldReject) {
        let kind = HeaderValue::from_static(mark.0.kind.as_str());
        response.headers_mut().insert(WOULD_REJECT, kind);
        response.extensions_mut().insert(mark);
    }
}

/// Returns the inner layer's rejection in an error of the service.
fn local_rejection<Err: 'static>(error: &Err) -> Option<&Rejected> {
    let rejected = as_error(error).and_then(Rejected::find);
    rejected.filter(|rejected| rejected.kind.is_local())
}

/// Returns whether a reader may stop at the length and never poll for the end. The end of such a
/// body is not awaited.
fn length_is_known<B: Body>(response: &Response<B>) -> bool {
    response.headers().contains_key(CONTENT_LENGTH) || response.body().size_hint().exact().is_some()
}

/// Returns whether the response has a status in its head or its trailers.
fn speaks_grpc<B>(response: &Response<B>) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        matches!(rest, Some([] | [b'+' | b';', ..]))
    })
}
