//! A tonic client that retries what is safe to repeat, and stops calling a server that is down.
//!
//! ```console
//! cargo run --features tonic-014 --example tonic_client
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tonic::{
    Code, Request, Response, Status,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::{BoxError, Layer};
use tower_keep::{Rejected, protocol::grpc, stack};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let upstream = Upstream::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .add_service(HealthServer::new(upstream.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);

    // Only you know which methods may be called twice.
    let protocol = grpc::Client::new().idempotent(["/grpc.health.v1.Health/Check"]);
    let stack = stack::client().grpc(protocol).name("health").build()?;
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
    let mut client = HealthClient::new(stack.layer(channel));

    upstream.failing.store(1, Ordering::Relaxed);
    client.check(HealthCheckRequest::default()).await?;
    println!(
        "one UNAVAILABLE: the caller got its answer from attempt {}",
        upstream.calls()
    );
    assert_eq!(upstream.calls(), 2);

    upstream.failing.store(usize::MAX, Ordering::Relaxed);
    let mut last = None;
    for _ in 0..100 {
        last = client.check(HealthCheckRequest::default()).await.err();
    }
    let status = last.ok_or("the server is down")?;
    println!(
        "of 100 calls to a server that is down, {} attempts reached it",
        upstream.calls() - 2
    );
    println!("the others: {:?}, {:?}", status.code(), status.message());
    assert!(upstream.calls() < 40, "{}", upstream.calls());
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "circuit open")
    );
    // The whole rejection is found behind the status.
    let rejected = Rejected::find(&status).ok_or("a rejection")?;
    println!("try again in {:?}", rejected.retry_after);
    assert!(rejected.retry_after.is_some());
    Ok(())
}

/// A server that fails as many calls as it is told.
#[derive(Clone, Default)]
struct Upstream {
    calls: Arc<AtomicUsize>,
    failing: Arc<AtomicUsize>,
}

impl Upstream {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

#[tonic::async_trait]
impl Health for Upstream {
    type WatchStream = futures::stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let fewer = |failing: usize| failing.checked_sub(1);
        match self
            .failing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
        {
            Ok(_) => Err(Status::unavailable("out of order")),
            Err(_) => Ok(Response::new(HealthCheckResponse::default())),
        }
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(futures::stream::empty()))
    }
}
