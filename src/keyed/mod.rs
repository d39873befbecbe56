//! Keys: the owners of a limit or a circuit, such as a peer's address, a tenant or a route.
//!
//! A closure finds the key of a request. It is given to a rate limit's
//! [`keyed_by`](crate::rate_limit::RateLimitBuilder::keyed_by) or
//! [`per_key`](crate::rate_limit::RateLimitBuilder::per_key), or to the `keyed_by` of a [circuit
//! breaker](crate::circuit_breaker::CircuitBreakerBuilder::keyed_by), a
//! [bulkhead](crate::bulkhead::BulkheadBuilder::keyed_by) or a
//! [throttle](crate::throttle::ThrottleBuilder::keyed_by).
//!
//! The settings of keys, such as `max_keys`, `overflow` and `missing`, exist on a builder once its
//! key is set.
//!
//! There are ready-made closures for HTTP requests. `header` returns the value of a header. `peer`
//! and `peer_from` return the address of the socket's other end. `forwarded` returns the client's
//! address behind proxies.
//!
//! For a key per route, write a closure. Use the pattern that the router has matched, not the path,
//! because the number of paths has no bound. With axum:
//!
//! ```
//! # #[cfg(feature = "http")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! use axum::{Router, body::Body, extract::MatchedPath, http::{Request, StatusCode}, routing::get};
//! use tower_keep::{protocol::http::Server, rate_limit::{Rate, RateLimitLayer}};
//! # use tower::ServiceExt;
//!
//! let limit = RateLimitLayer::builder(Rate::per_minute(60))
//!     .burst(1)
//!     .protocol(Server::new())
//!     .keyed_by(|request: &Request<Body>| {
//!         request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned())
//!     })
//!     .build()?;
//! let app: Router = Router::new()
//!     .route("/users/{id}", get(async || "a user"))
//!     .route("/health", get(async || "well"))
//!     .layer(limit);
//! # let ask = |path| Request::get(path).body(Body::empty()).unwrap();
//! # let status = async |path| app.clone().oneshot(ask(path)).await.unwrap().status();
//!
//! assert_eq!(status("/users/1").await, StatusCode::OK);
//! assert_eq!(status("/users/2").await, StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(status("/health").await, StatusCode::OK);
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! | layer | for | memory | keys |
//! |---|---|---|---|
//! | [`KeyedRateLimitLayer`](crate::rate_limit::KeyedRateLimitLayer) | callers that are not known in advance | a fixed table, 20 to 40 bytes per key | not kept |
//! | [`PerKeyRateLimitLayer`](crate::rate_limit::PerKeyRateLimitLayer) | customers, each with a limit of any kind | about 1.2 KiB per key with a token bucket, bounded | kept, and can be listed |
//! | [`KeyedCircuitBreakerLayer`](crate::circuit_breaker::KeyedCircuitBreakerLayer) | hosts and routes | about 4 KiB per key, bounded | kept, and can be listed |
//! | [`KeyedBulkheadLayer`](crate::bulkhead::KeyedBulkheadLayer) | dependencies, tenants and routes | bounded | kept, and can be listed |
//! | [`KeyedThrottleLayer`](crate::throttle::KeyedThrottleLayer) | hosts and routes | about 1.3 KiB per key, bounded | kept, and can be listed |

mod builder;
mod find;
#[cfg(feature = "http")]
mod http;
pub(crate) mod partitions;
mod subnet;
mod texts;

#[cfg(feature = "http")]
pub use self::http::{
    ByHost, HeaderKey, Host, Proxies, forwarded, header, host, peer, peer_from, peer_in,
};
pub use builder::{ByKey, KeyIsSet, NotKeyed};
pub(crate) use builder::{KeySettings, sealed};
pub(crate) use find::Keyless;
pub use find::{FindKey, HasKey, KeyFn, Missing};
pub use subnet::Subnet;
pub(crate) use texts::{KeyText, KeyTexts};
