//! A tonic server that protects itself: at most four calls in flight, and ten in a burst.
//!
//! Rejections are gRPC responses, with a status, a message, and the time to come back. To protect
//! one service alone, apply the stack to it: `.add_service(stack.layer(service))`.
//!
//! ```console
//! cargo run --features tonic-014 --example tonic_server
//! ```

use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tower::BoxError;
use tower_keep::{rate_limit::Rate, stack};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let stack = stack::server()
        .grpc()
        .name("api")
        .max_in_flight(4)
        .rate(Rate::per_minute(10))
        .burst(10)
        .build()?;
    let handle = stack.handle();

    // In place of your own service.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .layer(stack)
        .add_service(health)
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
    while handle.snapshot().bulkhead.in_flight > 0 {
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
