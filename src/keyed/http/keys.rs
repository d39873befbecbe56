//! Ready-made keys of HTTP requests.

use std::{fmt, net::SocketAddr, ops::Deref};

use bytes::Bytes;
use http::{HeaderValue, Request};

use crate::keyed::{
    FindKey, Subnet,
    http::{ByHost, Host, length},
};

#[cfg(test)]
mod tests;

/// The value of a header as a key, byte for byte.
///
/// If a value has more than 256 bytes, its beginning is kept, and a digest of 128 bits in place of
/// the rest. A client may send 60 kB, and would otherwise take that much memory per key.
///
/// A request's header is a slice of the buffer that the request was read into, and would keep the
/// whole buffer alive while the key is known. So a clone, which a layer keeps, owns only the bytes
/// of the value. Finding the key of a request copies nothing.
#[derive(PartialEq, Eq, Hash)]
pub struct HeaderKey(HeaderValue);

/// Returns a closure that finds the value of a header, such as an API key: the first value, byte
/// for byte. The name's case does not matter. At most 256 bytes of a value are kept: see
/// [`HeaderKey`].
///
/// An unchecked value is whatever the caller likes. Put the layer behind the check, or each call
/// can get a new limit with a new value.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_keep::{keyed, protocol::http::Server, rate_limit::{Missing, Rate, RateLimitLayer}};
///
/// let limit = RateLimitLayer::builder(Rate::per_second(10))
///     .protocol(Server::new())
///     .keyed_by(keyed::header("x-api-key"))
///     .missing(Missing::Reject)
///     .build()?;
/// let app: Router = Router::new().route("/", get(async || "hello")).layer(limit);
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
pub fn header<B>(
    name: &'static str,
) -> impl Fn(&Request<B>) -> Option<HeaderKey> + Clone + Send + Sync {
    move |request| request.headers().get(name).map(HeaderKey::of)
}

/// Returns a closure that finds the [`Subnet`] of the peer's address, if the server has put a
/// [`SocketAddr`] into the request's extensions. Behind a proxy the peer is the proxy: see
/// [`forwarded`](super::forwarded).
///
/// Without that extension no request has a key, and by default all requests without a key share
/// **one limit**. Few servers add the extension by themselves. Axum does not, and has its own type
/// for it ([`peer_from`]). Require a key with `.missing(Missing::Reject)`, and the first request
/// shows the mistake.
pub fn peer<B>() -> impl Fn(&Request<B>) -> Option<Subnet> + Clone + Send + Sync {
    peer_in(|address: &SocketAddr| *address)
}

/// Returns a closure that finds the [`Subnet`] of the peer's address in an extension `T` that
/// dereferences to a [`SocketAddr`], such as axum's `ConnectInfo<SocketAddr>`:
///
/// ```
/// # use std::net::SocketAddr;
/// use axum::{Router, extract::ConnectInfo, routing::get};
/// use tower_keep::{keyed, protocol::http::Server, rate_limit::{Missing, Rate, RateLimitLayer}};
///
/// let limit = RateLimitLayer::builder(Rate::per_second(10))
///     .protocol(Server::new())
///     .keyed_by(keyed::peer_from::<ConnectInfo<SocketAddr>, _>())
///     // Without `connect_info` below, all requests would share one limit. So they are rejected.
///     .missing(Missing::Reject)
///     .build()?;
/// let app: Router = Router::new().route("/", get(async || "hello")).layer(limit);
/// let service = app.into_make_service_with_connect_info::<SocketAddr>();
/// // axum::serve(listener, service).await
/// # let _ = service;
/// # Ok::<_, tower_keep::ConfigError>(())
/// ```
pub fn peer_from<T, B>() -> impl Fn(&Request<B>) -> Option<Subnet> + Clone + Send + Sync
where
    T: Deref<Target = SocketAddr> + Send + Sync + 'static,
{
    peer_in(|address: &T| **address)
}

/// Returns a closure that finds the [`Subnet`] of the peer's address. `address` reads it from the
/// extension `T` in which the server has put it.
///
/// ```
/// # use std::net::SocketAddr;
/// use tower_keep::keyed;
///
/// #[derive(Clone)]
/// struct Connection { peer: SocketAddr, tls: bool }
///
/// let key = keyed::peer_in(|connection: &Connection| connection.peer);
/// # let mut request = http::Request::new(());
/// # assert!(key(&request).is_none());
/// # request.extensions_mut().insert(Connection { peer: ([192, 0, 2, 1], 1).into(), tls: true });
/// # assert!(key(&request).is_some());
/// ```
pub fn peer_in<T, A, B>(address: A) -> impl Fn(&Request<B>) -> Option<Subnet> + Clone + Send + Sync
where
    T: Send + Sync + 'static,
    A: Fn(&T) -> SocketAddr + Clone + Send + Sync,
{
    move |request| {
        request
            .extensions()
            .get()
            .map(|peer| Subnet::of(address(peer).ip()))
    }
}

/// Returns a closure that finds the [`Host`] a request goes to, as [`ByHost`](super::ByHost) does.
/// For clients.
///
/// ```
/// use tower_keep::keyed;
///
/// let key = keyed::host();
/// let request = http::Request::get("http://API.example:80/7").body(())?;
/// assert_eq!(key(&request).unwrap().as_str(), "api.example");
/// # Ok::<_, http::Error>(())
/// ```
pub fn host<B>() -> impl Fn(&Request<B>) -> Option<Host> + Clone + Send + Sync {
    |request| ByHost.find(request)
}

impl HeaderKey {
    fn of(value: &HeaderValue) -> Self {
        let short = length::shortened(value.as_bytes());
        // A part of a value, followed by digits, is a valid value.
        let short = short.and_then(|bytes| HeaderValue::from_maybe_shared(Bytes::from(bytes)).ok());
        let Some(mut short) = short else {
            return Self(value.clone());
        };
        short.set_sensitive(value.is_sensitive());
        Self(short)
    }

    /// Returns the value's bytes, or what is kept of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Converts a value, to ask a handle about its key.
impl From<HeaderValue> for HeaderKey {
    fn from(value: HeaderValue) -> Self {
        Self::of(&value)
    }
}

impl Clone for HeaderKey {
    fn clone(&self) -> Self {
        // The bytes of a valid value are a valid value.
        let copy = HeaderValue::from_bytes(self.as_bytes());
        let mut copy = copy.unwrap_or_else(|_| self.0.clone());
        copy.set_sensitive(self.0.is_sensitive());
        Self(copy)
    }
}

/// Formats the value, unless it was marked as sensitive.
impl fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
