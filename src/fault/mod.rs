//! Faults on purpose: delays, errors, refused connections, broken bodies.
//!
//! Put the layer beneath a stack, in place of the upstream's own faults: in a test, in staging, or
//! on a game day. Then see whether the stack does what it was configured for. For a stack over
//! modelled upstreams in virtual time use a drill (feature `drill`). This layer is for real
//! traffic.
//!
//! ```
//! use std::{io, time::Duration};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_keep::{fault::{Fault, FaultLayer}, protocol::Plain};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let faults = FaultLayer::builder("does the caller cope with errors?")
//!     .protocol(Plain::new())
//!     .fault(Fault::error(|_: &u32| io::Error::other("injected")).share(0.3))
//!     .seed(7)
//!     .build()?;
//! let service = faults.layer(service_fn(async |n: u32| Ok::<_, io::Error>(n)));
//!
//! let mut failed = 0;
//! for n in 0..100 {
//!     service.clone().oneshot(n).await?; // off
//! }
//! faults.handle().start_for(Duration::from_secs(600));
//! for n in 0..100 {
//!     failed += u32::from(service.clone().oneshot(n).await.is_err());
//! }
//! assert_eq!(faults.handle().snapshot().injected["error"], u64::from(failed));
//! assert!((20..40).contains(&failed));
//! # Ok(()) }
//! ```
//!
//! **Safe to keep in production.** A layer is built off. It runs for the time given when it is
//! [started](FaultHandle::start_for), and ends by itself. At most
//! [`max_active`](FaultBuilder::max_active) calls are affected at once. It has a reason, which is
//! in the logs at its start and its end, in the metrics, and in the [mark](Injected) of each answer
//! that it makes. Its handle or a settings file can switch it off. In [shadow
//! mode](FaultBuilder::shadow) it only counts. When it is stopped, the calls that it holds
//! continue.
//!
//! **Affected calls.** A [share](Fault::share) of the attempts, drawn by a hash of the seed, the
//! fault, the request's number or [key](Fault::by_key), and the attempt. If threads race for the
//! next number, the fates are the same, in another order. Conditions can limit the calls: a
//! [predicate](Fault::when), a share of the [peers](Fault::peers), certain [times](Fault::during),
//! [bursts](Fault::bursts), or a [header](Fault::by_header) with a guard.
//!
//! | fault | protocols | what the caller sees |
//! |---|---|---|
//! | [`delay`](Fault::delay), [`hang`](Fault::hang) | all | a wait |
//! | [`error`](Fault::error), [`response`](Fault::response) | all | a closure's result |
//! | [`status`](Fault::status) | HTTP, gRPC | a response without a body |
//! | `grpc_status` | gRPC | a response with trailers only |
//! | [`refused`](Fault::refused), [`reset`](Fault::reset) | clients of HTTP and gRPC | the error of hyper's own client |
//! | [`not_ready`](Fault::not_ready) | all | a service that is not ready |
//! | [`panic`](Fault::panic) | all | a panic |
//! | [`cut_body`](Fault::cut_body), [`stall_body`](Fault::stall_body), [`trickle_body`](Fault::trickle_body) | HTTP, gRPC | a response whose body fails, stops, or is slow |
//!
//! It needs a tokio runtime with its timer enabled.
//!
//! **Cost.** A stopped layer costs a call two loads, and no allocation. While it runs, a call costs
//! a clock read and two hashes for each fault. An affected call allocates. **Clone.** All clones
//! share the state. A clone has not been polled for readiness. **Drop.** A call that is dropped is
//! no longer affected. **Panic.** A panic of the inner service is passed on.

mod body;
mod broken;
mod condition;
mod connection;
mod delay;
mod effect;
mod fate;
#[expect(
    clippy::module_inception,
    reason = "it is what the room is named after"
)]
mod fault;
mod future;
mod handle;
mod inject;
mod injected;
mod kind;
mod layer;
mod observed;
#[cfg(feature = "tonic-014")]
mod over_grpc;
mod over_http;
mod over_plain;
mod plan;
mod policy;
mod rules;
mod schedule;
mod service;
mod state;
mod wait;

pub use body::FaultBody;
pub use condition::{Always, AskedFor, Condition, Keyed, OfPeers, When};
pub use delay::{Delay, Median};
#[cfg(feature = "tonic-014")]
pub use effect::GrpcStatus;
pub use effect::{Answers, BuiltIn, Effect, Fail, NotReady, OnCalls, Respond, Status};
pub use fault::Fault;
pub use future::ResponseFuture;
pub use handle::FaultHandle;
pub use inject::{FaultProtocol, Inject};
pub use injected::Injected;
pub use layer::{FaultBuilder, FaultLayer};
pub use policy::{FaultPolicy, Snapshot};
pub use rules::{Rule, Rules};
pub use service::Faulty;
