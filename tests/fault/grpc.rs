//! What a tonic client sees of each fault, beneath it and before the server, on loopback.

use std::net::SocketAddr;

use futures::FutureExt;
use http::Request;
use tokio::{io::AsyncReadExt, net::TcpListener, time::timeout};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint, Server as TonicServer, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::{BoxError, Layer};
use tower_keep::{
    Classify, Outcome,
    fault::{Answers, Condition, Effect, Fault, FaultBody, FaultHandle, FaultLayer},
    protocol::{
        Advice, Protocol, Sent,
        grpc::{Client, Server},
    },
};

use crate::{REASON, ms, now, secs, since};

type Answered = http::Response<FaultBody<Body>>;

async fn bind() -> (TcpIncoming, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpIncoming::from(listener), address)
}

fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    endpoint.unwrap().connect_lazy()
}

fn health() -> HealthServer<impl Health> {
    let (_, service) = tonic_health::server::health_reporter();
    service
}

/// A channel to a server that is well.
async fn well() -> Channel {
    let (incoming, address) = bind().await;
    let server = TonicServer::builder().add_service(health());
    tokio::spawn(server.serve_with_incoming(incoming));
    connect(address)
}

/// A channel to a server behind faults that run.
async fn behind<E, W>(fault: Fault<E, W>) -> (Channel, FaultHandle)
where
    E: Effect + Answers<Request<Body>, Answered, std::convert::Infallible> + Send + Sync + 'static,
    W: Condition<Request<Body>> + Send + Sync + 'static,
{
    let layer = FaultLayer::builder(REASON)
        .protocol(Server::new())
        .fault(fault)
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    let handle = layer.handle();
    let (incoming, address) = bind().await;
    let server = TonicServer::builder().add_service(layer.layer(health()));
    tokio::spawn(server.serve_with_incoming(incoming));
    (connect(address), handle)
}

/// A client over faults that run.
macro_rules! over {
    ($channel:expr, $fault:expr) => {{
        let layer = FaultLayer::builder(REASON)
            .protocol(Client::new())
            .fault($fault)
            .build()
            .unwrap();
        layer.handle().start_for(secs(60));
        (HealthClient::new(layer.layer($channel)), layer.handle())
    }};
}

/// One call, and what it says.
macro_rules! check {
    ($client:expr) => {
        async {
            let answer = $client.check(HealthCheckRequest::default()).await?;
            Ok::<_, Status>(answer.into_inner().status())
        }
    };
}

/// What all faults do that both sides have: `$client` makes a client and a handle of a fault.
macro_rules! each_fault_is_seen {
    ($client:ident) => {
        let (mut client, _) =
            $client!(Fault::grpc_status(Code::ResourceExhausted).pushback(ms(1500)));
        let status = check!(client).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.metadata().get("grpc-retry-pushback-ms").unwrap(),
            "1500"
        );

        let (mut client, _) = $client!(Fault::grpc_status(Code::Unavailable).no_retry());
        let status = check!(client).await.unwrap_err();
        assert_eq!(
            status.metadata().get("grpc-retry-pushback-ms").unwrap(),
            "-1"
        );

        // As a proxy answers.
        let (mut client, _) = $client!(Fault::status(503));
        let status = check!(client).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);

        let start = now();
        let (mut client, _) = $client!(Fault::delay(ms(30)));
        assert_eq!(check!(client).await.unwrap(), ServingStatus::Serving);
        assert!(since(start) >= ms(30));

        let (mut client, handle) = $client!(Fault::hang());
        let mut waiting = Box::pin(check!(client));
        timeout(ms(30), &mut waiting).await.map(drop).unwrap_err();
        handle.stop();
        assert_eq!(waiting.await.unwrap(), ServingStatus::Serving);

        let (mut client, handle) = $client!(Fault::stall_body(0));
        let mut waiting = Box::pin(check!(client));
        timeout(ms(30), &mut waiting).await.map(drop).unwrap_err();
        handle.stop();
        assert_eq!(waiting.await.unwrap(), ServingStatus::Serving);

        let (mut client, _) = $client!(Fault::trickle_body(3, ms(10)));
        assert_eq!(check!(client).await.unwrap(), ServingStatus::Serving);

        let (mut client, _) = $client!(Fault::cut_body(3));
        let code = check!(client).await.unwrap_err().code();
        assert!(
            matches!(code, Code::Unknown | Code::Internal | Code::Unavailable),
            "{code:?}"
        );
    };
}

#[tokio::test]
async fn tonic_sees_each_fault_beneath_it() {
    let channel = well().await;
    macro_rules! client {
        ($fault:expr) => {
            over!(channel.clone(), $fault)
        };
    }
    each_fault_is_seen!(client);

    let made =
        |_: &Request<Body>| -> Answered { Status::new(Code::DataLoss, "made up").into_http() };
    let (mut client, _) = client!(Fault::response(made));
    assert_eq!(check!(client).await.unwrap_err().code(), Code::DataLoss);

    let (mut client, _) = client!(Fault::error(|_: &Request<Body>| Status::aborted("made up")));
    assert_eq!(check!(client).await.unwrap_err().code(), Code::Aborted);

    let (mut client, handle) = client!(Fault::not_ready());
    let mut waiting = Box::pin(check!(client));
    assert!((&mut waiting).now_or_never().is_none());
    handle.stop();
    assert_eq!(waiting.await.unwrap(), ServingStatus::Serving);

    let (mut client, _) = client!(Fault::panic());
    let task = tokio::spawn(async move { check!(client).await });
    assert!(task.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn tonic_sees_each_fault_before_a_server() {
    macro_rules! client {
        ($fault:expr) => {{
            let (channel, handle) = behind($fault).await;
            (HealthClient::new(channel), handle)
        }};
    }
    each_fault_is_seen!(client);

    let (mut client, _) = client!(Fault::panic());
    check!(client).await.unwrap_err();
}

/// A refused or a reset connection is read as a channel's own error is.
#[tokio::test]
async fn connections_fail_as_those_of_a_channel() {
    let request = || Request::new(Body::empty());
    let read = |error: BoxError| {
        let result = Err::<&http::Response<_>, _>(&error);
        let outcome =
            Classify::<http::Response<Body>, BoxError>::classify(&Client::new(), Err(&error));
        let advice =
            Protocol::<http::Response<Body>, BoxError>::advise(&Client::new(), outcome, result);
        (outcome, advice, Status::from_error(error).code())
    };
    let injected = async |fault: Fault| {
        let layer = FaultLayer::builder(REASON)
            .protocol(Client::new())
            .fault(fault)
            .build()
            .unwrap();
        layer.handle().start_for(secs(60));
        let service = layer.layer(well().await);
        let result = tower::ServiceExt::oneshot(service, request()).await;
        read(result.map(drop).unwrap_err())
    };
    let real = async |address| {
        let result = tower::ServiceExt::oneshot(connect(address), request()).await;
        read(result.map(drop).unwrap_err().into())
    };
    let closed = bind().await.1;
    let (incoming, rude) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), ());
    let () = rude;
    let address = incoming.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = incoming.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
        }
    });
    let retry = |sent| Advice::Retry { sent, after: None };
    let refused = (Outcome::Failure, retry(Sent::No), Code::Unavailable);
    assert_eq!(injected(Fault::refused()).await, refused);
    assert_eq!(real(closed).await, refused);
    let reset = injected(Fault::reset()).await;
    assert_eq!((reset.0, reset.1), (Outcome::Failure, retry(Sent::Maybe)));
    assert_eq!(real(address).await, reset);
}
