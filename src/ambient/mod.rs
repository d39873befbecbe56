//! Inputs from outside the program: time and random numbers. No algorithm imports them.

pub(crate) mod chance;
pub(crate) mod clock;
pub(crate) mod timer;
