//! Fallback: another answer for a call that has finally failed.
//!
//! The last known value, a default, a reply from a backup: anything better than an error. It is the
//! outermost layer, so that it sees only what retries and the other layers could not mend. Its
//! answers should cost less than the real one. A fallback as expensive as the real service, such as
//! a backup that suddenly takes the whole load, fails with it.
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
//! **Answers.** [A value](FallbackLayer::value). [Closures](FallbackLayer::builder), which receive
//! the failure and may return it. [A backup service](FallbackLayer::service), which receives the
//! request again. For calls that gates reject, [`SpilloverLayer`] hands the original request to a
//! backup, and nothing is kept or cloned.
//!
//! **Several backends.** [`Spill`] tries a list of services in order, each with its own stack: the
//! next one when one rejects, fails or pauses.
//!
//! **When.** After a result that the protocol classifies as a failure or an overload, and after a
//! rejection of a layer beneath: an open circuit, a limit. Each of the three can be left out, and a
//! [predicate](FallbackBuilder::when) can choose among them. A plain 404 is an answer, and is
//! passed on.
//!
//! **The failure** is counted by its cause. Over HTTP the reader of the response finds it in the
//! extensions, as a [`PrimaryError`].
//!
//! **Cost** of a call that succeeds: what is kept of its request, and a clone of the fallback.
//! **Drop.** The answer under way is dropped with the call. **Panic.** A panic of the inner service
//! is passed on.

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
