//! Three axum services in a chain. The last one knows how long the first one's caller waits, and
//! does not begin work that nobody waits for.
//!
//! `cargo run --example deadline_propagation`

use std::{future::IntoFuture, net::SocketAddr, time::Duration};

use axum::{Extension, Router, body::Body, extract::State, http::StatusCode, routing::get};
use http::Request;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, time::sleep};
use tower::{BoxError, Layer, ServiceExt};
use tower_keep::{
    Deadline,
    protocol::http::{Client as AsClient, Server as AsServer},
    timeout::{Timeout, TimeoutLayer},
};

type HttpClient = Timeout<Client<HttpConnector, Body>, AsClient>;

/// A service's way to the next one. A second is the longest that it would wait by itself; each call
/// waits as long as its own caller, and says so in `grpc-timeout` and
/// `x-envoy-expected-rq-timeout-ms`.
#[derive(Clone)]
struct Next {
    client: HttpClient,
    address: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let third = serve(Router::new().route("/", get(remaining))).await?;
    let second = serve(
        Router::new()
            .route("/", get(pass_on))
            .with_state(next(third)?),
    )
    .await?;
    let first = next(second)?;

    // The caller waits for 400 ms, of which the second service uses up 100.
    let deadline = Deadline::after(Duration::from_millis(400));
    let (status, body) = call(&first, deadline).await?;
    println!("the third service was told: {body} ms are left");
    let left: u64 = body.parse()?;
    assert!(
        status == StatusCode::OK && (200..=300).contains(&left),
        "{left}"
    );

    // The caller waits for 50 ms, and the third service is not asked at all.
    let (status, body) = call(&first, Deadline::after(Duration::from_millis(50)))
        .await
        .unwrap_or_else(|error| (StatusCode::GATEWAY_TIMEOUT, error.to_string()));
    println!("with 50 ms: {status}, {body}");
    assert!(!status.is_success());
    Ok(())
}

/// What the last service knows.
async fn remaining(Extension(deadline): Extension<Deadline>) -> String {
    deadline.remaining().as_millis().to_string()
}

/// A service in the middle: it works a little, and asks the next one with the deadline that its own
/// request has.
async fn pass_on(
    State(next): State<Next>,
    Extension(deadline): Extension<Deadline>,
) -> Result<String, StatusCode> {
    sleep(Duration::from_millis(100)).await;
    let answer = call(&next, deadline).await;
    answer
        .map(|(_, body)| body)
        .map_err(|_| StatusCode::GATEWAY_TIMEOUT)
}

async fn call(next: &Next, deadline: Deadline) -> Result<(StatusCode, String), BoxError> {
    let mut request = Request::get(format!("http://{}/", next.address)).body(Body::empty())?;
    request.extensions_mut().insert(deadline);
    let response = next.client.clone().oneshot(request).await?;
    let status = response.status();
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1024).await?;
    Ok((status, String::from_utf8(body.to_vec())?))
}

fn next(address: SocketAddr) -> Result<Next, BoxError> {
    let timeout = TimeoutLayer::builder(Duration::from_secs(1))
        .total(true)
        .protocol(AsClient::new().send_deadline(true))
        .build()?;
    let client = timeout.layer(Client::builder(TokioExecutor::new()).build_http());
    Ok(Next { client, address })
}

/// Two seconds are the longest that a handler may take; what its caller says counts if it is less.
async fn serve(router: Router) -> Result<SocketAddr, BoxError> {
    let timeout = TimeoutLayer::builder(Duration::from_secs(2))
        .total(true)
        .protocol(AsServer::new().read_deadline(true))
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, router.layer(timeout)).into_future());
    Ok(address)
}
