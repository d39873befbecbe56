//! An ordered list of backends: when one cannot answer, the next one is tried.

mod backend;
mod builder;
mod call;
mod service;
mod shared;
mod state;

pub use backend::Backend;
pub use builder::SpillBuilder;
pub use service::{Spill, SpillCall, SpillHandle, SpillSnapshot};
