//! Retry: another attempt for a call that failed by chance, with jittered exponential backoff and
//! within a budget.
//!
//! Use it once, at the outermost client: retries at several tiers multiply. It only sends again
//! what is safe to send again, and never assumes that a request is.
//! [`http::Client`](crate::protocol::http::Client) knows the idempotent methods. For other requests
//! you declare it on [`Plain`](crate::protocol::Plain).
//!
//! ```
//! use std::{io, sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_keep::{protocol::Plain, retry::{Backoff, Jitter, RetryLayer}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let flaky = service_fn(async |key: u32| match CALLS.fetch_add(1, Ordering::Relaxed) {
//!     0 => Err(io::Error::other("reset")),
//!     _ => Ok(key),
//! });
//! let retry = RetryLayer::builder()
//!     .protocol(Plain::new().idempotent())
//!     .attempts(3)
//!     .backoff(Backoff::new(Duration::from_millis(1), Duration::from_secs(1), Jitter::default())?)
//!     .build()?;
//!
//! assert_eq!(retry.layer(flaky).ready().await?.call(7).await?, 7);
//! assert_eq!(retry.handle().snapshot().retries, 1);
//! # Ok(()) }
//! ```
//!
//! A retry decides in this order:
//!
//! 1. May another attempt mend the result?
//! 2. Is an attempt left?
//! 3. How long is the [backoff](crate::algorithm::Backoff), and does it end before the deadline?
//! 4. Does the [budget](crate::algorithm::RetryBudget) pay for it?
//! 5. Can the request be made again?
//!
//! If all say yes, the failed attempt is dropped, and after the wait the inner service is polled
//! for readiness again. Otherwise the last result is returned unchanged.
//!
//! A call that succeeds at once costs one copy of the request (of an HTTP request the head, not the
//! body). It costs none if no retry is possible: with one attempt only, or with an empty budget.
//! The inner service is cloned only for a retry, from a clone that was set aside when the layer was
//! applied. It needs a tokio runtime with its timer enabled.
//!
//! **Budget.** The first retry of an attempt that was certainly not sent is free, once per call.
//! All other retries are paid for. If a layer further in rejects a retry, its token goes back. The
//! call's answer is then the rejection, or the error before it if the protocol kept that. **Drop.**
//! A retry that is dropped before it was sent also returns its token.

mod again;
mod config;
mod event;
mod future;
mod handle;
mod layer;
mod plan;
mod service;
mod state;

pub use crate::algorithm::{Backoff, Budget, Jitter, RetryBudget, RetryThrottle, WindowedBudget};
pub use config::RetryConfig;
pub use event::RetryEvent;
pub use future::ResponseFuture;
pub use handle::RetryHandle;
pub use layer::{RetryBuilder, RetryLayer};
pub use service::Retry;
pub(crate) use service::start;
pub use state::Snapshot;
