//! Draining: a stack rejects new calls, and waits for those in flight.

mod gate;
mod state;

pub(crate) use gate::DrainGate;
pub(crate) use state::Drain;
pub use state::Undrained;
