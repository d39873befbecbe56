//! One circuit for each key.

mod circuits;
mod layer;
mod service;

pub use layer::{KeyedCircuitBreakerBuilder, KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer};
pub use service::KeyedCircuitBreaker;
