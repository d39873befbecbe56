//! Any gate as a Tower layer, once for all of them.

#[cfg(feature = "http")]
mod audit;
mod deferred;
mod future;
mod layer;
mod permit;
mod readiness;
mod service;

#[cfg(feature = "http")]
pub use audit::{AuditFuture, AuditLayer, Audited};
pub use future::ResponseFuture;
pub use layer::GateLayer;
pub use permit::Permit;
pub use service::Gated;
