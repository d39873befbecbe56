//! A limit of its own, of any kind, for each key of a list.

mod handle;
mod layer;
mod list;
mod service;
#[cfg(test)]
mod tests;

pub use handle::ListedRateLimitHandle;
pub use layer::{ListedRateLimitBuilder, ListedRateLimitLayer};
pub use service::ListedRateLimit;
