//! A rate limit for each key: by peer address, tenant, route, or whatever a request tells.
//!
//! Use it before a handler that many share, so that one of them cannot take it all. A limit for all of them together is
//! another layer: a plain [rate limit](crate::rate_limit), further in.
//!
//! ```
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_keep::{keyed::{KeyedRateLimitLayer, Missing}, rate_limit::Rate};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! struct Order { customer: Option<u64> }
//!
//! let limit = KeyedRateLimitLayer::builder(Rate::per_minute(60), |order: &Order| order.customer)
//!     .burst(1)
//!     .missing(Missing::Reject)
//!     .build()?;
//! let service = limit.layer(service_fn(async |_: Order| Ok::<_, std::io::Error>("accepted")));
//!
//! let order = |customer| service.clone().oneshot(Order { customer });
//! assert!(order(Some(1)).await.is_ok());
//! assert!(order(Some(1)).await.is_err(), "one customer's limit");
//! assert!(order(Some(2)).await.is_ok(), "is not another's");
//! assert!(order(None).await.is_err(), "and nobody gets past it without a key");
//! # Ok(()) }
//! ```
//!
//! For HTTP requests, `header` and `peer` are keys ready made. There is none for `X-Forwarded-For`: whoever calls writes
//! it, so behind nothing that overwrites it each call can be a new key. If a proxy of yours appends to it, take the entry
//! that this proxy has written:
//!
//! ```
//! # #[cfg(feature = "http")] {
//! use tower_keep::keyed::Subnet;
//!
//! // One proxy of ours, which appends the address that it was called from.
//! let client = |request: &http::Request<()>| {
//!     let entries = request.headers().get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
//!     Some(Subnet::of(entries.rsplit(',').next()?.trim().parse().ok()?))
//! };
//! # let request = http::Request::get("/").header("x-forwarded-for", "forged, 192.0.2.1").body(()).unwrap();
//! # assert_eq!(client(&request), Some(Subnet::of("192.0.2.1".parse().unwrap())));
//! # }
//! ```
//!
//! By route is a closure too: take the pattern that the router has matched, not the path, of which there is no end.
//!
//! The algorithm is [`KeyedBuckets`](crate::algorithm::KeyedBuckets): a table of a fixed size, which forgets only keys
//! whose limit is as good as new. Keys themselves are not kept. Their hash is seeded anew for each layer, so nobody can
//! choose keys that share slots. There is no background task.
//!
//! Over [`http::Server`](crate::protocol::http::Server), [`advertise`](KeyedRateLimitBuilder::advertise) tells each caller
//! what is left of its key.

mod future;
mod handle;
#[cfg(feature = "http")]
mod http;
mod key;
mod layer;
mod service;
#[cfg(test)]
mod tests;
mod top;

#[cfg(feature = "http")]
pub use self::http::{header, peer, peer_in};
pub use crate::algorithm::Overflow;
pub use future::ResponseFuture;
pub use handle::{KeyedRateLimitHandle, Snapshot};
pub use key::{ByRequest, Costed, Key, Keyed, Subnet, Watched};
pub use layer::{KeyedRateLimitBuilder, KeyedRateLimitLayer, Missing};
pub use service::KeyedRateLimit;
pub use top::TopKey;
