//! Settings from files.
#![cfg(all(feature = "serde", feature = "http"))]

mod files;
