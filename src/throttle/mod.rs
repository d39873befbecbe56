//! Throttle: sends less to an upstream while it is overloaded.
//!
//! Use it on the client side, if the upstream rejects or fails some calls because it has too many.
//! Use one per upstream, or [one per key](ThrottleBuilder::keyed_by). It rejects calls at random,
//! so that the upstream is sent about twice what it accepts. See
//! [`algorithm::throttle`](crate::algorithm::throttle) for the formula. A [circuit
//! breaker](crate::circuit_breaker) is for an upstream that is down: it sends all or nothing. One
//! layer may combine both, with the breaker outside.
//!
//! **It needs results that separate rejections from successes**, so it does not build without a
//! protocol. Over HTTP use [`http::Client`](crate::protocol::http::Client), for which 429 and 5xx
//! are not accepted. Over gRPC use `grpc::Client`.
//!
//! ```
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_keep::{Rejected, RejectedKind, protocol::Plain, throttle::ThrottleLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let throttle = ThrottleLayer::builder().protocol(Plain::new()).name("search").build()?;
//! let overloaded = service_fn(async |_: u32| Err::<u32, _>(std::io::Error::other("too much")));
//! let mut service = throttle.layer(overloaded);
//!
//! let mut throttled = 0;
//! for n in 0..1000 {
//!     let error = service.ready().await?.call(n).await.unwrap_err();
//!     if Rejected::find(&*error).is_some_and(|it| it.kind == RejectedKind::Throttled) {
//!         throttled += 1;
//!     }
//! }
//! assert!(throttled > 700); // of a thousand that would have failed
//! let totals = throttle.handle().snapshot().totals;
//! assert_eq!(totals.rejected.of(RejectedKind::Throttled), throttled);
//! # Ok(()) }
//! ```
//!
//! The decision is made in `call`, never in `poll_ready`. While nothing is rejected, a call costs
//! one load at its admission. At its end it costs a clock read, and writes to counters of its own
//! thread.
//!
//! **Neutral** are dropped calls, and results that say nothing about the upstream
//! ([`Outcome::Ignore`](crate::Outcome::Ignore)). They count neither as sent nor as accepted.
//! **Panic.** A call that panics counts as not accepted.

mod aliases;
mod builder;
mod handle;
mod keyed;
mod state;

pub use crate::algorithm::{Overflow, throttle::ThrottleConfig};
pub use crate::keyed::Missing;
pub use aliases::{
    KeyedThrottleHandle, KeyedThrottleLayer, KeyedThrottled, Permit, ResponseFuture, ThrottleLayer,
    Throttled,
};
pub use builder::ThrottleBuilder;
pub use handle::{Snapshot, ThrottleHandle};
pub use state::ThrottleGate;
