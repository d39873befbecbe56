//! Retry: another attempt for what failed by chance, with jittered exponential backoff and within a
//! budget.
//!
//! Use it once, at the outermost client: retries at several tiers multiply. It only sends again
//! what is safe to send again, and says so of nothing by itself:
//! [`http::Client`](crate::protocol::http::Client) knows the idempotent methods, and for other
//! requests you declare it on [`Plain`](crate::protocol::Plain).
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
//! In this order: is the result one that another attempt may better, is an attempt left, how long
//! is the [backoff](crate::algorithm::Backoff), does the [budget](crate::algorithm::RetryBudget)
//! pay for it, can the request be made again; if all say yes, the failed attempt is dropped, and
//! after the wait the inner service is asked for readiness again. Otherwise the last result is
//! returned as it is.
//!
//! A call that succeeds at once costs one copy of the request (of an HTTP request the head, not the
//! body), and none when no retry is possible: one attempt only, or an empty budget. The inner
//! service is cloned only for a retry, from a clone that was set aside when the layer was applied.
//! It needs a tokio runtime with its timer enabled.
//!
//! **Budget.** A retry of what was certainly not sent is free, once a call; all others are paid
//! for. One that a layer further in turns away gets its token back, and its rejection is then the
//! answer: it speaks of that attempt, not of the first. **Drop.** A retry that is dropped before it
//! was sent gives its token back as well.

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
