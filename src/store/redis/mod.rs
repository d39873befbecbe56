//! A store over Redis, Valkey, or what speaks their protocol and runs their scripts.

mod batch;
mod client;
mod reply;
mod slot;
#[cfg(test)]
mod tests;

pub use client::Redis;
