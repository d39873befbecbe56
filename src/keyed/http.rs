//! Keys of HTTP requests, ready made.

use std::net::SocketAddr;

use http::{HeaderValue, Request};

use crate::keyed::Subnet;

/// By the value of a header, such as an API key: the first value, byte for byte. The name's case
/// does not matter.
///
/// A value that nobody has checked is whatever the caller likes: put the layer behind the check, or
/// a new value for each call is a new limit for each call.
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
) -> impl Fn(&Request<B>) -> Option<HeaderValue> + Clone + Send + Sync {
    move |request| request.headers().get(name).cloned()
}

/// By the [`Subnet`] of the peer's address, if the server has put it into the request's extensions
/// as a [`SocketAddr`]. Behind a proxy the peer is the proxy.
pub fn peer<B>() -> impl Fn(&Request<B>) -> Option<Subnet> + Clone + Send + Sync {
    peer_in(|address: &SocketAddr| *address)
}

/// By the [`Subnet`] of the peer's address, out of the extension `T` that the server has put it
/// into.
///
/// With axum, that is what `into_make_service_with_connect_info::<SocketAddr>()` adds:
///
/// ```
/// # use std::net::SocketAddr;
/// use axum::{body::Body, extract::ConnectInfo};
/// use tower_keep::keyed;
///
/// let key = keyed::peer_in(|peer: &ConnectInfo<SocketAddr>| peer.0);
/// # key(&http::Request::new(Body::empty()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_found_in_the_extension_that_the_server_has_put_it_into() {
        #[derive(Clone)]
        struct Connection(SocketAddr);

        let address: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let mut request = Request::new(());
        assert_eq!(
            (
                peer::<()>()(&request),
                peer_in(|peer: &Connection| peer.0)(&request)
            ),
            (None, None)
        );
        request.extensions_mut().insert(address);
        assert_eq!(
            peer()(&request),
            Some(Subnet::of("2001:db8::".parse().unwrap()))
        );
        request
            .extensions_mut()
            .insert(Connection("192.0.2.1:80".parse().unwrap()));
        assert_eq!(
            peer_in(|peer: &Connection| peer.0)(&request),
            Some(Subnet::of("192.0.2.1".parse().unwrap()))
        );
    }
}
