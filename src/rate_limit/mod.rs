//! Rate limit: so many calls in so long, with bursts.
//!
//! Use it before a peer that enforces a quota, or before a handler that only so many calls a second
//! can use. It does not bound how many calls run at once: slow calls pile up under any rate, which
//! is what a [bulkhead](crate::bulkhead) is for.
//!
//! ```
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_keep::{Rejected, rate_limit::{Rate, RateLimitLayer}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! let limit = RateLimitLayer::builder(Rate::per_second(100)).burst(2).build()?;
//! let mut service = limit.layer(service_fn(async |n: u32| Ok::<_, std::io::Error>(n)));
//!
//! service.ready().await?.call(1).await?;
//! service.ready().await?.call(2).await?;
//! let error = service.ready().await?.call(3).await.unwrap_err();
//! assert!(Rejected::find(&*error).unwrap().retry_after.is_some());
//! # Ok(()) }
//! ```
//!
//! The algorithm is a [token bucket](crate::algorithm::TokenBucket), or any other
//! [`Limit`](crate::algorithm::Limit) given to [`RateLimitLayer::with`]. A call over the limit is
//! rejected at once, with the exact time after which it would fit, or waits for its turn with
//! [`max_wait`](RateLimitBuilder::max_wait); one whose turn would come too late is rejected at once
//! all the same. Calls may [cost](RateLimitBuilder::cost) different amounts, and tell by their
//! response [what they have cost](RateLimitBuilder::settle).
//!
//! # Keys
//!
//! [`keyed_by`](RateLimitBuilder::keyed_by) gives each tenant or address a limit of its own, in a
//! [table of fixed size](KeyedRateLimitLayer), and [`per_key`](RateLimitBuilder::per_key) each
//! customer [one of any kind](PerKeyRateLimitLayer). What calls cost, how long they wait and what
//! they are told works for each key as for one limit. Ready-made keys are in
//! [`keyed`](crate::keyed).
//!
//! # HTTP
//!
//! On the answering side, over [`http::Server`](crate::protocol::http::Server), a call over the
//! limit is answered with 429 and `Retry-After`. With [`advertise`](RateLimitBuilder::advertise)
//! all answers tell the limit, in the `RateLimit-Policy` and `RateLimit` fields of
//! draft-ietf-httpapi-ratelimit-headers-10.
//!
//! On the asking side, over [`http::Client`](crate::protocol::http::Client), a limit can
//! [obey](RateLimitBuilder::honor_retry_after) the peer: it closes after a `Retry-After`, and
//! already after the answer that used up the peer's quota (`RateLimit: "default";r=0;t=30`, or
//! `RateLimit-Remaining: 0` and `RateLimit-Reset: 30`), for as long as that says and you allow.
//!
//! # Cost
//!
//! An admitted call costs one clock read and one compare-and-swap on a word that all callers share;
//! a rejected one writes nothing shared. A mutex is taken only by calls that wait or find others
//! waiting, a timer only by those that wait.

mod bucket;
mod builder;
mod handle;
mod keyed;
mod layer;
mod policy;
mod state;
#[cfg(test)]
mod tests;

use crate::{
    gate::{Both, GateLayer, Gated, Keyed, Permit as GatePermit, ResponseFuture as GateFuture},
    protocol::Plain,
};

pub use crate::algorithm::{Overflow, Rate};
pub use crate::keyed::Missing;
pub use bucket::Snapshot;
pub use builder::{InTable, PerKey, RateLimitBuilder};
pub use handle::RateLimitHandle;
pub use keyed::{
    HeavyHitter, Key, KeyedRateLimitHandle, KeyedSnapshot, Labelled, PerKeyRateLimitHandle, Plans,
    TableGate,
};
#[cfg(feature = "serde")]
pub(crate) use layer::one_second_of;
#[doc(hidden)]
pub use policy::Asks;
pub use policy::{
    Actual, AsEstimated, ByRequest, ByResponse, Cost, Deadline, Metered, NoDeadline, Policy,
    UnitCost,
};
pub use state::LimitGate;
#[doc(hidden)]
pub use state::{LimitTicket, Taken};

/// Limits the rate of calls. All services it makes, and all their clones, share the one limit.
pub type RateLimitLayer<M = Policy, P = Plain> = GateLayer<Metered<LimitGate, M>, P>;

/// Limits the rate of calls of each key. All services it makes, and all their clones, share the
/// limits.
///
/// Made by [`keyed_by`](RateLimitBuilder::keyed_by).
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
/// anew for each layer, so nobody can choose keys that share slots. There is no background task.
/// For limits of another kind, of a rate for each key, or to list the keys, there is
/// [`per_key`](RateLimitBuilder::per_key).
pub type KeyedRateLimitLayer<F, M = Policy, P = Plain> =
    GateLayer<Metered<WithTotal<TableGate<F>>, M>, P>;

/// A limit of its own for each key: of any kind, of a rate for each, or of several that some share.
///
/// Made by [`per_key`](RateLimitBuilder::per_key). All services it makes, and all their clones,
/// share the limits.
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
/// **Bounds.** At most [`max_keys`](RateLimitBuilder::max_keys). A new key past that takes the
/// place of a limit that is fresh, and that no call, waiting or in flight, and no handle holds. If
/// there is none at hand, [`overflow`](RateLimitBuilder::overflow) says what becomes of it, for
/// this call. Nothing runs in the background.
///
/// **Cost.** A look-up in a map that readers do not write to, a reference count and a fence, beside
/// what the limit costs. The first call of a key takes a mutex, and makes its limit.
pub type PerKeyRateLimitLayer<K, F, M = Policy, P = Plain> = GateLayer<PerKeyGate<K, F, M>, P>;

/// The gate of a [`PerKeyRateLimitLayer`].
pub type PerKeyGate<K, F, M = Policy> = Metered<WithTotal<Keyed<K, F, LimitGate>>, M>;

/// A keyed limit, and the total that all keys stay within, if there is one.
pub type WithTotal<G> = Both<G, Option<LimitGate>>;

/// A service behind a [`RateLimitLayer`].
///
/// Units are taken in `call`, or when a waiting call's turn comes, and not given back when the call
/// is dropped after it was sent: the upstream may have seen it.
pub type RateLimit<S, M = Policy, P = Plain> = Gated<S, Metered<LimitGate, M>, P>;

/// The answer of a [`RateLimit`]: the inner one, or a rejection. Dropped while it waits, it leaves
/// the queue and has cost nothing.
pub type ResponseFuture<S, M, P, Req> = GateFuture<S, Metered<LimitGate, M>, P, Req>;

/// What a call of a [`RateLimit`] holds until it ends: nothing, or the way back to a limit that
/// honors the upstream's `Retry-After`, settles or advertises.
pub type Permit<M = Policy> = GatePermit<Metered<LimitGate, M>>;
