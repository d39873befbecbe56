//! Stores that hold the limits which several processes share.
//!
//! A rate limit of one process is divided by hand over a fleet, and is wrong at the next deploy.
//! With [`fleet`](crate::rate_limit::RateLimitBuilder::fleet) the processes share it: a store
//! counts the units, and grants each process some ahead, as leases. A call spends a lease with one
//! compare-and-swap, and never waits for the store while there is one. The module
//! [`prepaid`](crate::algorithm::prepaid) says what that guarantees, and the guide's page
//! `fleet` what becomes of it when the store is slow, down or empty.
//!
//! A [`Store`] answers asks in batches: that is all that it does. [`Memory`] is one within a
//! process, with delays, losses and partitions, for tests and drills. `Redis`, with the feature
//! `redis-1`, is one for Redis and Valkey.
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
