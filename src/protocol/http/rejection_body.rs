//! The body of a rejection.

use http::{HeaderValue, StatusCode};

use super::{
    rate_limit_fields::{Quoted, policy_name},
    retry_after,
};
use crate::{Rejected, RejectedKind};

/// Makes the body `B` of a rejection. Implemented by closures: see
/// [`Server::body`](super::Server::body).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make a rejection's body of type `{B}`",
    note = "`http::Server::new()` needs a body that is `Default`; with `.problem_json()` it needs one that is `From<String>`; with `.body(..)`, the one that the closure makes",
    note = "axum's `Body` and http-body-util's `Full<Bytes>` are both"
)]
pub trait RejectionBody<B>: Clone {
    /// Returns the body, and its `Content-Type` if it has any.
    fn body(&self, status: StatusCode, rejected: &Rejected) -> (B, Option<HeaderValue>);
}

/// Makes no body: the status and the fields are enough.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBody;

/// Makes an `application/problem+json` body (RFC 9457).
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemJson;

impl<F, B> RejectionBody<B> for F
where
    F: Fn(StatusCode, &Rejected) -> (B, Option<HeaderValue>) + Clone,
{
    fn body(&self, status: StatusCode, rejected: &Rejected) -> (B, Option<HeaderValue>) {
        self(status, rejected)
    }
}

impl<B: Default> RejectionBody<B> for NoBody {
    fn body(&self, _: StatusCode, _: &Rejected) -> (B, Option<HeaderValue>) {
        (B::default(), None)
    }
}

impl<B: From<String>> RejectionBody<B> for ProblemJson {
    fn body(&self, status: StatusCode, rejected: &Rejected) -> (B, Option<HeaderValue>) {
        (
            problem(status, rejected).into(),
            Some(HeaderValue::from_static("application/problem+json")),
        )
    }
}

/// Returns the JSON. It has the names of rate limits and bulkheads as in `RateLimit-Policy`, and no
/// names of other layers.
fn problem(status: StatusCode, rejected: &Rejected) -> String {
    let policy = match rejected.kind {
        RejectedKind::RateLimited => Some(policy_name(rejected.name, 0, false)),
        RejectedKind::BulkheadFull => Some(policy_name(rejected.name, 0, true)),
        _ => None,
    };
    let (kind, title) = match rejected.kind {
        RejectedKind::RateLimited => (
            QUOTA_EXCEEDED,
            "Request cannot be satisfied as assigned quota has been exceeded",
        ),
        RejectedKind::BulkheadFull
        | RejectedKind::Throttled
        | RejectedKind::CircuitOpen
        | RejectedKind::Draining
        | RejectedKind::StoreDown => (
            REDUCED_CAPACITY,
            "Request cannot be satisfied due to temporary server capacity constraints",
        ),
        // RFC 9457, section 4.2.1: without a type, the title of a problem is the status phrase.
        _ => (BLANK, status.canonical_reason().unwrap_or("Error")),
    };
    let detail = Quoted(rejected.kind.description());
    let mut json = format!(
        r#"{{"type":"{kind}","title":"{title}","status":{},"detail":{detail}"#,
        status.as_u16()
    );
    if let Some(wait) = rejected.retry_after {
        // With an underscore: RFC 9457, section 3.2, has no hyphens in names of extensions.
        json += &format!(r#","retry_after":{}"#, retry_after::seconds(wait));
    }
    if let Some(policy) = policy {
        json += &format!(r#","violated-policies":[{}]"#, Quoted(&policy));
    }
    json + "}"
}

/// The type of a problem with no more information than its status.
pub(super) const BLANK: &str = "about:blank";
// The types from the draft of the `RateLimit` fields.
pub(super) const QUOTA_EXCEEDED: &str =
    "https://iana.org/assignments/http-problem-types#quota-exceeded";
pub(super) const REDUCED_CAPACITY: &str =
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_limit_is_a_problem_of_its_own_type() {
        let mut rejected = Rejected::new(RejectedKind::RateLimited, "rate_limit");
        rejected.retry_after = Some(Duration::from_millis(1_001));
        rejected.name = Some("a\"\\\n</script>\u{1F980}");
        let expected = concat!(
            r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#,
            r#""title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"#,
            r#""detail":"rate limit exceeded","retry_after":2,"violated-policies":["a\"\\?</script>?"]}"#,
        );
        assert_eq!(problem(StatusCode::TOO_MANY_REQUESTS, &rejected), expected);
    }

    #[test]
    fn an_overload_is_a_problem_of_its_own_type() {
        let start = concat!(
            r#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","#,
            r#""title":"Request cannot be satisfied due to temporary server capacity constraints","status":503,"#,
        );
        let mut rejected = Rejected::new(RejectedKind::BulkheadFull, "bulkhead");
        rejected.name = Some("api");
        assert_eq!(
            problem(StatusCode::SERVICE_UNAVAILABLE, &rejected),
            format!(r#"{start}"detail":"bulkhead full","violated-policies":["api-concurrency"]}}"#),
        );
        let mut rejected = Rejected::new(RejectedKind::CircuitOpen, "circuit_breaker");
        (rejected.name, rejected.retry_after) = (Some("inside"), Some(Duration::from_secs(2)));
        assert_eq!(
            problem(StatusCode::SERVICE_UNAVAILABLE, &rejected),
            format!(r#"{start}"detail":"circuit open","retry_after":2}}"#),
        );
    }

    #[test]
    fn other_rejections_are_blank_and_hide_the_name() {
        let mut rejected = Rejected::new(RejectedKind::TimedOut, "timeout");
        rejected.name = Some("inside");
        assert_eq!(
            problem(StatusCode::SERVICE_UNAVAILABLE, &rejected),
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"timed out"}"#,
        );
        let rejected = Rejected::new(RejectedKind::CostTooHigh, "rate_limit");
        assert_eq!(
            problem(StatusCode::TOO_MANY_REQUESTS, &rejected),
            r#"{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"cost above the rate limit's burst"}"#,
        );
    }
}
