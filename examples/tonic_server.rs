//! A tonic server with a bulkhead around all of its services, and a rate limit around one.
//!
//! Rejections are gRPC responses: callers see a status, a message, and when to come back.
//!
//! `cargo run --features grpc --example tonic_server`

use std::time::Duration;

use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tower::{BoxError, Layer};
use tower_keep::{
    bulkhead::BulkheadLayer,
    protocol::grpc,
    rate_limit::{Rate, RateLimitLayer},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let bulkhead = BulkheadLayer::builder(4)
        .protocol(grpc::Server::new())
        .build()?;
    let limit = RateLimitLayer::builder(Rate::new(10, Duration::from_secs(60)))
        .burst(10)
        .name("health")
        .protocol(grpc::Server::new())
        .build()?;
    let in_flight = bulkhead.handle();

    // In place of your own service.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .layer(bulkhead)
        .add_service(limit.layer(health))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);

    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = HealthClient::new(channel);

    // A stream is in flight until it ends, or its caller drops it.
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(watch(&mut client).await?);
    }
    let full = watch(&mut client).await.unwrap_err();
    println!("a fifth stream: {:?}, {:?}", full.code(), full.message());
    assert_eq!(
        (full.code(), full.message()),
        (Code::ResourceExhausted, "bulkhead full")
    );
    drop(streams);
    while in_flight.snapshot().in_flight > 0 {
        tokio::task::yield_now().await;
    }

    // The four streams were admitted, which leaves six.
    let mut admitted = 0;
    let mut rejected = Vec::new();
    for _ in 0..20 {
        match client.check(HealthCheckRequest::default()).await {
            Ok(_) => admitted += 1,
            Err(status) => rejected.push(status),
        }
    }
    println!("of 20 calls {admitted} are admitted");
    assert_eq!((admitted, rejected.len()), (6, 14));
    let status = &rejected[0];
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    println!(
        "the others: {:?}, {:?}, pushback {pushback:?}",
        status.code(),
        status.message()
    );
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(pushback.is_some());
    Ok(())
}

async fn watch(
    client: &mut HealthClient<Channel>,
) -> Result<Streaming<HealthCheckResponse>, tonic::Status> {
    let stream = client.watch(HealthCheckRequest::default()).await?;
    Ok(stream.into_inner())
}
