//! Atomics and mutexes, from std or, under `--cfg keep_loom`, from loom.
//!
//! The cfg has its own name because a bare `--cfg loom` would also affect tokio.

#[cfg(not(keep_loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(keep_loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(all(feature = "layers", not(keep_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(keep_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Orders a `SeqCst` write before the `SeqCst` reads after it, in loom only. Loom treats such
/// accesses as `AcqRel`, and models the total order for fences only. Without loom, does nothing.
pub(crate) fn after_seq_cst_write() {
    #[cfg(keep_loom)]
    fence(Ordering::SeqCst);
}
