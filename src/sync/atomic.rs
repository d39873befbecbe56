//! Atomics and mutexes, from std or, under `--cfg keep_loom`, from loom.
//!
//! The cfg has a name of its own because a bare `--cfg loom` would leak into tokio.

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

/// What a `SeqCst` write gives to the `SeqCst` reads after it, for loom, which takes such accesses
/// for `AcqRel` and knows total order from fences only. Nothing outside of it.
pub(crate) fn after_seq_cst_write() {
    #[cfg(keep_loom)]
    fence(Ordering::SeqCst);
}
