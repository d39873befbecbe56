//! Rate limit: at most so many calls in a period, with bursts.
//!
//! Use it before an upstream that enforces a quota, or before a handler that can serve only so many
//! calls a second. It does not bound how many calls run at once: slow calls pile up under any rate.
//! For that, use a [bulkhead](crate::bulkhead).
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
//! [`max_wait`](RateLimitBuilder::max_wait) it waits instead, unless the wait would be longer than
//! that. Calls may have different [costs](RateLimitBuilder::cost), and a response may report [the
//! units used](RateLimitBuilder::settle).
//!
//! # Keys
//!
//! [`keyed_by`](RateLimitBuilder::keyed_by) gives each tenant or address its own limit, in a [table
//! of fixed size](KeyedRateLimitLayer). [`per_key`](RateLimitBuilder::per_key) gives each customer
//! [a limit of any kind](PerKeyRateLimitLayer). Costs, waits and advertised quotas work for each
//! key as for a single limit. Ready-made keys are in [`keyed`](crate::keyed).
//!
//! # Several processes
//!
//! With [`fleet`](RateLimitBuilder::fleet), all processes that use the same name share one limit
//! through a [store](crate::store).
//!
//! # Several quotas
//!
//! [`dimensions`](RateLimitLayer::dimensions) charges each call to several named quotas, all or
//! none, with a cost of 64 bits for each: requests, tokens and money.
//!
//! # HTTP
//!
//! On the server side, over [`http::Server`](crate::protocol::http::Server), a call over the limit
//! is answered with 429 and `Retry-After`. With [`advertise`](RateLimitBuilder::advertise), all
//! responses carry the limit in the `RateLimit-Policy` and `RateLimit` fields of
//! draft-ietf-httpapi-ratelimit-headers-11.
//!
//! On the client side, over [`http::Client`](crate::protocol::http::Client), a limit can
//! [honor](RateLimitBuilder::honor_retry_after) the upstream's hints. It closes after a
//! `Retry-After`. It also closes after the response that used up the upstream's quota: `RateLimit:
//! "default";r=0;t=30`, or `RateLimit-Remaining: 0` and `RateLimit-Reset: 30`. It stays closed for
//! as long as the hint says, up to the maximum that you set.
//!
//! Some providers, such as those of language models, report their quotas in fields of their own. A
//! [provider](crate::protocol::http::provider) reads these fields, and a limit
//! [follows](RateLimitBuilder::follow) one of the quotas.
//!
//! # Cost
//!
//! An admitted call costs one clock read and one compare-and-swap on a word that all callers share.
//! A rejected call writes nothing shared. Only calls that wait or find others waiting take a mutex,
//! and only calls that wait use a timer.

mod aliases;
mod any_limit;
mod bucket;
mod builder;
mod builder_by_key;
#[cfg(any(feature = "http", feature = "serde"))]
mod change;
mod changed;
mod config;
mod dimensions;
mod fleet;
mod fleet_hasher;
mod fleet_values;
mod follow;
mod handle;
mod key_hash;
mod keyed;
mod layer;
mod members;
mod observed;
mod queued_limit;
mod settings;
mod state;
mod switch;
#[cfg(test)]
mod tests;
mod update;

pub use crate::algorithm::{Overflow, Rate};
pub use crate::keyed::Missing;
pub use crate::protocol::Advertise;
pub use aliases::{
    KeyedRateLimitLayer, PerKeyGate, PerKeyRateLimitHandle, PerKeyRateLimitLayer, Permit,
    RateLimit, RateLimitLayer, ResponseFuture, WithTotal,
};
pub use bucket::Snapshot;
pub use builder::{InTable, RateLimitBuilder};
#[cfg(any(feature = "http", feature = "serde"))]
pub(crate) use config::Manners;
pub use config::RateLimitConfig;
#[cfg(any(feature = "http", feature = "serde"))]
pub(crate) use dimensions::Settles;
pub use dimensions::{
    CostsOf, Dimension, DimensionSnapshot, DimensionsBuilder, DimensionsGate, DimensionsHandle,
    DimensionsLayer, DimensionsSnapshot, DimensionsTotal, KeyedDimensionsHandle,
    KeyedDimensionsLayer, PerKeyDimensions, UnitCosts, Unsettled, UsesOf,
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
