//! Short names for the layers and the types that they make.

use crate::{
    gate::{
        GateLayer, Gated, Keyed, KeyedHandle, Permit as GatePermit, ResponseFuture as GateFuture,
    },
    protocol::Plain,
    throttle::ThrottleGate,
};

/// Rejects, at random, about as many calls as an overloaded upstream would reject. All services it
/// makes, and all their clones, share one throttle.
pub type ThrottleLayer<P = Plain> = GateLayer<ThrottleGate, P>;

/// A throttle for each host or route. Calls to one that is overloaded do not affect the others.
///
/// Made by [`keyed_by`](super::ThrottleBuilder::keyed_by) or, over HTTP,
#[cfg_attr(
    feature = "http",
    doc = "[`per_host`](super::ThrottleBuilder::per_host)."
)]
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
/// **Bounds.** At most [`max_keys`](super::ThrottleBuilder::max_keys) throttles of about 1.3 KiB
/// each. A new key beyond that evicts a throttle whose window is empty, and that no running call
/// and no handle holds. If none is found, [`overflow`](super::ThrottleBuilder::overflow) decides
/// about this call.
///
/// **Metrics** cover all keys together: the calls of all of them, and the highest probability.
pub type KeyedThrottleLayer<F, P = Plain> = GateLayer<Keyed<F, ThrottleGate>, P>;

/// Watches and resets keyed throttles from outside.
pub type KeyedThrottleHandle<K> = KeyedHandle<K, ThrottleGate>;

/// A service behind a [`ThrottleLayer`].
pub type Throttled<S, P = Plain> = Gated<S, ThrottleGate, P>;

/// A service behind a [`KeyedThrottleLayer`].
pub type KeyedThrottled<S, F, P = Plain> = Gated<S, Keyed<F, ThrottleGate>, P>;

/// The future of a [`Throttled`]: the inner response, or a rejection.
pub type ResponseFuture<S, P, Req> = GateFuture<S, ThrottleGate, P, Req>;

/// An admission, from the time when a call is sent to its result. Dropped unsettled, it is not
/// counted.
pub type Permit = GatePermit<ThrottleGate>;
