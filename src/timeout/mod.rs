//! Timeout: an answer within a time limit, or a rejection.
//!
//! Use one around each attempt, beneath the retry and the circuit breaker, so that a hung upstream
//! becomes a failure that they see. Use another around everything, as the total time that the
//! caller waits.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_keep::{Rejected, RejectedKind, timeout::TimeoutLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let timeout = TimeoutLayer::builder(Duration::from_millis(1)).build()?;
//! let hangs = service_fn(async |_: u32| {
//!     std::future::pending::<Result<u32, std::io::Error>>().await
//! });
//! let mut service = timeout.layer(hangs);
//!
//! let error = service.ready().await?.call(1).await.unwrap_err();
//! assert_eq!(Rejected::find(&*error).unwrap().kind, RejectedKind::TimedOut);
//! # Ok(()) }
//! ```
//!
//! The inner future is polled first, and the time runs from when it first has to wait. A call that
//! is answered at once makes no timer and reads no clock. When the time is over the inner future is
//! dropped at once. It needs a tokio runtime with its timer enabled.
//!
//! **Deadlines.** A request that carries a [`Deadline`](crate::Deadline) is given up at that
//! deadline if it is earlier. It is rejected unsent if the deadline has passed. A timeout with
//! [`total`](TimeoutBuilder::total) gives HTTP requests their deadline. The
//! [`Timeouts`](crate::Timeouts) of a request replace the duration for that request.
//!
//! **Bodies.** Over HTTP the time ends with the head of the response, unless the timeout covers the
//! [body to its end](TimeoutBuilder::until_body_end).
//!
//! **Cost** of a call that is answered at once: a reference count, and two clock reads if it has a
//! deadline. **Drop.** The inner future is dropped with the call. **Clone.** All clones share the
//! duration and the count. A clone has not been polled for readiness.

#[cfg(feature = "http")]
mod body;
mod config;
mod covers;
mod future;
mod handle;
mod hold;
mod layer;
mod limit;
mod number;
mod scope;
mod service;
mod state;

#[cfg(feature = "http")]
pub use body::{TimedBody, ToBodyEnd};
pub use config::TimeoutConfig;
pub use future::ResponseFuture;
pub use handle::{Snapshot, TimeoutHandle};
pub use layer::{TimeoutBuilder, TimeoutLayer};
pub use scope::ToResponse;
pub(crate) use scope::until;
pub(crate) use scope::{TimeoutReach, TimeoutScope};
pub use service::Timeout;
