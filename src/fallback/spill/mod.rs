//! An ordered list of backends, of which the next one is asked when one cannot answer.

mod backend;
mod builder;
mod call;
mod service;
mod shared;
mod state;

pub use backend::Backend;
pub use builder::SpillBuilder;
pub use service::{Spill, SpillCall, SpillHandle, SpillSnapshot};
