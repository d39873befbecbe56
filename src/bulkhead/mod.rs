//! Bulkheads: a bound on the calls in flight, so that one slow dependency cannot take every task,
//! socket and connection.
//!
//! Use one per dependency: when it hangs, the calls to it fill their own compartment and no other.
//! A server uses one to bound its own concurrency. A bulkhead does not bound a rate: use a [rate
//! limit](crate::rate_limit) for that.
//!
//! ```
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_keep::{Rejected, RejectedKind, bulkhead::BulkheadLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let bulkhead = BulkheadLayer::builder(1).name("search").build()?;
//! let mut service = bulkhead.layer(service_fn(async |n: u32| Ok::<_, std::io::Error>(n)));
//!
//! let first = service.ready().await?.call(1);
//! let error = service.ready().await?.call(2).await.unwrap_err();
//! assert_eq!(Rejected::find(&*error).unwrap().kind, RejectedKind::BulkheadFull);
//! assert_eq!(first.await?, 1);
//! assert_eq!(bulkhead.handle().snapshot().in_flight, 0);
//! # Ok(()) }
//! ```
//!
//! A call takes its permit in `call`, never in `poll_ready`, and gives it back when its future
//! ends, is dropped, or panics. A call that finds no permit is rejected, or
//! [waits](BulkheadBuilder::max_wait) in order of arrival, for as long as its
//! [deadline](BulkheadBuilder::deadline) allows. Calls can be treated differently by
//! [criticality](BulkheadBuilder::criticality) and by [key](BulkheadBuilder::keyed_by), and run [on
//! other threads](crate::gate::GateLayer::on_runtime). The guide tells how large a bulkhead should
//! be, and why not larger.
//!
//! **Cost.** The algorithm is a [counter](crate::algorithm::InFlight). An admitted call costs two
//! writes of a word that all callers share, and a rejected one none. Neither reads the clock or
//! takes a lock. A queue adds a load to each while there are no waiters.

mod adaptive;
mod aliases;
mod all_bulkheads;
mod builder;
mod config;
mod extras;
mod handle;
mod keyed;
mod layer;
mod limits;
mod observed;
mod permits;
mod runtime;
mod settings;
mod state;
mod update;

pub use crate::{algorithm::Overflow, keyed::Missing, protocol::Advertise};
pub use aliases::{
    Bulkhead, BulkheadLayer, KeyedBulkheadHandle, KeyedBulkheadLayer, Permit, ResponseFuture,
};
pub use builder::BulkheadBuilder;
pub use config::BulkheadConfig;
pub use handle::{BulkheadHandle, Snapshot};
pub use limits::LimitByKey;
pub use runtime::{OnRuntime, OnRuntimeFuture, OnRuntimeLayer};
pub use state::BulkheadGate;
