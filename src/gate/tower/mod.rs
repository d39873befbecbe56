//! Any gate as a Tower layer, once for all of them.

mod deferred;
mod future;
mod layer;
mod permit;
mod readiness;
mod service;

pub use future::ResponseFuture;
pub use layer::GateLayer;
pub use permit::Permit;
pub use service::Gated;
