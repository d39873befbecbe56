//! On a tonic server and over a tonic channel: rejections are statuses.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::response::IntoResponse;
use tonic::{
    Code,
    body::Body,
    server::NamedService,
    service::Routes,
    transport::{Channel, Server as TonicServer},
};
use tower::{
    BoxError, Layer, Service,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::{TokenBucket, Vegas},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::{GateLayer, Shadow},
    protocol::grpc::{Client, Server},
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    stack::{self, Changes},
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

use crate::support::{
    Echo, Kind, Reply, bind, call, connect, echo::echo_server::EchoServer, serve,
};

const SECOND: Duration = Duration::from_secs(1);
/// One call, and then none for long.
const ONE: Rate = Rate::per_day(1);

type Request = http::Request<Body>;

/// What makes a layer reject the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trip {
    /// A call before it.
    UsedUp,
    /// A call that is still in flight.
    InFlight,
    /// Nothing: it was forced.
    Forced,
    /// It takes too long itself.
    Hangs,
}

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
    let protocol = Client::new().idempotent(["/keep.test.Echo/Unary"]);
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

#[tokio::test]
async fn the_other_layers_protect_a_tonic_server_too() {
    let protocol = Server::new();
    let key = |_: &Request| Some(7);
    let own = |_: &i32| TokenBucket::new(ONE, 1);
    let limit = || RateLimitLayer::builder(ONE).burst(1).protocol(protocol);
    let bulkhead = || BulkheadLayer::builder(1).protocol(protocol);
    let learning = || bulkhead().adaptive(Vegas::default());
    let breaker = || {
        let breaker = CircuitBreakerLayer::builder().protocol(protocol);
        let breaker = breaker.keyed_by(|_: &Request| None::<i32>).build().unwrap();
        breaker.handle().shared().force_open();
        breaker
    };
    let keyed = behind(|| limit().keyed_by(key).build().unwrap()).await;
    let per_key = behind(|| limit().per_key(key, own).build().unwrap()).await;
    let shares = behind(|| bulkhead().keyed_by(key).build().unwrap()).await;
    let learning = behind(|| learning().build().unwrap()).await;
    let full = Code::ResourceExhausted;
    let cases = [
        ("keyed rate limit", keyed, Trip::UsedUp, full),
        ("per-key rate limit", per_key, Trip::UsedUp, full),
        ("keyed bulkhead", shares, Trip::InFlight, full),
        ("adaptive bulkhead", learning, Trip::InFlight, full),
        (
            "keyed breaker",
            behind(breaker).await,
            Trip::Forced,
            Code::Unavailable,
        ),
    ];
    for (layer, servers, how, code) in cases {
        for (place, (channel, echo)) in servers.into_iter().enumerate() {
            let status = trip(channel, &echo, how).await;
            assert_eq!(status.code(), code, "{layer}, server {place}: {status:?}");
        }
    }
}

#[tokio::test]
async fn a_throttle_sheds_calls_to_an_overloaded_channel() {
    let echo = Echo::default();
    let throttle = ThrottleLayer::builder().protocol(Client::new());
    let throttle = throttle.build().unwrap();
    let service = throttle.layer(serve(echo.clone()).await);
    echo.script((0..100).map(|_| Reply::Fail(tonic::Status::resource_exhausted("busy"))));
    let mut shed = 0;
    for _ in 0..100 {
        let status = call(service.clone(), Kind::Unary).await.unwrap_err();
        let rejected = Rejected::find(&status).map(|rejected| rejected.kind);
        shed += usize::from(rejected == Some(RejectedKind::Throttled));
    }
    assert!((40..=80).contains(&shed), "{shed}");
    assert_eq!(echo.calls(), 100 - shed);
}

#[tokio::test]
async fn a_balancer_over_channels_leaves_a_sick_one_out() {
    let protocol = Client::new().idempotent(["/keep.test.Echo/Unary"]);
    let echoes = [Echo::default(), Echo::default(), Echo::default()];
    echoes[1].script((0..200).map(|_| Reply::Fail(tonic::Status::unavailable("sick"))));
    let mut peers = Vec::new();
    for echo in &echoes {
        let stack = stack::client().grpc(protocol).one_peer();
        let stack = stack.without_retry().without_total_timeout();
        let peer = stack.build().unwrap().layer(serve(echo.clone()).await);
        peers.push(PendingRequests::new(peer, CompleteOnResponse::default()));
    }
    let above = stack::client().grpc(protocol).without_attempt_timeout();
    let above = above.without_circuit_breaker().without_bulkhead();
    let balance = Balance::new(ServiceList::new::<Request>(peers));
    let service = above.build().unwrap().layer(Buffer::new(balance, 16));
    let mut failed = 0;
    for _ in 0..200 {
        failed += usize::from(call(service.clone(), Kind::Unary).await.is_err());
    }
    let sick = echoes[1].calls();
    assert!(failed < 10, "{failed}");
    assert!((8..=40).contains(&sick), "{sick}");
}

/// A new token is fetched for a retry, each attempt is audited, and a rate comes and goes, over
/// real channels and servers.
#[tokio::test]
async fn a_stack_is_changed_and_audited_over_a_channel() {
    let echo = Echo::default();
    let limit = RateLimitLayer::builder(ONE).burst(2).gate().unwrap();
    let trial = Shadow::new(limit, "two");
    let audited = trial.handle();
    let server = stack::server().grpc().max_in_flight(9).build().unwrap();
    let (handle, server) = (server.handle(), server.audit(trial));
    let [(channel, _), (single, one)] = behind(|| server.clone()).await;
    assert!(call(channel, Kind::Unary).await.is_ok());
    handle.update(Changes::new().rate(ONE, 1)).unwrap();
    assert!(call(single.clone(), Kind::Unary).await.is_ok());
    let status = call(single.clone(), Kind::Unary).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    handle.update(Changes::new().without_rate()).unwrap();
    assert!(call(single, Kind::Unary).await.is_ok());
    // What the stack has rejected was not audited.
    assert_eq!((one.calls(), audited.snapshot().calls), (2, 3));
    let would = audited
        .snapshot()
        .would_reject
        .of(RejectedKind::RateLimited);
    assert_eq!(would, 1);

    let fetched = Arc::new(AtomicUsize::new(0));
    let counted = fetched.clone();
    let client = Client::new()
        .idempotent(["/keep.test.Echo/"])
        .before_retry_async(move |mut head: http::request::Parts| {
            counted.fetch_add(1, SeqCst);
            async move {
                tokio::task::yield_now().await;
                head.headers
                    .insert("authorization", "fresh".parse().unwrap());
                head
            }
        });
    let each = Shadow::new(BulkheadLayer::builder(9).gate().unwrap(), "nine");
    let attempts = each.handle();
    let stack = stack::client().grpc(client).build().unwrap().audit(each);
    let service = stack.layer(serve(echo.clone()).await);
    echo.script([Reply::Fail(tonic::Status::unavailable("once"))]);
    assert!(call(service, Kind::Unary).await.is_ok());
    let counts = (
        echo.calls(),
        fetched.load(SeqCst),
        attempts.snapshot().calls,
    );
    assert_eq!(counts, (2, 1, 2));
}
