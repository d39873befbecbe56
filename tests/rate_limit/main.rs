//! Rate limits: how exact, and with waiters.
#![cfg(feature = "layers")]

mod accuracy;
mod shared;
mod waiters;
mod waiting;
