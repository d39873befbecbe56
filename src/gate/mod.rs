//! Several patterns in one layer: what admits calls, plugged into Tower once.
//!
//! A *gate* decides on a call before it is sent, and learns how the call ended: a rate limit, a
//! circuit breaker, a bulkhead, each also [by key](Keyed). This module is the Tower side of all of
//! them: [one layer](GateLayer), [one service](Gated), [one future](ResponseFuture), [one
//! permit](Permit). A layer may hold several gates, which then share one reference count, one
//! future, and the readings of the clock:
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
//! They are asked in the order given, and what the first ones granted is given back when a later
//! one rejects.
//!
//! **Readiness.** The instance of the inner service that was asked is the instance that is called.
//! A call that is rejected, or has to wait, replaces it by a fresh clone, so that what it had
//! reserved in its `poll_ready` is free for others. Nothing is held between `poll_ready` and
//! `call`.
//!
//! **Drop and panic.** A response future that is dropped gives back what its call holds, at any
//! point. A panic of the inner service is recorded as a failure.

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
