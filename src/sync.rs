//! Atomics, from std or, under `--cfg keep_loom`, from loom.
//!
//! The cfg has a name of its own because a bare `--cfg loom` would leak into tokio.

#[cfg(not(keep_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(keep_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
