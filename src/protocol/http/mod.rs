//! HTTP: status classes, `Retry-After`, idempotent methods, and bodies that can be sent again.
//!
//! [`Client`] stands before a client (hyper-util, or anything with [`http::Response`] answers):
//! rejections are errors. [`Server`] stands before a handler (an axum `Router`, a hyper service):
//! rejections are responses, and the error type stays that of the handler, so that a layer goes
//! straight onto a `Router`.
//!
//! | answer | outcome |
//! |---|---|
//! | 5xx, or no answer | [`Failure`](Outcome::Failure) |
//! | 429 | [`Overload`](Outcome::Overload) |
//! | any other: a plain 4xx is the caller's fault | [`Success`](Outcome::Success) |
//! | a response that a layer of this crate made further in, except for a timeout | [`Ignore`](Outcome::Ignore) |

use http::{Response, StatusCode};

use crate::{Outcome, Rejected};

mod attempt;
mod client;
mod deadline;
mod rate_limit_fields;
mod rejection_body;
mod replay;
mod retry_after;
mod server;
mod structured;
mod until_body_end;

pub use attempt::Attempt;
pub use client::{Client, Idempotent, RequestSnapshot};
pub use rejection_body::{NoBody, ProblemJson, RejectionBody};
pub use replay::ReplayBody;
pub use server::Server;
pub use until_body_end::{TrackedBody, UntilBodyEnd};

/// What a response says about whoever sent it.
fn outcome_of<B>(response: &Response<B>) -> Outcome {
    match response.extensions().get::<Rejected>() {
        Some(rejected) if rejected.kind.is_local() => Outcome::Ignore,
        _ if response.status() == StatusCode::TOO_MANY_REQUESTS => Outcome::Overload,
        _ if response.status().is_server_error() => Outcome::Failure,
        _ => Outcome::Success,
    }
}
