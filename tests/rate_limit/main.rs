//! Rate limits: how exact, and with waiters.
#![cfg(feature = "layers")]

mod accuracy;
mod dimensions;
mod dimensions_of_keys;
mod hints;
mod shared;
mod waiters;
mod waiting;
