//! Keys of HTTP requests, in the layers that keep them.

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use tower::{Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    algorithm::TokenBucket,
    circuit_breaker::CircuitBreakerLayer,
    keyed::{self, HeaderKey},
    protocol::http::{Client, Server},
    rate_limit::{Missing, Rate, RateLimitLayer},
};

/// Sends 1000 requests with a key each, all of them slices of read buffers; returns the buffers
/// that are still alive.
async fn pinned<S>(mut service: S) -> usize
where
    S: Service<Request<()>>,
{
    let mut buffers = Vec::new();
    for n in 0..1000 {
        let mut buffer = vec![b'x'; 1 << 12];
        buffer[..4].copy_from_slice(format!("{n:04}").as_bytes());
        let buffer = Bytes::from(buffer);
        let mut request = Request::new(());
        let key = HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap();
        request.headers_mut().insert("x-tenant", key);
        buffers.push(buffer);
        let _ = service.ready().await.map(|ready| ready.call(request));
    }
    buffers.iter().filter(|buffer| !buffer.is_unique()).count()
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_thousand_tenants_hold_no_read_buffer() {
    let echo = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let limits = RateLimitLayer::builder(Rate::per_second(10))
        .protocol(Client::new())
        .per_key(keyed::header("x-tenant"), |_: &HeaderKey| {
            TokenBucket::new(Rate::per_second(1), 1)
        })
        .build()
        .unwrap();
    assert_eq!(pinned(limits.layer(echo)).await, 0);
    assert_eq!(limits.handle().keys().len(), 1000);
    let circuits = CircuitBreakerLayer::builder()
        .protocol(Client::new())
        .keyed_by(keyed::header("x-tenant"))
        .build()
        .unwrap();
    assert_eq!(pinned(circuits.layer(echo)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn axums_clients_have_a_limit_each() {
    let limit = RateLimitLayer::builder(Rate::per_minute(1))
        .burst(1)
        .protocol(Server::new())
        .keyed_by(keyed::peer_from::<ConnectInfo<SocketAddr>, _>())
        .missing(Missing::Reject)
        .build()
        .unwrap();
    let router = Router::new().route("/", get(async || "hello")).layer(limit);
    let call = async |address: Option<&str>| {
        let mut request = Request::new(Body::empty());
        if let Some(address) = address {
            let address: SocketAddr = address.parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(address));
        }
        router.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(call(Some("192.0.2.1:1000")).await, StatusCode::OK);
    assert_eq!(call(Some("192.0.2.2:1000")).await, StatusCode::OK);
    let again = call(Some("192.0.2.1:2000")).await;
    assert_eq!(again, StatusCode::TOO_MANY_REQUESTS);
    // Without an address, the first request tells.
    assert_eq!(call(None).await, StatusCode::BAD_REQUEST);
}
