//! Settings from files.
#![cfg(all(feature = "serde", feature = "http"))]

#[cfg(feature = "watch")]
mod changes;
mod files;
#[cfg(feature = "watch")]
mod sections;
#[cfg(feature = "watch")]
mod watch;
