//! Keys of HTTP requests, in the layers that keep them.

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Rejected,
    algorithm::TokenBucket,
    circuit_breaker::CircuitBreakerLayer,
    keyed::{self, HeaderKey, Proxies},
    protocol::{
        Replay,
        http::{Client, Server},
    },
    rate_limit::{Missing, Rate, RateLimitLayer},
    stack,
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

/// Each of 99 requests is from another client, as it says.
#[tokio::test(start_paused = true)]
async fn forged_addresses_gain_nothing_without_a_known_peer() {
    let admitted = async |proxies: Proxies, peer: Option<&str>| {
        let limit = RateLimitLayer::builder(Rate::per_minute(5))
            .burst(5)
            .protocol(Server::new())
            .keyed_by(keyed::forwarded(proxies))
            .build()
            .unwrap();
        let router = Router::new().route("/", get(async || "hello")).layer(limit);
        let mut admitted = 0;
        for n in 1..100 {
            let request = Request::get("/").header("x-forwarded-for", format!("192.0.2.{n}"));
            let mut request = request.body(Body::empty()).unwrap();
            if let Some(peer) = peer {
                let peer: SocketAddr = peer.parse().unwrap();
                request.extensions_mut().insert(ConnectInfo(peer));
            }
            let status = router.clone().oneshot(request).await.unwrap().status();
            admitted += u32::from(status == StatusCode::OK);
        }
        admitted
    };
    let networks = || Proxies::networks(["10.0.0.0/8"]).unwrap();
    let with_peer = || networks().peer_from::<ConnectInfo<SocketAddr>>();
    // axum tells the address in a type of its own, which nobody has asked for here.
    assert_eq!(admitted(networks(), Some("10.0.0.1:1")).await, 5);
    assert_eq!(admitted(networks(), None).await, 5);
    assert_eq!(admitted(with_peer(), Some("198.51.100.1:1")).await, 5);
    assert_eq!(admitted(with_peer(), Some("10.0.0.1:1")).await, 99);
    assert_eq!(admitted(networks().only_proxies_call(), None).await, 99);
}

/// A user in a URL names no other host.
#[tokio::test(start_paused = true)]
async fn no_spelling_of_a_host_passes_its_open_circuit() {
    let stack = stack::client().http().build().unwrap();
    let upstream = service_fn(async |_: Request<_>| {
        let answer = Response::builder().status(StatusCode::BAD_GATEWAY);
        Ok::<_, BoxError>(answer.body(Full::<Bytes>::default()).unwrap())
    });
    let call = async |uri: &str| {
        let request = Request::post(uri).body(Full::<Bytes>::default()).unwrap();
        let answer = stack.layer(upstream).oneshot(request).await;
        answer.is_err_and(|error| Rejected::find(&*error).is_some())
    };
    while !call("http://dead.example/").await {}
    let mut rejected = 0;
    for n in 0..200 {
        let uri = match n % 4 {
            0 => format!("http://user-{n}@dead.example/"),
            1 => format!("http://user-{n}:secret@DEAD.example:80/{n}"),
            2 => "https://dead.example.:443/".to_owned(),
            _ => "http://Dead.Example./".to_owned(),
        };
        rejected += u32::from(call(&uri).await);
    }
    assert_eq!(rejected, 200);
    assert!(!call("http://alive.example/").await);
    let snapshot = stack.handle().snapshot();
    let hosts = snapshot.circuits.iter().filter(|(host, _)| host.is_some());
    assert_eq!(hosts.count(), 2);
    let told = format!("{snapshot:?} {snapshot:#?} {:?}", stack.handle());
    #[cfg(feature = "serde")]
    let told = told + &serde_json::to_string(&snapshot).unwrap();
    assert!(
        !told.contains("secret") && !told.contains("user-"),
        "{told}"
    );
    assert!(told.contains("dead.example"), "{told}");
}

/// Whatever is kept of a request, its Debug form tells no secret.
#[test]
fn a_request_that_is_kept_tells_no_password() {
    let request = Request::get("http://user:secret@api.example/")
        .header("authorization", "secret")
        .body(Full::<Bytes>::default());
    let (_, kept) = Client::new().prepare(request.unwrap());
    let told = format!("{:?}", kept.unwrap());
    assert!(!told.contains("secret"), "{told}");
}

/// A limit for each tenant, whose name may be of any length.
#[tokio::test(start_paused = true)]
async fn long_names_of_tenants_have_limits_of_their_own() {
    let echo = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let limits = RateLimitLayer::builder(Rate::per_second(1000))
        .protocol(Client::new())
        .per_key(keyed::header("x-tenant"), |_: &HeaderKey| {
            TokenBucket::new(Rate::per_second(1), 1)
        })
        .build()
        .unwrap();
    let call = async |last: u32| {
        let tenant = format!("{}{last:04}", "x".repeat(60_000));
        let request = Request::get("/").header("x-tenant", tenant).body(());
        let answer = limits.layer(echo).oneshot(request.unwrap()).await;
        answer.is_ok()
    };
    for tenant in 0..100 {
        assert!(call(tenant).await, "{tenant}");
    }
    for tenant in 0..100 {
        assert!(!call(tenant).await, "{tenant}");
    }
    let keys = limits.handle().keys();
    assert_eq!(keys.len(), 100);
    assert!(keys.iter().all(|(key, _)| key.as_bytes().len() <= 256));
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
