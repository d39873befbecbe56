//! Fallback: another answer for a call that has failed for good.
//!
//! The last known value, a default, a reply from a backup: whatever is better than an error. It
//! stands outermost, so that it sees only what retries and the rest could not mend. It is for
//! answers that are cheaper than the real one: a fallback that is as dear, to a backup that takes
//! the whole load at once, fails with it.
//!
//! ```
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_keep::{fallback::FallbackLayer, protocol::Plain};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! // What to keep of a request, and what to answer with it in place of a failure.
//! let layer = FallbackLayer::builder(
//!     |user: &u32| *user,
//!     async |user, _failure| Ok(format!("user {user}")),
//! )
//! .protocol(Plain::new()) // an `Err` is a failure
//! .build();
//! let broken = service_fn(async |_: u32| Err::<String, _>(std::io::Error::other("down")));
//!
//! assert_eq!(layer.layer(broken).oneshot(7).await?, "user 7");
//! assert_eq!(layer.handle().snapshot().answered, 1);
//! # Ok(()) }
//! ```
//!
//! **When.** After what the protocol classifies as a failure or an overload, and after a rejection
//! of a layer beneath: an open circuit, a limit. Each of the three can be left out. A plain 404 is
//! an answer, and stands. The closure gets the failure, so that it may return it after all, or put
//! it into an extension of its response.
//!
//! **Backup service.** Keep what the backup needs of the request and call it:
//! `async move |key, _| backup.clone().oneshot(key).await`. Nothing has to be `Clone` but what is
//! kept.
//!
//! **Cost** of a call that succeeds: what is kept of its request, and a reference count. **Drop.**
//! The answer under way goes with the call. **Panic.** A panic of the inner service is passed on.

mod future;
mod handle;
mod layer;
mod service;
mod state;

pub use future::ResponseFuture;
pub use handle::{FallbackHandle, Snapshot};
pub use layer::{FallbackBuilder, FallbackLayer};
pub use service::Fallback;
pub use state::{Answer, With};
