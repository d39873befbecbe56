//! Stores of the limits that several processes share.
//!
//! A rate limit per process is divided over a fleet by hand, and is wrong at the next deploy. With
//! [`fleet`](crate::rate_limit::RateLimitBuilder::fleet) the processes share it: a store counts the
//! units, and grants each process some in advance, as leases. A call spends a lease with one
//! compare-and-swap, and never waits for the store while there is one. The module
//! [`prepaid`](crate::algorithm::prepaid) states what that guarantees. The guide's page `fleet`
//! shows what happens when the store is slow, down or empty.
//!
//! A [`Store`] only answers asks in batches. [`Memory`] is a store within a process, with delays,
//! losses and partitions, for tests and drills. `Redis`, with the feature `redis-1`, is a store on
//! Redis and Valkey.
//!
//! ```
//! use tower_keep::{rate_limit::{Rate, RateLimitLayer}, store::Memory};
//!
//! let store = Memory::new();
//! let limit = RateLimitLayer::builder(Rate::per_minute(6000))
//!     .burst(500)
//!     .fleet(&store, "api")
//!     .build()?;
//! assert!(limit.handle().fleet().is_some());
//! # Ok::<_, tower_keep::ConfigError>(())
//! ```

mod ask;
mod erased;
mod error;
mod memory;
#[cfg(feature = "redis-1")]
mod redis;

pub use crate::algorithm::prepaid::{Debt, Terms};
pub use ask::{Ask, Grant, Store};
pub(crate) use erased::AnyStore;
pub use error::StoreError;
pub use memory::Memory;
#[cfg(feature = "redis-1")]
pub use redis::Redis;
