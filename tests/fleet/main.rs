//! Limits that processes share, over a store in memory: what they admit, and what they do without.
#![cfg(feature = "layers")]
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

mod bounds;
mod calls;
mod dimensions;
mod drill;
mod keys;
mod members;
mod outages;
#[cfg(feature = "redis-1")]
mod real;
mod runtimes;
#[cfg(feature = "redis-1")]
mod server;
#[cfg(feature = "http")]
mod stacks;
mod support;
