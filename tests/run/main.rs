//! Plain async functions through layers.
#![cfg(feature = "http")]

mod functions;
mod stack;
