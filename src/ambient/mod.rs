//! What comes from outside of the program. No algorithm imports it.

pub(crate) mod chance;
pub(crate) mod clock;
pub(crate) mod timer;
