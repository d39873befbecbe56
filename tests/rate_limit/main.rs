//! Rate limits: how exact, under stress, and with waiters.
#![cfg(feature = "layers")]

mod accuracy;
mod stress;
mod waiting;
