//! Rate limits: how exact, under stress, and with waiters.
#![cfg(feature = "layers")]

mod accuracy;
mod shared;
mod stress;
mod waiting;
