//! Several patterns in one layer: gates, which admit calls, plugged into Tower once.
//!
//! A *gate* decides on a call before it is sent, and learns how the call ended. Rate limits,
//! circuit breakers and bulkheads are gates, and each may also be [by key](Keyed). This module is
//! the Tower side of all of them: [one layer](GateLayer), [one service](Gated), [one
//! future](ResponseFuture), [one permit](Permit). A layer may hold several gates. They then share
//! one reference count, one future, and the readings of the clock:
//!
//! ```
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_keep::{
//!     bulkhead::BulkheadLayer, circuit_breaker::CircuitBreakerLayer, gate::GateLayer,
//!     protocol::Plain, rate_limit::{Rate, RateLimitLayer},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let breaker = CircuitBreakerLayer::builder().gate()?;
//! let limit = RateLimitLayer::builder(Rate::per_second(100)).gate()?;
//! let bulkhead = BulkheadLayer::builder(10).gate()?;
//! let circuit = breaker.handle();
//!
//! let layer = GateLayer::new((breaker, limit, bulkhead)).protocol(Plain::new());
//! let service = layer.layer(service_fn(async |n: u32| Ok::<_, std::io::Error>(n)));
//! assert_eq!(service.clone().oneshot(7).await?, 7);
//! circuit.force_open();
//! assert!(service.oneshot(7).await.is_err());
//! # Ok(()) }
//! ```
//!
//! The gates are asked in the order given. If a later gate rejects, what the earlier ones granted
//! is given back.
//!
//! **Readiness.** The instance of the inner service whose `poll_ready` was ready is the instance
//! that is called. A call that is rejected or has to wait replaces that instance by a fresh clone,
//! so that whatever `poll_ready` reserved is free for others. Nothing is held between `poll_ready`
//! and `call`.
//! **Drop and panic.** A response future that is dropped, at any point, gives back what its call
//! holds. A panic of the inner service is recorded as a failure.

#[cfg(feature = "http")]
pub(crate) mod check;
mod closing;
mod combine;
#[cfg(test)]
mod tests;
mod tower;
mod traits;

#[cfg(feature = "http")]
pub use self::tower::{AuditFuture, AuditLayer, Audited};
pub use self::tower::{GateLayer, Gated, Permit, ResponseFuture};
pub use crate::keyed::FindKey;
#[cfg(feature = "http")]
pub(crate) use combine::Asks;
pub use combine::{
    Asking, Chain, CostOf, CriticalityOf, DeadlineOf, IntoGate, Keyed, KeyedHandle, Shadow,
    ShadowHandle, ShadowSnapshot, UsedOf,
};
pub(crate) use combine::{Keyable, KeyedParts, MissingKey};
pub use traits::WatchedCircuits;
pub(crate) use traits::{
    Access, Admission, Admit, CallEvent, ClosedWatch, Closes, Completion, Controlled, Demand, Gate,
    Inquiry, LimitedCall, Quoted, Read, TicketPoll, Unsent, Visit, end_upgraded,
};
