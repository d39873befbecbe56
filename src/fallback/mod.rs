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
//! .build()?;
//! let broken = service_fn(async |_: u32| Err::<String, _>(std::io::Error::other("down")));
//!
//! assert_eq!(layer.layer(broken).oneshot(7).await?, "user 7");
//! assert_eq!(layer.handle().snapshot().answered, 1);
//! # Ok(()) }
//! ```
//!
//! **What answers.** [A value](FallbackLayer::value); [closures](FallbackLayer::builder), which get
//! the failure, so that they may return it after all; [a backup
//! service](FallbackLayer::service), which gets the request again. For what gates reject,
//! [`SpilloverLayer`] hands the very request to a backup, and nothing is kept or cloned.
//!
//! **Several backends.** [`Spill`] asks a list of services, each with a stack of its own, in their
//! order: the next one when one rejects, fails or pauses.
//!
//! **When.** After what the protocol classifies as a failure or an overload, and after a rejection
//! of a layer beneath: an open circuit, a limit. Each of the three can be left out, and a
//! [predicate](FallbackBuilder::when) can choose among them. A plain 404 is an answer, and stands.
//!
//! **The failure** is counted by its cause, and over HTTP told to who reads the response: its
//! extensions have a [`PrimaryError`].
//!
//! **Cost** of a call that succeeds: what is kept of its request, and a clone of what answers.
//! **Drop.** The answer under way goes with the call. **Panic.** A panic of the inner service is
//! passed on.

mod answer;
mod backup;
mod future;
mod handle;
mod layer;
mod service;
mod spill;
mod spilling;
mod spillover;
mod state;

pub use crate::protocol::{PrimaryError, SpillReason, SpillReport};
use answer::Passed;
pub use answer::{Answer, Keep, OnlyWhen, Value, With};
pub use backup::{Backup, BackupFuture};
pub use future::ResponseFuture;
pub use handle::FallbackHandle;
pub use layer::{FallbackBuilder, FallbackLayer};
pub use service::Fallback;
pub use spill::{Backend, Spill, SpillBuilder, SpillCall, SpillHandle, SpillSnapshot};
pub use spilling::SpilloverFuture;
pub use spillover::{Spillover, SpilloverBuilder, SpilloverLayer};
pub use state::Snapshot;
