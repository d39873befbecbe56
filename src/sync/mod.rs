//! State that threads share.

mod atomic;
#[cfg(any(feature = "layers", all(test, keep_loom)))]
mod owners;
mod padded;
#[cfg(feature = "layers")]
mod per_thread;
#[cfg(feature = "layers")]
mod striped;

pub(crate) use atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, after_seq_cst_write, fence,
};
#[cfg(any(feature = "layers", all(test, keep_loom)))]
pub(crate) use atomic::{Mutex, MutexGuard};
#[cfg(feature = "layers")]
pub(crate) use owners::Owners;
pub(crate) use padded::Padded;
#[cfg(feature = "layers")]
pub(crate) use per_thread::{PerThread, current_stripe, stripe_count};
#[cfg(feature = "layers")]
pub(crate) use striped::{Held, Striped};
