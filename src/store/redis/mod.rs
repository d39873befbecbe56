//! A store on Redis, Valkey, or servers that speak their protocol and run their scripts.

mod batch;
mod client;
mod reply;
mod slot;
#[cfg(test)]
mod tests;

pub use client::Redis;
