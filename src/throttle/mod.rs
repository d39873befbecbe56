//! Throttle: sends less to an upstream that is overloaded, and all again when it is not.
//!
//! Use one per upstream, or [one for each key](ThrottleBuilder::keyed_by), on the client side,
//! where the upstream rejects or fails some calls because it has too many. It rejects calls by
//! chance, so that the upstream is sent about twice what it accepts: see
//! [`algorithm::throttle`](crate::algorithm::throttle) for the formula. A [circuit
//! breaker](crate::circuit_breaker) is for an upstream that is down: it sends all or nothing. Both
//! may stand in one layer, with the breaker outside.
//!
//! **It needs results that tell rejections apart**, so it does not build without a protocol. Over
//! HTTP give it [`http::Client`](crate::protocol::http::Client): 429 and 5xx are not accepted; over
//! gRPC `grpc::Client`.
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
//! A call is decided on in `call`, never in `poll_ready`. While nothing is rejected it costs one
//! load at admission, and at its end a reading of the clock and writes to counters of the thread's
//! own.
//!
//! **Neutral** are calls that are dropped, and results that say nothing of the upstream
//! ([`Outcome::Ignore`](crate::Outcome::Ignore)): neither asked for nor accepted. **Panic.** A call
//! that panics was not accepted.

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
