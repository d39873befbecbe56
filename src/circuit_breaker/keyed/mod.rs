//! One circuit for each key.

mod layer;
mod registry;
mod service;

pub use layer::{KeyedCircuitBreakerBuilder, KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer};
pub use service::KeyedCircuitBreaker;
