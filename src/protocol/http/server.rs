//! The side that answers.

use http::{Response, StatusCode, header::RETRY_AFTER};

use super::{outcome_of, rate_limit_fields, retry_after};
use crate::{
    Classify, Outcome, Rejected, RejectedKind,
    protocol::{Protocol, Quota, Settle},
};

/// HTTP on the answering side: a rejection is a response with an empty body, and errors stay the handler's own.
///
/// | rejection | status | `Retry-After` |
/// |---|---|---|
/// | rate limited | 429 Too Many Requests | the wait in whole seconds, rounded up, at least 1 |
/// | cost above the burst | 429 Too Many Requests | none: it never fits |
/// | circuit open | 503 Service Unavailable | the wait, where it is known |
/// | bulkhead full, timed out | 503 Service Unavailable | none |
///
/// A rate limit that [advertises](crate::rate_limit::RateLimitBuilder::advertise) itself adds `RateLimit-Policy` and
/// `RateLimit` fields to all its responses, rejections or not.
///
/// The [`Rejected`] itself is in the response's extensions, for logs and for layers further out. The body type must
/// be `Default`, as axum's, tonic's and http-body-util's are.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Server;

impl Server {
    /// The defaults, which is all there is.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<B, Err> Classify<Response<B>, Err> for Server {
    fn classify(&self, result: Result<&Response<B>, &Err>) -> Outcome {
        result.map_or(Outcome::Failure, outcome_of)
    }
}

impl<B: Default, Err> Protocol<Response<B>, Err> for Server {
    type Response<T: Settle> = Response<B>;
    type Error = Err;

    fn settle<T: Settle>(&self, result: Result<Response<B>, Err>, permit: T) -> Result<Response<B>, Err> {
        let outcome = self.classify(result.as_ref());
        let hint = match &result {
            Ok(response) if outcome != Outcome::Success => retry_after::parse(response.headers()),
            _ => None,
        };
        permit.settle(outcome, hint);
        result
    }

    fn reject<T: Settle>(&self, rejected: Rejected) -> Result<Response<B>, Err> {
        let mut response = Response::new(B::default());
        *response.status_mut() = match rejected.kind {
            RejectedKind::RateLimited | RejectedKind::CostTooHigh => StatusCode::TOO_MANY_REQUESTS,
            RejectedKind::CircuitOpen | RejectedKind::BulkheadFull | RejectedKind::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
        };
        if let Some(wait) = rejected.retry_after {
            response.headers_mut().insert(RETRY_AFTER, retry_after::format(wait));
        }
        response.extensions_mut().insert(rejected);
        Ok(response)
    }

    fn not_ready(&self, error: Err) -> Err {
        error
    }

    fn advertise<T: Settle>(&self, mut response: Response<B>, quota: &Quota) -> Response<B> {
        rate_limit_fields::write(response.headers_mut(), quota);
        response
    }
}
