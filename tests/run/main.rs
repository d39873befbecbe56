//! Plain async functions through layers.
#![cfg(feature = "http")]

mod as_written;
mod fallbacks;
mod functions;
mod stack;
