//! Both stacks over a simulated network, with real hyper and tonic at both ends: connections that
//! hang, and a server that crashes and comes back.
//!
//! Where a drill models what lies beneath a stack, the network here has connections, pools and
//! frames. It is slower and finds other faults. `.ci/run` runs it:
//! `cargo test --all-features --test network -- --ignored`.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use futures::stream;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Endpoint, Server as TonicServer, server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{circuit_breaker::BreakerState, protocol::grpc, stack};
use turmoil::{
    Builder, Sim,
    net::{TcpListener, TcpStream},
};

/// The troubles, in seconds: the network delivers nothing, and the server is down.
const HANGS: (u64, u64) = (5, 10);
const DOWN: (u64, u64) = (18, 23);
const END: u64 = 30;

/// The calls of each second that were asked, and those that were answered well.
type Seconds = Arc<Mutex<Vec<(u32, u32)>>>;

fn network() -> Sim<'static> {
    let mut builder = Builder::new();
    builder
        .simulation_duration(Duration::from_secs(END + 30))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .rng_seed(417);
    builder.build()
}

/// Runs a network through its troubles.
fn suffer(mut network: Sim<'_>) {
    let at = |seconds| Duration::from_secs(seconds);
    let mut troubles = [HANGS.0, HANGS.1, DOWN.0, DOWN.1]
        .map(at)
        .into_iter()
        .zip(0..)
        .peekable();
    while !network.step().unwrap() {
        let Some((_, number)) = troubles.next_if(|(at, _)| network.elapsed() >= *at) else {
            continue;
        };
        match number {
            0 => network.hold("client", "shop"),
            1 => network.release("client", "shop"),
            2 => network.crash("shop"),
            _ => network.bounce("shop"),
        }
    }
}

/// Makes 50 calls a second.
async fn ask<F>(seconds: Seconds, call: impl Fn() -> F)
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let mut calls = tokio::task::JoinSet::new();
    for second in 0..END {
        seconds.lock().unwrap().push((0, 0));
        for _ in 0..50 {
            let (call, seconds) = (call(), Arc::clone(&seconds));
            calls.spawn(async move {
                let patience = Duration::from_secs(2);
                let answered = tokio::time::timeout(patience, call).await;
                let mut seconds = seconds.lock().unwrap();
                let counted = &mut seconds[usize::try_from(second).unwrap()];
                counted.0 += 1;
                counted.1 += u32::from(matches!(answered, Ok(Ok(()))));
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    calls.join_all().await;
}

/// All is answered while all is well, and again within two seconds after a trouble.
fn assert_recovered(seconds: &Seconds) {
    let seconds = seconds.lock().unwrap();
    for (second, (asked, answered)) in (0..).zip(seconds.iter()) {
        let is_well = |(from, to): (u64, u64)| second + 2 < from || second >= to + 2;
        if is_well(HANGS) && is_well(DOWN) {
            assert_eq!(answered, asked, "in second {second}: {seconds:?}");
        }
    }
    let (asked, answered) = seconds[7];
    assert!(answered < asked / 2, "nothing hung: {seconds:?}");
    let (asked, answered) = seconds[20];
    assert!(answered < asked / 2, "nothing was down: {seconds:?}");
}

async fn connect(port: u16) -> io::Result<TokioIo<Stream>> {
    let stream = TcpStream::connect(("shop", port)).await?;
    Ok(TokioIo::new(Stream(stream)))
}

#[test]
#[ignore = "half a minute of a network, in some seconds: .ci/run runs it"]
fn http_recovers_over_a_simulated_network() {
    let mut network = network();
    network.host("shop", || async {
        let stack = stack::server().http().max_in_flight(50).build()?;
        let slow = async || {
            tokio::time::sleep(Duration::from_millis(20)).await;
            "hello"
        };
        let app = Router::new().route("/", get(slow)).layer(stack);
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let service = TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // An error is the client's to see.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let seconds = Seconds::default();
    let stack = stack::client()
        .http()
        .attempt_timeout(Duration::from_millis(500));
    let stack = stack.build().unwrap();
    let circuits = stack.handle().circuit_breaker;
    let told = Arc::clone(&seconds);
    network.client("client", async move {
        let connector = service_fn(|_: Uri| Box::pin(connect(80)));
        let client = Client::builder(TokioExecutor::new()).build::<_, _>(connector);
        let client = stack.layer(client);
        let call = || {
            let request = Request::get("http://shop/").body(Empty::<Bytes>::new());
            let client = client.clone();
            async move {
                let response = client.oneshot(request?).await?;
                let is_well = response.status().is_success();
                let body = response
                    .into_body()
                    .collect()
                    .await
                    .map_err(BoxError::from)?;
                match is_well && body.to_bytes() == "hello" {
                    true => Ok(()),
                    false => Err("another answer".into()),
                }
            }
        };
        ask(told, call).await;
        Ok(())
    });
    suffer(network);
    assert_recovered(&seconds);
    let opened = circuits.keys().into_iter();
    let generations: Vec<_> = opened
        .map(|(_, circuit)| circuit.snapshot().generation)
        .collect();
    assert!(
        generations.iter().all(|count| *count >= 4),
        "{generations:?}"
    );
}

#[test]
#[ignore = "half a minute of a network, in some seconds: .ci/run runs it"]
fn grpc_recovers_over_a_simulated_network() {
    let mut network = network();
    network.host("shop", || async {
        let listener = TcpListener::bind("0.0.0.0:50051").await?;
        let accepted = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await;
            Some((accepted.map(|(stream, _)| Stream(stream)), listener))
        });
        let stack = stack::server().grpc().max_in_flight(50).build()?;
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = TonicServer::builder().layer(stack).add_service(health);
        server.serve_with_incoming(accepted).await?;
        Ok(())
    });
    let seconds = Seconds::default();
    let check = grpc::Client::new().idempotent(["/grpc.health.v1.Health/Check"]);
    let stack = stack::client()
        .grpc(check)
        .attempt_timeout(Duration::from_millis(500));
    let stack = stack.build().unwrap();
    let circuit = stack.handle().circuit_breaker.shared();
    let told = Arc::clone(&seconds);
    network.client("client", async move {
        let second = Duration::from_secs(1);
        // A connection whose peer is gone without a word is found by its pings alone.
        let endpoint = Endpoint::from_static("http://shop:50051")
            .http2_keep_alive_interval(second)
            .keep_alive_timeout(second / 2);
        let connector = service_fn(|_: Uri| Box::pin(connect(50051)));
        let channel = endpoint.connect_with_connector_lazy(connector);
        let client = HealthClient::new(stack.layer(channel));
        let call = || {
            let mut client = client.clone();
            async move {
                client.check(HealthCheckRequest::default()).await?;
                Ok(())
            }
        };
        ask(told, call).await;
        Ok(())
    });
    suffer(network);
    assert_recovered(&seconds);
    let snapshot = circuit.snapshot();
    assert!(snapshot.generation >= 4, "{snapshot:?}");
    assert_eq!(circuit.state(), BreakerState::Closed);
}

/// A connection of the simulated network, as hyper and tonic want it.
#[derive(Debug)]
struct Stream(TcpStream);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl server::Connected for Stream {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }
}
