//! An axum and a tonic server that stop without losing a call. Each stack is drained, and then its
//! server accepts no more connections.
//!
//! ```console
//! cargo run --features tonic-014 --example graceful_shutdown
//! ```

use std::{future::Future, time::Duration};

use axum::{
    Router,
    http::{Request, StatusCode},
    routing::get,
};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, sync::oneshot, time::sleep};
use tonic::{
    Code,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::BoxError;
use tower_keep::{
    observe::Registry,
    stack::{self, ServerHandle},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    over_http().await?;
    over_grpc().await
}

/// Ends when the process is told to stop and its calls have ended, or have had ten seconds.
async fn stopped(told: impl Future, handle: ServerHandle) {
    told.await; // `tokio::signal::ctrl_c()`, for example
    if let Err(undrained) = handle.drain(Duration::from_secs(10)).await {
        eprintln!("stopping all the same: {undrained}");
    }
}

async fn over_http() -> Result<(), BoxError> {
    let stack = stack::server()
        .http()
        .name("web")
        .max_in_flight(10)
        .build()?;
    let handle = stack.handle();
    let app = Router::new()
        .route(
            "/slow",
            get(async || sleep(Duration::from_millis(300)).await),
        )
        .layer(stack)
        // Load balancers ask here. It tells before anything is rejected.
        .route("/readyz", get(ready));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, told) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(stopped(told, handle.clone()));
    let server = tokio::spawn(server.into_future());

    let client = Client::builder(TokioExecutor::new()).build_http();
    let ask = |path: &str| {
        let request = Request::get(format!("http://{address}{path}"));
        client.request(request.body(Empty::<Bytes>::new()).expect("a valid URI"))
    };
    assert_eq!(ask("/readyz").await?.status(), StatusCode::OK);
    let slow = tokio::spawn(ask("/slow"));
    while handle.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    stop.send(()).expect("the server runs");
    while !handle.is_draining() {
        tokio::task::yield_now().await;
    }
    let late = ask("/slow").await?;
    println!(
        "a new call: {}, come back in {:?} s",
        late.status(),
        late.headers()["retry-after"]
    );
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        ask("/readyz").await?.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        slow.await??.status(),
        StatusCode::OK,
        "what was in flight ends"
    );
    drop(client); // a server waits for its connections as well
    server.await??;
    assert_eq!(handle.in_flight(), 0);
    Ok(())
}

async fn ready() -> StatusCode {
    match Registry::global().health().is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn over_grpc() -> Result<(), BoxError> {
    let stack = stack::server()
        .grpc()
        .name("rpc")
        .max_in_flight(10)
        .build()?;
    let handle = stack.handle();
    let (_reporter, health) = tonic_health::server::health_reporter(); // your own service
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, told) = oneshot::channel::<()>();
    let server = Server::builder().layer(stack).add_service(health);
    let incoming = TcpIncoming::from(listener);
    let server = server.serve_with_incoming_shutdown(incoming, stopped(told, handle.clone()));
    let server = tokio::spawn(server);

    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = HealthClient::new(channel);
    // A stream is in flight until it ends.
    let mut stream = client
        .watch(HealthCheckRequest::default())
        .await?
        .into_inner();
    assert!(stream.message().await?.is_some());
    stop.send(()).expect("the server runs");
    while !handle.is_draining() {
        tokio::task::yield_now().await;
    }
    let late = client
        .check(HealthCheckRequest::default())
        .await
        .unwrap_err();
    println!("a new call: {:?}, {:?}", late.code(), late.message());
    assert_eq!(late.code(), Code::Unavailable);
    assert_eq!(handle.in_flight(), 1, "the stream");
    drop((stream, client));
    server.await??;
    assert_eq!(handle.in_flight(), 0);
    Ok(())
}
