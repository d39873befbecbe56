//! Short names for the layers and the types that they make.

use crate::{
    gate::{
        Asking, Chain, GateLayer, Gated, Keyed, KeyedHandle, Permit as GatePermit,
        ResponseFuture as GateFuture,
    },
    protocol::Plain,
    rate_limit::{LimitGate, TableGate},
};

/// Limits the rate of calls. All services it makes, and all their clones, share one limit.
pub type RateLimitLayer<P = Plain, A = ()> = GateLayer<Asking<LimitGate, A>, P>;

/// Limits the rate of calls of each key. All services it makes, and all their clones, share the
/// limits.
///
/// Made by [`keyed_by`](super::RateLimitBuilder::keyed_by).
///
/// ```
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_keep::{RejectedKind, Rejected, rate_limit::{Missing, Rate, RateLimitLayer}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// struct Order { customer: Option<u64> }
///
/// let limit = RateLimitLayer::builder(Rate::per_minute(60))
///     .burst(1)
///     .keyed_by(|order: &Order| order.customer)
///     .missing(Missing::Reject)
///     .build()?;
/// let service = limit.layer(service_fn(async |_: Order| Ok::<_, std::io::Error>("accepted")));
///
/// let order = |customer| service.clone().oneshot(Order { customer });
/// assert!(order(Some(1)).await.is_ok());
/// assert!(order(Some(1)).await.is_err(), "one customer's limit");
/// assert!(order(Some(2)).await.is_ok(), "is not another's");
/// assert!(order(None).await.is_err(), "and nobody gets past it without a key");
/// # Ok(()) }
/// ```
///
/// The algorithm is [`KeyedBuckets`](crate::algorithm::KeyedBuckets): a table of a fixed size,
/// which forgets only keys whose limit is fresh. Keys themselves are not kept. Their hash is seeded
/// anew for each layer, so a client cannot choose keys that share slots. There is no background
/// task. For limits of another kind, for a rate per key, or to list the keys, use
/// [`per_key`](super::RateLimitBuilder::per_key).
pub type KeyedRateLimitLayer<F, P = Plain, A = ()> =
    GateLayer<Asking<WithTotal<TableGate<F>>, A>, P>;

/// Gives each key its own limit: of any kind, with its own rate, or with parts that several keys
/// share.
///
/// Made by [`per_key`](super::RateLimitBuilder::per_key). All services it makes, and all their
/// clones, share the limits.
///
/// ```
/// use std::sync::Arc;
///
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_keep::{algorithm::{All, SlidingLog, TokenBucket}, rate_limit::{Rate, RateLimitLayer}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Customer { name: &'static str, pays: bool }
///
/// // Each customer by its plan, and all of them together 1000/s: all limits are charged, or none.
/// let total = Arc::new(TokenBucket::new(Rate::per_second(1000), 1000)?);
/// let limit = RateLimitLayer::builder(Rate::per_second(1))
///     .per_key(|customer: &Customer| Some(customer.clone()), move |customer| {
///         let own = SlidingLog::new(Rate::per_minute(if customer.pays { 100 } else { 1 }))?;
///         Ok(All::new(own).and(total.clone()))
///     })
///     .build()?;
/// let service = limit.layer(service_fn(async |_: Customer| Ok::<_, std::io::Error>("served")));
///
/// let (ann, bob) = (Customer { name: "Ann", pays: false }, Customer { name: "Bob", pays: true });
/// assert!(service.clone().oneshot(ann.clone()).await.is_ok());
/// assert!(service.clone().oneshot(ann).await.is_err());
/// assert!(service.clone().oneshot(bob.clone()).await.is_ok());
/// assert_eq!(limit.handle().key(&bob).unwrap().snapshot().available, 99);
/// # Ok(()) }
/// ```
///
/// **Bounds.** At most [`max_keys`](super::RateLimitBuilder::max_keys). A new key beyond that
/// evicts a limit that is fresh and that no handle and no waiting or running call holds. If none is
/// found, [`overflow`](super::RateLimitBuilder::overflow) decides about this call. Nothing runs in
/// the background.
///
/// **Cost.** A lookup in a map that readers do not write to, a reference count and a fence, in
/// addition to the cost of the limit. The first call of a key takes a mutex and makes its limit.
pub type PerKeyRateLimitLayer<F, P = Plain, A = ()> = GateLayer<PerKeyGate<F, A>, P>;

/// The gate of a [`PerKeyRateLimitLayer`].
pub type PerKeyGate<F, A = ()> = Asking<WithTotal<Keyed<F, LimitGate>>, A>;

/// A keyed limit, and the total that all keys stay within, if there is one.
pub type WithTotal<G> = Chain<G, Option<LimitGate>>;

/// Watches and changes the limits that keys have of their own.
pub type PerKeyRateLimitHandle<K> = KeyedHandle<K, LimitGate>;

/// A service behind a [`RateLimitLayer`].
///
/// Units are taken in `call`, or when a waiting call is admitted. A call that is dropped after it
/// was sent gives nothing back, because the upstream may have seen it.
pub type RateLimit<S, P = Plain, A = ()> = Gated<S, Asking<LimitGate, A>, P>;

/// The future of a [`RateLimit`]: the inner response, or a rejection. If it is dropped while it
/// waits, it leaves the queue and costs nothing.
pub type ResponseFuture<S, P, Req, A = ()> = GateFuture<S, Asking<LimitGate, A>, P, Req>;

/// A call's hold on a [`RateLimit`] until the call ends: nothing, or a reference to a limit that
/// honors the upstream's `Retry-After`, settles or advertises.
pub type Permit<A = ()> = GatePermit<Asking<LimitGate, A>>;
