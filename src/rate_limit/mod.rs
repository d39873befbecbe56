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
//! rejected at once, with the exact time after which it would fit. With
//! [`max_wait`](RateLimitBuilder::max_wait) it waits, unless its turn would come too late. Calls
//! may [cost](RateLimitBuilder::cost) different amounts, and tell by their response
//! [what they have cost](RateLimitBuilder::settle).
//!
//! # Keys
//!
//! [`keyed_by`](RateLimitBuilder::keyed_by) gives each tenant or address a limit of its own, in a
//! [table of fixed size](KeyedRateLimitLayer), and [`per_key`](RateLimitBuilder::per_key) each
//! customer [one of any kind](PerKeyRateLimitLayer). What calls cost, how long they wait and what
//! they are told works for each key as for one limit. Ready-made keys are in
//! [`keyed`](crate::keyed).
//!
//! # Several processes
//!
//! With [`fleet`](RateLimitBuilder::fleet) all processes that name it share one limit, by way of a
//! [store](crate::store).
//!
//! # Several quotas
//!
//! [`dimensions`](RateLimitLayer::dimensions) charges each call to several named quotas, all or
//! none, with a cost of 64 bits for each: requests, tokens and money.
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
//! Providers that tell their quotas in fields of their own, as those of language models do, are
//! read by a [provider](crate::protocol::http::provider), and a limit
//! [follows](RateLimitBuilder::follow) the one it is for.
//!
//! # Cost
//!
//! An admitted call costs one clock read and one compare-and-swap on a word that all callers share;
//! a rejected one writes nothing shared. A mutex is taken only by calls that wait or find others
//! waiting, a timer only by those that wait.

mod aliases;
mod any_limit;
mod bucket;
mod builder;
mod changed;
mod dimensions;
mod fleet;
mod follow;
mod handle;
mod keyed;
mod layer;
mod members;
mod observed;
mod settings;
mod state;
mod switch;
#[cfg(test)]
mod tests;
mod update;
mod waited;

pub use crate::algorithm::{Overflow, Rate};
pub use crate::keyed::Missing;
pub use crate::protocol::Advertise;
pub use aliases::{
    KeyedRateLimitLayer, PerKeyGate, PerKeyRateLimitHandle, PerKeyRateLimitLayer, Permit,
    RateLimit, RateLimitLayer, ResponseFuture, WithTotal,
};
pub use bucket::Snapshot;
pub use builder::{InTable, RateLimitBuilder};
pub use dimensions::{
    CostsOf, Dimension, DimensionSnapshot, DimensionsBuilder, DimensionsGate, DimensionsHandle,
    DimensionsLayer, DimensionsSnapshot, KeyedDimensionsHandle, KeyedDimensionsLayer,
    PerKeyDimensions, UnitCosts, Unsettled, UsesOf,
};
pub use fleet::{FleetHandle, FleetSnapshot, Outage};
pub use follow::Follow;
pub use handle::RateLimitHandle;
pub use keyed::{
    HeavyHitter, Key, KeySnapshot, KeyedRateLimitHandle, KeyedSnapshot, Labelled, PerKey, TableGate,
};
pub(crate) use layer::one_second_of;
pub use members::SharedRate;
pub use state::LimitGate;
#[cfg(any(feature = "http", feature = "serde"))]
pub(crate) use switch::Manners;
