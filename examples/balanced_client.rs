//! A client of three servers, one of which is sick: a stack for each peer, tower's load balancer
//! over them, and over that a retry.
//!
//! ```console
//! cargo run --example balanced_client
//! ```

use std::{future::IntoFuture, net::SocketAddr};

use axum::{
    Router,
    http::{Request, StatusCode, Uri, uri::PathAndQuery},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{
    BoxError, Layer, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
};
use tower_keep::stack;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let servers = [
        serve(StatusCode::OK).await?,
        serve(StatusCode::SERVICE_UNAVAILABLE).await?,
        serve(StatusCode::OK).await?,
    ];
    let client = Client::builder(TokioExecutor::new()).build_http();

    // Beneath the balancer, for each peer: what judges and bounds that peer.
    let mut peers = Vec::new();
    let mut circuits = Vec::new();
    for address in servers {
        let stack = stack::client()
            .http()
            .one_peer() // while its circuit is open it is out of the balancer's sight
            .without_retry()
            .without_total_timeout()
            .build()?;
        circuits.push(stack.handle().circuit_breaker.shared());
        let peer = ServiceBuilder::new()
            .layer(stack)
            .map_request(move |request| to(address, request))
            .service(client.clone());
        peers.push(PendingRequests::new(peer, CompleteOnResponse::default()));
    }
    let balance = Balance::new(ServiceList::new(peers));

    // Above it, for all peers: another attempt, likely at another peer, and the total timeout.
    let stack = stack::client()
        .http()
        .without_circuit_breaker()
        .without_bulkhead()
        .without_attempt_timeout()
        .build()?;
    let client = stack.layer(Buffer::new(balance, 1024)); // a balancer cannot be cloned

    let call = |_| {
        let request = Request::get("http://payments/").body(Empty::<Bytes>::new());
        client.clone().oneshot(request.expect("a valid URI"))
    };
    let answers = stream::iter(0..200).map(call).buffer_unordered(10);
    let good = answers.filter(|answer| {
        let good = answer.as_ref().is_ok_and(|answer| answer.status() == 200);
        std::future::ready(good)
    });
    let failed = 200 - good.count().await;

    let to_sick = circuits[1].snapshot().totals.admitted;
    println!("{failed} of 200 calls failed; the sick peer was sent {to_sick}");
    assert!(failed < 10, "less than 5 %");
    assert!((8..20).contains(&to_sick), "its circuit has opened");
    Ok(())
}

/// A server that answers everything so.
async fn serve(status: StatusCode) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/", get(async move || status));
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(address)
}

/// A request to a service becomes one to a peer.
fn to<B>(peer: SocketAddr, mut request: Request<B>) -> Request<B> {
    let path = request.uri().path_and_query().cloned();
    let uri = Uri::builder()
        .scheme("http")
        .authority(peer.to_string())
        .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")));
    *request.uri_mut() = uri.build().expect("an address and a path");
    request
}
