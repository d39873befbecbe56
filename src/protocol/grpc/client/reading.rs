//! The reading of results by a client.

use std::{any::Any, error::Error};

use http::{Request, Response};
use http_body::Body;
use tonic::{Code, ConnectError};
use tower::BoxError;

use super::Client;
use crate::{
    CarryDeadline, Classify, Deadline, Outcome, Rejected,
    call::causes,
    protocol::{
        Advice, PrimaryError, Proof, Protocol, Sent, Settle, SpillReport, WouldReject, as_error,
        grpc::{
            TrackedBody,
            body::holds_nothing,
            status::{CallStatus, Pushback, code_of},
        },
        http::ErrorCause,
        in_words, settle,
    },
};

impl Client {
    /// Returns the outcome of an error. An error without a status counts as `UNAVAILABLE`.
    fn outcome_of(&self, error: Option<&(dyn Error + 'static)>) -> Outcome {
        let rejected = error.and_then(Rejected::find);
        rejected.and_then(Rejected::outcome).unwrap_or_else(|| {
            let code = error.and_then(code_of).unwrap_or(Code::Unavailable);
            self.codes.outcome_of(code)
        })
    }
}

impl Client {
    /// Advises on an error that no layer of this crate made.
    fn advise_on_failure(&self, error: &(dyn Error + 'static)) -> Advice {
        // A channel wraps its errors once. Further in, a connect error belongs to another call,
        // which the user's service made of this one.
        let cause = match causes(error)
            .take(2)
            .any(|cause| cause.is::<ConnectError>())
        {
            true => ErrorCause::NotSent,
            false => match code_of(error) {
                // `DEADLINE_EXCEEDED` is a channel's own timeout.
                Some(Code::Unavailable | Code::DeadlineExceeded) => ErrorCause::Unknown,
                Some(_) => return Advice::Stop,
                None => ErrorCause::of_channel(error),
            },
        };
        self.http.advise_on_error(cause)
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
                _ => {
                    advise_on_end(CallStatus::of_head(response).or_else(|| response.body().ended()))
                }
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
            Err(error) => ErrorCause::of_channel(&**error).proof(advice),
        }
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
            Ok(response) => CallStatus::in_words(
                CallStatus::of_head(response).or_else(|| response.body().ended()),
            ),
            Err(error) => in_words(&**error),
        }
    }

    fn note_spill<T: Settle>(&self, response: &mut Self::Response<T>, report: SpillReport) {
        response.extensions_mut().insert(report);
    }

    fn note_primary<T: Settle>(&self, response: &mut Self::Response<T>, primary: PrimaryError) {
        response.extensions_mut().insert(primary);
    }

    fn note_would_reject<T: Settle>(&self, response: &mut Self::Response<T>, mark: WouldReject) {
        response.extensions_mut().insert(mark);
    }
}

/// Advises on the status, if it has arrived.
fn advise_on_end(ended: Option<CallStatus>) -> Advice {
    let sent = Sent::Maybe;
    match ended {
        Some(CallStatus { code, pushback }) => match (code, pushback) {
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
