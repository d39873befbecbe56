//! Rate limits: how exact, and with waiters.
#![cfg(feature = "layers")]

mod accuracy;
mod dimensions;
mod shared;
mod waiters;
mod waiting;
