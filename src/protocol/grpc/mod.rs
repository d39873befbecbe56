//! gRPC on tonic's types: statuses in heads and trailers, pushback, and methods that may be retried.
//!
//! [`Client`] stands before a [channel] or any service with gRPC answers: rejections are errors, and
//! their source is a [`tonic::Status`] of the right code, which tonic's generated clients give to
//! the caller. [`Server`] stands before a service or a whole `tonic::transport::Server`: rejections
//! are gRPC answers, and the error type stays that of the service.
//!
//! ```
//! use tonic::{body::Body, transport::Channel};
//! use tower::ServiceBuilder;
//! use tower_keep::{circuit_breaker::CircuitBreakerLayer, protocol::grpc, retry::RetryLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let client = grpc::Client::new().idempotent(&["/grpc.health.v1.Health/Check"]);
//! let stack = ServiceBuilder::new()
//!     .layer(RetryLayer::builder().protocol(client).build()?)
//!     .layer(CircuitBreakerLayer::builder().protocol(client).build()?)
//!     .service(Channel::from_static("http://payments.example").connect_lazy());
//! let health = tonic_health::pb::health_client::HealthClient::new(stack);
//! # let _ = health;
//! # Ok(()) }
//! ```
//!
//! What a status says of the service that answered, unless `.classify_code(..)` says otherwise:
//!
//! | status | outcome |
//! |---|---|
//! | `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS`, `DEADLINE_EXCEEDED` | [`Failure`](Outcome::Failure) |
//! | `RESOURCE_EXHAUSTED` | [`Overload`](Outcome::Overload) |
//! | `CANCELLED`: the caller no longer wants it | [`Ignore`](Outcome::Ignore) |
//! | `OK`, and the caller's faults: `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `ABORTED`, `OUT_OF_RANGE`, `UNIMPLEMENTED`, `UNAUTHENTICATED` | [`Success`](Outcome::Success) |
//! | any other number, garbage, or a body that ends without a status | as `UNKNOWN` |
//! | no `grpc-status`, and HTTP 400; 401; 403; 404; 429, 502, 503 or 504; any other but 200 | as `INTERNAL`; `UNAUTHENTICATED`; `PERMISSION_DENIED`; `UNIMPLEMENTED`; `UNAVAILABLE`; `UNKNOWN` |
//! | an answer that a layer of this crate made further in, except for a timeout | [`Ignore`](Outcome::Ignore) |
//!
//! The status is in the head where there are no messages (trailers-only), else in the trailers. So a
//! call holds its permit until its body ends: a bulkhead counts a stream in flight until the last
//! message, and a circuit breaker learns how it ended. A stream that is dropped before is an
//! abandoned call.
//!
//! `grpc-retry-pushback-ms` is what the peer says of when to come back; circuit breakers and rate
//! limits heed it as they do `Retry-After`. Negative, garbage or twice, it means that the call must
//! not be retried.
//!
//! [channel]: https://docs.rs/tonic/latest/tonic/transport/struct.Channel.html

#[cfg(doc)]
use crate::Outcome;

mod body;
mod client;
mod codes;
mod named;
mod rejection;
mod server;
mod status;

pub use body::TrackedBody;
pub use client::Client;
pub use codes::outcome_of;
pub(crate) use rejection::status_of;
pub use server::Server;
