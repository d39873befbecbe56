//! Ready-made stacks: the layers in the right order, with settings that fit together.
//!
//! A client that protects itself and its upstreams, per host:
//!
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Empty;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{Layer, ServiceExt};
//! use tower_keep::stack;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let stack = stack::client().http().name("payments").build()?;
//! let client = stack.layer(Client::builder(TokioExecutor::new()).build_http());
//!
//! let request = http::Request::get("http://127.0.0.1:1/").body(Empty::<Bytes>::new())?;
//! assert!(client.oneshot(request).await.is_err());
//! assert!(stack.handle().retry.snapshot().retries > 0);
//! # Ok(()) }
//! ```
//!
//! A server that protects itself, on an axum `Router`:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_keep::stack;
//!
//! let stack = stack::server().http().max_in_flight(100).build()?;
//! let app: Router = Router::new().route("/", get(async || "hello")).layer(stack);
//! # Ok::<_, tower_keep::ConfigError>(())
//! ```
//!
//! **Order.** A client, from the outside in: total timeout, retry or hedge, gates, attempt timeout.
//! The gates are one layer: circuit breaker, throttle, rate limit and bulkhead. A server: rate
//! limit and bulkhead as one layer, timeout. A fallback is around all of it. The total timeout
//! limits everything beneath it: backoff, waits in queues and for readiness, and each attempt. The
//! [guide](crate::guide::ordering) explains why, and what goes wrong in another order.
//!
//! **Set these.** Only you know the capacity: how many calls may be in flight
//! ([`max_in_flight`](ClientBuilder::max_in_flight)) and, if the upstream has a quota, the
//! [rate](ClientBuilder::rate). The same holds for the times: the
//! [total](ClientBuilder::total_timeout) that callers wait, and the limit of one
//! [attempt](ClientBuilder::attempt_timeout).
//!
//! All other settings have defaults that recover. A client's circuits open at half failures of at
//! least 8 calls in 10 s, or at 10 failures in a row. They stay open for half a second to one, and
//! one probe closes them, which has 5 s or as long as an attempt. The
//! [decisions](crate::guide::decisions) explain why not longer.
//!
//! **Parts.** Each part can be changed by its own builder, or left out. A
//! [hedge](ClientBuilder::hedge), a [throttle](ClientBuilder::throttle), a
//! [trial](ClientBuilder::shadow) and a [fallback](ClientBuilder::fallback) can be added:
//!
//! ```
//! use tower_keep::stack;
//!
//! let stack = stack::client()
//!     .http()
//!     .retry(|retry| retry.attempts(2))
//!     .circuit_breaker(|breaker| breaker.failure_rate(0.3))
//!     .build()?;
//! # Ok::<_, tower_keep::ConfigError>(())
//! ```
//!
//! `build` checks the settings of each part, and those of one part against another's.
//! [`ClientHandle::update`], which changes a running stack, does the same.

mod auditing;
mod boxing;
mod builder;
mod changes;
mod changing;
mod check;
mod client;
pub(crate) mod defaults;
mod draining;
mod entry;
mod functions;
mod gates;
mod handle;
mod hosts;
mod naming;
mod parts;
mod resend;
mod saying;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod timed;
mod update;
mod updating;

pub use crate::drain::Undrained;
pub use auditing::Audits;
pub use boxing::Boxed;
pub use builder::{BuiltClient, ClientBuilder, Parts};
pub use changes::Changes;
pub use client::{AnyHost, ClientStack};
#[cfg(feature = "serde")]
pub(crate) use defaults::circuit_breaker_config;
pub use entry::{ClientWithoutProtocol, ServerWithoutProtocol, client, server};
pub use gates::ClientGates;
pub use handle::{ClientHandle, ClientSnapshot, ServerHandle, ServerSnapshot};
pub use parts::{NoFallback, Own, Untried};
#[cfg(feature = "serde")]
pub(crate) use resend::Resend;
pub use resend::{Hedges, Hedging, Once, Retries, Retrying, SendingOnce};
pub use saying::BySettings;
pub use server::{BuiltServer, ServerBuilder, ServerGates, ServerService, ServerStack};
pub use service::{ClientService, InStack};
