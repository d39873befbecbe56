//! Settings from files.
#![cfg(all(feature = "serde", feature = "http"))]

mod files;
#[cfg(feature = "watch")]
mod sections;
#[cfg(feature = "watch")]
mod watch;
