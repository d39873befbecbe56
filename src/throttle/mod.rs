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

mod builder;
mod handle;
mod keyed;
mod state;

use crate::{
    gate::{GateLayer, Gated, Keyed, Permit as GatePermit, ResponseFuture as GateFuture},
    protocol::Plain,
};

pub use crate::algorithm::{Overflow, throttle::ThrottleConfig};
pub use crate::keyed::Missing;
pub use builder::ThrottleBuilder;
pub use handle::{Snapshot, ThrottleHandle};
pub use keyed::KeyedThrottleHandle;
pub use state::ThrottleGate;

/// Rejects by chance what an overloaded upstream would reject. All services it makes, and all their
/// clones, share the one throttle.
pub type ThrottleLayer<P = Plain> = GateLayer<ThrottleGate, P>;

/// A throttle for each host or route: one that is overloaded does not take calls from the others.
///
/// Made by [`keyed_by`](ThrottleBuilder::keyed_by) or, over HTTP,
#[cfg_attr(feature = "http", doc = "[`per_host`](ThrottleBuilder::per_host).")]
#[cfg_attr(not(feature = "http"), doc = "`per_host`.")]
/// All services it makes, and all their clones, share the throttles.
///
/// ```
/// use tower::{Layer, Service, ServiceExt, service_fn};
/// use tower_keep::{protocol::Plain, throttle::ThrottleLayer};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// let throttles = ThrottleLayer::builder()
///     .protocol(Plain::new())
///     .keyed_by(|host: &&'static str| Some(*host))
///     .build()?;
/// let mut client = throttles.layer(service_fn(async |host| match host {
///     "full.example" => Err(std::io::Error::other("too much")),
///     _ => Ok(()),
/// }));
///
/// for _ in 0..100 {
///     assert!(client.ready().await?.call("full.example").await.is_err());
///     client.ready().await?.call("good.example").await?;
/// }
/// let probability = |host| throttles.handle().key(&host).unwrap().snapshot().probability;
/// assert!(probability("full.example") > 0.9);
/// assert_eq!(probability("good.example"), 0.0);
/// # Ok(()) }
/// ```
///
/// **Bounds.** At most [`max_keys`](ThrottleBuilder::max_keys) throttles of about 1.3 KiB each. A
/// new key past that takes the place of a throttle whose window is empty, and that no call in
/// flight and no handle holds. If there is none at hand, [`overflow`](ThrottleBuilder::overflow)
/// says what becomes of it, for this call.
///
/// **Observed** are all keys together: the calls of all of them, and the highest probability.
pub type KeyedThrottleLayer<K, F, P = Plain> = GateLayer<Keyed<K, F, ThrottleGate>, P>;

/// A service behind a [`ThrottleLayer`].
pub type Throttled<S, P = Plain> = Gated<S, ThrottleGate, P>;

/// A service behind a [`KeyedThrottleLayer`].
pub type KeyedThrottled<S, K, F, P = Plain> = Gated<S, Keyed<K, F, ThrottleGate>, P>;

/// The answer of a [`Throttled`]: the inner one, or a rejection.
pub type ResponseFuture<S, P, Req> = GateFuture<S, ThrottleGate, P, Req>;

/// An admission, from the moment a call is sent to its result. Dropped unsettled, it counts for
/// nothing.
pub type Permit = GatePermit<ThrottleGate>;
