//! HTTP: status classes, `Retry-After`, idempotent methods, and bodies that can be replayed.
//!
//! Use [`Client`] over a client (hyper-util, or any service with [`http::Response`] responses). Its
//! rejections are errors. Use [`Server`] over a handler (an axum `Router`, a hyper service). Its
//! rejections are responses, and the error type stays that of the handler, so that a layer can be
//! added to a `Router` as it is.
//!
//! # What a result means
//!
//! | result | outcome | retried by [`Client`] |
//! |---|---|---|
//! | 502, 503, 504 | [`Failure`](crate::Outcome::Failure) | idempotent requests: the upstream may have acted |
//! | 429 | [`Overload`](crate::Outcome::Overload) | idempotent requests, if it has a `Retry-After` |
//! | 529, by which some providers say that they are overloaded | `Overload` | idempotent requests |
//! | 501, 505 | [`Success`](crate::Outcome::Success): the same request gets the same response | never |
//! | 500 | `Failure` | never: it is usually a bug, which a retry does not fix |
//! | any other 5xx | `Failure` | never |
//! | any other status: a plain 4xx is the caller's fault | `Success` | never |
//! | connection refused, not established, or closed before the request was written | `Failure` | all requests: nothing was sent |
//! | HTTP/2: `REFUSED_STREAM` (feature `http2`) | `Failure` | all requests: nothing was processed |
//! | a response that is not HTTP | `Failure` | never |
//! | any other error: a reset, a timeout, a GOAWAY | `Failure` | idempotent requests |
//! | one of these inside another service's error: that service may have sent something before | `Failure` | idempotent requests |
//! | a request that cannot be sent (a relative URI, a wrong scheme), or whose body fails | [`Ignore`](crate::Outcome::Ignore) | never |
//! | a rejection by an inner layer of this crate, except a timeout | `Ignore` | left to the retry layer |
//!
//! Both protocols classify by this table, and [`Client::classify_response`] and
//! [`Server::classify_response`] change it. [`Client::also_retry`] adds statuses that are worth a
//! retry, such as 408, 425 and 500. [`Client::strict`] removes the 429.
//!
//! These requests are idempotent:
//!
//! - GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, section 9.2.2), except with an `Upgrade`
//!   field. Such a method does not tell how the upgraded connection is used.
//! - Requests with an `Idempotency-Key` field.
//! - Requests with an [`Idempotent`] extension.
//! - Requests that a closure [accepts](Client::idempotent_when).
//!
//! A request with a [`NotIdempotent`] extension never is.
//!
//! An error proves that nothing was sent only if it comes from hyper or std themselves, or from the
//! adapter for reqwest, and nothing has polled the request's body. Otherwise an inner service could
//! have followed a redirect: it sends the request, the redirect leads nowhere, and it also fails
//! with "no connection". [`Client::composite`] declares a service for which this cannot be
//! detected.
//!
//! # When to come back
//!
//! A circuit breaker and a rate limit may honor the upstream's hints. To both protocols a hint is a
//! `Retry-After` on anything but a success: seconds, with decimals or without, or a date. A date is
//! measured against the response's own `Date` if it has one, and against the local clock otherwise.
//! Of two fields the larger counts. On any response, `Client` also reads quotas with nothing left,
//! in three forms: `RateLimit: "api";r=0;t=30`, `RateLimit: limit=100, remaining=0, reset=30`, and
//! `RateLimit-Remaining: 0` with `RateLimit-Reset: 30`. A result whose outcome is `Ignore` says
//! nothing, so none of its fields are read. Fields of single providers are in [`provider`].

mod attempt;
mod client;
mod deadline;
mod deadline_fields;
mod error;
mod first_byte;
mod head;
mod keep_body;
#[cfg(feature = "serde")]
mod problem;
pub mod provider;
mod rate_limit_fields;
mod rejection_body;
mod replay;
#[cfg(any(feature = "reqwest-012", feature = "reqwest-013"))]
pub mod reqwest;
mod retry_after;
mod rules;
mod server;
mod snapshot;
pub(super) mod status;
mod structured;
mod tracked_body;
mod until_body_end;
mod upgrade;
pub mod usage;
mod x_rate_limit;

pub use attempt::Attempt;
pub use client::{Client, Idempotent, NotIdempotent};
#[cfg(feature = "tonic-014")]
pub(super) use deadline_fields::{read as read_deadline, shorten_grpc};
#[cfg(feature = "tonic-014")]
pub(super) use error::ErrorCause;
pub use first_byte::{FirstByte, FirstByteBody, FirstByteFuture, FirstByteLayer};
pub use head::RequestHead;
pub use keep_body::{CloneBody, CopyBody, KeepBody, RecordBody};
#[cfg(feature = "serde")]
pub use problem::{Problem, ProblemType};
pub use rejection_body::{NoBody, ProblemJson, RejectionBody};
pub use replay::ReplayBody;
#[cfg(feature = "tonic-014")]
pub(super) use replay::Tape;
#[cfg(feature = "fault")]
pub(crate) use retry_after::seconds as retry_after_seconds;
#[cfg(feature = "tonic-014")]
pub(in crate::protocol) use rules::PathRule;
pub use server::Server;
pub use snapshot::RequestSnapshot;
pub use tracked_body::TrackedBody;
pub use until_body_end::UntilBodyEnd;
pub use upgrade::UpgradeGuard;
pub use x_rate_limit::XRateLimit;
