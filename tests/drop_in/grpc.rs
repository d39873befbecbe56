//! On a tonic server and over a tonic channel: rejections are statuses.

use std::convert::Infallible;

use axum::response::IntoResponse;
use tonic::{
    Code,
    body::Body,
    server::NamedService,
    service::Routes,
    transport::{Channel, Server as TonicServer},
};
use tower::{BoxError, Layer, Service};
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::grpc::{Client, Server},
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
    stack,
    timeout::TimeoutLayer,
};

use super::{
    ONE, SECOND, Trip,
    support::{Echo, Kind, Reply, bind, call, connect, echo::echo_server::EchoServer, serve},
};

type Request = http::Request<Body>;

/// Behind the layer as one around all services, and as one around a service that keeps its name.
async fn behind<L, A, B, R>(make: impl Fn() -> L) -> [(Channel, Echo); 2]
where
    L: Layer<Routes, Service = A> + Layer<EchoServer<Echo>, Service = B>,
    L: Clone + Send + Sync + 'static,
    A: Service<Request, Response = http::Response<R>, Future: Send>,
    A: Clone + Send + 'static,
    A::Error: Into<BoxError> + Send,
    R: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    B: Service<Request, Response: IntoResponse, Error = Infallible, Future: Send> + NamedService,
    B: Clone + Send + Sync + 'static,
{
    let [around, one] = [Echo::default(), Echo::default()];
    let (incoming, address) = bind().await;
    let all = TonicServer::builder()
        .layer(make())
        .add_service(EchoServer::new(around.clone()));
    tokio::spawn(async move { all.serve_with_incoming(incoming).await });
    let (incoming, other) = bind().await;
    let layered = Layer::<EchoServer<Echo>>::layer(&make(), EchoServer::new(one.clone()));
    let single = TonicServer::builder().add_service(layered);
    tokio::spawn(async move { single.serve_with_incoming(incoming).await });
    [(connect(address), around), (connect(other), one)]
}

/// Makes the protection fire, and returns the code and the message.
async fn trip<S, B>(channel: S, echo: &Echo, trip: Trip) -> tonic::Status
where
    S: Service<Request, Response = http::Response<B>, Future: Send> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    let held = match trip {
        Trip::UsedUp => {
            call(channel.clone(), Kind::Unary).await.unwrap();
            None
        }
        Trip::InFlight => {
            echo.script([Reply::Hang]);
            let held = tokio::spawn(call(channel.clone(), Kind::Unary));
            while echo.calls() == 0 {
                tokio::task::yield_now().await;
            }
            Some(held)
        }
        Trip::Hangs => {
            echo.script([Reply::Hang]);
            None
        }
        Trip::Forced => None,
    };
    let status = call(channel, Kind::Unary).await.unwrap_err();
    if let Some(held) = held {
        held.abort();
    }
    status
}

#[tokio::test]
async fn every_layer_protects_a_tonic_server() {
    let protocol = Server::new();
    let limit = || RateLimitLayer::builder(ONE).burst(1);
    let open = || {
        let breaker = CircuitBreakerLayer::builder()
            .protocol(protocol)
            .build()
            .unwrap();
        breaker.handle().force_open();
        breaker
    };
    let stack = || stack::server().grpc().max_in_flight(1).timeout(SECOND / 10);
    let full = Code::ResourceExhausted;
    let cases = [
        (
            "rate limit",
            behind(|| limit().protocol(protocol).build().unwrap()).await,
            Trip::UsedUp,
            full,
        ),
        (
            "bulkhead",
            behind(|| {
                BulkheadLayer::builder(1)
                    .protocol(protocol)
                    .build()
                    .unwrap()
            })
            .await,
            Trip::InFlight,
            full,
        ),
        (
            "circuit breaker",
            behind(open).await,
            Trip::Forced,
            Code::Unavailable,
        ),
        (
            "timeout",
            behind(|| {
                TimeoutLayer::builder(SECOND / 10)
                    .protocol(protocol)
                    .build()
                    .unwrap()
            })
            .await,
            Trip::Hangs,
            Code::DeadlineExceeded,
        ),
        (
            "gates",
            behind(|| GateLayer::new(limit().gate().unwrap()).protocol(protocol)).await,
            Trip::UsedUp,
            full,
        ),
        (
            "stack, timeout",
            behind(|| stack().build().unwrap()).await,
            Trip::Hangs,
            Code::DeadlineExceeded,
        ),
        (
            "stack, rate",
            behind(|| stack().rate(ONE).burst(1).build().unwrap()).await,
            Trip::UsedUp,
            full,
        ),
    ];
    for (layer, servers, how, code) in cases {
        for (place, (channel, echo)) in servers.into_iter().enumerate() {
            let status = trip(channel, &echo, how).await;
            assert_eq!(status.code(), code, "{layer}, server {place}: {status:?}");
        }
    }
}

/// Over a channel, by the kind of its rejection and the code that tonic makes of it.
async fn over<L, B>(name: &str, layer: L, how: Trip, expected: (RejectedKind, Code))
where
    L: Layer<Channel>,
    L::Service: Service<Request, Response = http::Response<B>, Future: Send>,
    L::Service: Clone + Send + 'static,
    <L::Service as Service<Request>>::Error: Into<BoxError> + Send,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    let echo = Echo::default();
    let service = layer.layer(serve(echo.clone()).await);
    let status = trip(service, &echo, how).await;
    let rejected = Rejected::find(&status).expect(name);
    assert_eq!((rejected.kind, status.code()), expected, "{name}");
}

#[tokio::test]
async fn every_layer_protects_a_tonic_channel() {
    let protocol = Client::new();
    let limited = (RejectedKind::RateLimited, Code::ResourceExhausted);
    let full = (RejectedKind::BulkheadFull, Code::ResourceExhausted);
    let late = (RejectedKind::TimedOut, Code::DeadlineExceeded);
    let open = (RejectedKind::CircuitOpen, Code::Unavailable);
    let limit = || RateLimitLayer::builder(ONE).burst(1);
    over(
        "rate limit",
        limit().protocol(protocol).build().unwrap(),
        Trip::UsedUp,
        limited,
    )
    .await;
    let bulkhead = BulkheadLayer::builder(1).protocol(protocol);
    over("bulkhead", bulkhead.build().unwrap(), Trip::InFlight, full).await;
    let breaker = CircuitBreakerLayer::builder()
        .protocol(protocol)
        .build()
        .unwrap();
    breaker.handle().force_open();
    over("circuit breaker", breaker, Trip::Forced, open).await;
    let timeout = TimeoutLayer::builder(SECOND / 10).protocol(protocol);
    over("timeout", timeout.build().unwrap(), Trip::Hangs, late).await;
    let gates = GateLayer::new(limit().gate().unwrap()).protocol(protocol);
    over("gates", gates, Trip::UsedUp, limited).await;
}

#[tokio::test]
async fn a_stack_protects_a_tonic_channel() {
    let echo = Echo::default();
    let channel = serve(echo.clone()).await;
    let protocol = Client::new().idempotent(&["/keep.test.Echo/Unary"]);
    let retry = RetryLayer::builder().protocol(protocol).build().unwrap();
    echo.script([Reply::Fail(tonic::Status::unavailable("once"))]);
    assert!(
        call(retry.layer(channel.clone()), Kind::Unary)
            .await
            .is_ok()
    );
    assert_eq!(echo.calls(), 2);

    let stack = stack::client()
        .grpc(protocol)
        .rate(ONE)
        .burst(3)
        .build()
        .unwrap();
    let service = stack.layer(channel);
    echo.script([Reply::Fail(tonic::Status::unavailable("once"))]);
    assert!(call(service.clone(), Kind::Unary).await.is_ok());
    assert!(call(service.clone(), Kind::Unary).await.is_ok());
    let status = call(service, Kind::Unary).await.unwrap_err();
    let rejected = Rejected::find(&status).unwrap();
    let said = (rejected.kind, status.code());
    assert_eq!(said, (RejectedKind::RateLimited, Code::ResourceExhausted));
    assert_eq!(echo.calls(), 5);
}
