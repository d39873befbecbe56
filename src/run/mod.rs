//! Plain async functions through layers: `layers.run(|| pool.query(SQL, id)).await`.
//!
//! Use it if what you call is not a Tower service: a database's pool, an SDK's method. A Tower
//! service is better layered, because then it stays a service. The [guide](crate::guide::functions)
//! has a page on it. [`retry`] is for scripts that need no layers.
//!
//! ```
//! use std::time::Duration;
//! use tower_keep::{
//!     CallError, Run, bulkhead::BulkheadLayer, circuit_breaker::CircuitBreakerLayer,
//!     protocol::Plain, retry::RetryLayer, timeout::TimeoutLayer,
//! };
//! # use std::io;
//! # struct Pool;
//! # impl Pool { async fn query(&self, id: u32) -> io::Result<u32> { Ok(id) } }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_keep::ConfigError> {
//! let plain = Plain::new().idempotent();
//! let db = (
//!     RetryLayer::builder().protocol(plain).build()?,
//!     CircuitBreakerLayer::builder().protocol(plain).build()?,
//!     BulkheadLayer::builder(20).build()?,
//!     TimeoutLayer::builder(Duration::from_secs(1)).build()?,
//! );
//! # let (pool, id) = (Pool, 7);
//! match db.run(|| pool.query(id)).await {
//!     Ok(rows) => assert_eq!(rows, 7),
//!     // The last error of the database, with its own type.
//!     Err(CallError::Inner(error)) => println!("{error}"),
//!     Err(CallError::Rejected(why)) => println!("busy, come back in {:?}", why.retry_after),
//! }
//! # Ok(()) }
//! ```
//!
//! The layers are those that make Tower services, with the same state: a function and a service may
//! share a limit. Their protocol says what a result means ([`Classify`](crate::Classify) of the
//! function's own result, with its own error), and which calls may be sent again. With
//! `Plain::new().idempotent()` these are all calls except those made [`once`](OneCall::once).
//!
//! **Layers see** a [`Call`], with the details set on [`Run::call`]: its key, its cost, its time
//! limit.
//!
//! **Cost.** Nothing is allocated or cloned beyond what the layers do for a service. The closure
//! and the layers are borrowed, and no count is written that all threads share. A call with a
//! timeout, or beneath a total one, reads the clock.
//!
//! **Drop and panic.** A dropped call gives back what it holds. A panic, of the closure or of its
//! future, is recorded as a failure and continues to the caller.
//!
//! **Blocking** functions belong in [`spawn_blocking`](tokio::task::spawn_blocking), within the
//! closure. A timeout, or a dropped call, then leaves the thread running, and nothing counts it any
//! more. So give the blocking function its own, shorter timeout.

mod attempts;
mod call;
mod calling;
mod direct;
mod error;
mod retrying;
mod through;
mod tuples;

pub use attempts::Attempts;
pub(crate) use attempts::Function;
pub use call::{Call, key};
pub use calling::{AnyTimes, AtMostOnce, OneCall, Run};
pub use error::CallError;
pub use retrying::{retry, retry_when};
#[cfg(feature = "http")]
pub(crate) use through::Behind;
pub(crate) use through::Through;
