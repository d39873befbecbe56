//! gRPC on tonic's types: statuses in heads and trailers, pushback, and idempotent methods.
//!
//! Use [`Client`] over a [channel] or any service with gRPC responses. Its rejections are errors,
//! with a [`tonic::Status`] of the right code as their source, which tonic's generated clients
//! return to the caller. Use [`Server`] over a service or a whole `tonic::transport::Server`. Its
//! rejections are gRPC responses, and the error type stays that of the service.
//!
//! Use them for all gRPC. The protocols of [`http`](crate::protocol::http) read only the HTTP
//! status, which is 200 for a failed call too. See the [guide](crate::guide::grpc) for more.
//!
//! ```
//! use tonic::{body::Body, transport::Channel};
//! use tower::ServiceBuilder;
//! use tower_keep::{circuit_breaker::CircuitBreakerLayer, protocol::grpc, retry::RetryLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let client = grpc::Client::new().idempotent(["/grpc.health.v1.Health/Check"]);
//! let stack = ServiceBuilder::new()
//!     .layer(RetryLayer::builder().protocol(client).build()?)
//!     .layer(CircuitBreakerLayer::builder().protocol(client).build()?)
//!     .service(Channel::from_static("http://payments.example").connect_lazy());
//! let health = tonic_health::pb::health_client::HealthClient::new(stack);
//! # let _ = health;
//! # Ok(()) }
//! ```
//!
//! The outcome of each status, unless `.classify_code(..)` changes it:
//!
//! | status | outcome |
//! |---|---|
//! | `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS`, `DEADLINE_EXCEEDED` | [`Failure`](Outcome::Failure) |
//! | `RESOURCE_EXHAUSTED` | [`Overload`](Outcome::Overload) |
//! | `CANCELLED`: the caller no longer wants it | [`Ignore`](Outcome::Ignore) |
//! | `OK`, and the caller's faults: `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `ABORTED`, `OUT_OF_RANGE`, `UNIMPLEMENTED`, `UNAUTHENTICATED` | [`Success`](Outcome::Success) |
//! | any other number, garbage, or a body that ends without a status | as `UNKNOWN` |
//! | no `grpc-status`, and HTTP 400; 401; 403; 404; 429, 502, 503 or 504; any other but 200 | as `INTERNAL`; `UNAUTHENTICATED`; `PERMISSION_DENIED`; `UNIMPLEMENTED`; `UNAVAILABLE`; `UNKNOWN` |
//! | a response made by an inner layer of this crate, except for a timeout | [`Ignore`](Outcome::Ignore) |
//!
//! The status is in the head if there are no messages (trailers-only), else in the trailers. A call
//! therefore holds its permit until its body ends. A bulkhead counts a stream in flight until the
//! last message, and a circuit breaker sees how it ended. A stream that is dropped earlier is an
//! abandoned call.
//!
//! With `grpc-retry-pushback-ms` the upstream says when to come back. Circuit breakers and rate
//! limits honor it like `Retry-After`. If it is negative, not a number or present twice, the call
//! must not be retried.
//!
//! [channel]: https://docs.rs/tonic/latest/tonic/transport/struct.Channel.html

#[cfg(doc)]
use crate::Outcome;

mod body;
mod client;
mod codes;
mod deadline;
mod rejection;
mod server;
mod status;

pub use body::TrackedBody;
pub use client::Client;
pub use codes::outcome_of;
pub use server::Server;
#[cfg(feature = "fault")]
pub(crate) use status::Pushback;
