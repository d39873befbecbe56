//! The layers before real tonic servers and channels on loopback, in all four kinds of methods.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use crate::support::{
    Echo, KINDS, Kind, Reply, bind, call, connect, echo,
    echo::{echo_client::EchoClient, echo_server::EchoServer},
    echoed, message, serve,
};
use futures::future::join_all;
use tokio::sync::Notify;
use tonic::{
    Code, Status,
    server::NamedService,
    transport::{Channel, Server as TonicServer},
};
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, ServiceBuilder};
use tower_keep::{
    Outcome, Rejected, RejectedKind,
    bulkhead::{BulkheadHandle, BulkheadLayer},
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    protocol::grpc::{Client, Server, outcome_of},
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn limit_of(calls: u32) -> RateLimitLayer<Server> {
    RateLimitLayer::builder(Rate::new(1, DAY))
        .burst(calls)
        .name("daily")
        .protocol(Server::new())
        .build()
        .unwrap()
}

/// Serves `echo` behind one bulkhead for all services.
async fn serve_behind(layer: BulkheadLayer<Server>, echo: Echo) -> Channel {
    let (incoming, address) = bind().await;
    let server = TonicServer::builder()
        .layer(layer)
        .add_service(EchoServer::new(echo));
    tokio::spawn(server.serve_with_incoming(incoming));
    connect(address)
}

fn bulkhead_of(calls: usize) -> (BulkheadLayer<Server>, BulkheadHandle) {
    let layer = BulkheadLayer::builder(calls)
        .protocol(Server::new())
        .build()
        .unwrap();
    let handle = layer.handle();
    (layer, handle)
}

/// Waits until so many calls have arrived.
async fn arrived(echo: &Echo, calls: usize) {
    while echo.calls() < calls {
        tokio::task::yield_now().await;
    }
}

/// Waits until the server has let go of all calls: it does so after the client has seen their ends.
async fn idle(handle: &BulkheadHandle) {
    while handle.snapshot().in_flight > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn all_kinds_pass_through_whole_stacks() {
    let echo = Echo::default();
    let (bulkhead, in_flight) = bulkhead_of(10);
    let (incoming, address) = bind().await;
    let server = TonicServer::builder()
        .layer(limit_of(100))
        .layer(bulkhead)
        .layer(
            TimeoutLayer::builder(DAY)
                .protocol(Server::new())
                .build()
                .unwrap(),
        )
        .add_service(EchoServer::new(echo.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));

    let client = Client::new();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(client)
        .build()
        .unwrap();
    let handle = breaker.handle();
    let stack = ServiceBuilder::new()
        .layer(TimeoutLayer::builder(DAY).protocol(client).build().unwrap())
        .layer(RetryLayer::builder().protocol(client).build().unwrap())
        .layer(breaker)
        .layer(
            RateLimitLayer::builder(Rate::per_second(1000))
                .protocol(client)
                .build()
                .unwrap(),
        )
        .layer(BulkheadLayer::builder(10).protocol(client).build().unwrap())
        .layer(TimeoutLayer::builder(DAY).protocol(client).build().unwrap())
        .service(connect(address));

    for kind in KINDS {
        assert_eq!(
            call(stack.clone(), kind).await.unwrap(),
            echoed(kind),
            "{kind:?}"
        );
    }
    assert_eq!(echo.calls(), 4);
    assert_eq!(handle.snapshot().counts.successes, 4);
    idle(&in_flight).await;
}

#[tokio::test]
async fn a_client_circuit_opens_by_the_status_of_each_kind() {
    let down = Status::unavailable("down");
    let at_once = Reply::Fail(down.clone());
    let later = [
        at_once.clone(),
        Reply::FailAfterHead(down.clone()),
        Reply::FailAfterMessage(down),
    ];
    for kind in KINDS {
        let streams = matches!(kind, Kind::ServerStream | Kind::Bidirectional);
        for reply in &later[..if streams { 3 } else { 1 }] {
            let echo = Echo::default();
            echo.script([reply.clone()]);
            let breaker = CircuitBreakerLayer::builder()
                .min_calls(1)
                .protocol(Client::new())
                .build()
                .unwrap();
            let service = breaker.layer(serve(echo).await);
            let status = call(service.clone(), kind).await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unavailable, "down")
            );
            assert_eq!(
                breaker.handle().state(),
                BreakerState::Open,
                "{kind:?} {reply:?}"
            );

            let status = call(service, kind).await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unavailable, "circuit open")
            );
            let rejected = Rejected::find(&status).unwrap();
            assert_eq!(rejected.kind, RejectedKind::CircuitOpen);
            assert!(rejected.retry_after.is_some());
        }
    }
}

#[tokio::test]
async fn caller_faults_do_not_open_a_clients_circuit() {
    let echo = Echo::default();
    let faults = [
        Status::invalid_argument(""),
        Status::not_found(""),
        Status::already_exists(""),
        Status::permission_denied(""),
        Status::failed_precondition(""),
        Status::aborted(""),
        Status::out_of_range(""),
        Status::unimplemented(""),
        Status::unauthenticated(""),
        Status::cancelled(""),
    ];
    echo.script(faults.clone().map(Reply::Fail));
    let breaker = CircuitBreakerLayer::builder()
        .min_calls(1)
        .protocol(Client::new())
        .build()
        .unwrap();
    let service = breaker.layer(serve(echo).await);
    for fault in &faults {
        let status = call(service.clone(), Kind::Unary).await.unwrap_err();
        assert_eq!(status.code(), fault.code());
    }
    let counts = breaker.handle().snapshot().counts;
    assert_eq!((counts.successes, counts.failures), (9, 0));
}

#[tokio::test]
async fn a_server_rejects_with_code_message_and_pushback() {
    let (incoming, address) = bind().await;
    let layer = RateLimitLayer::builder(Rate::new(1, Duration::from_secs(10)))
        .name("größe 100%")
        .protocol(Server::new())
        .build()
        .unwrap();
    let server = TonicServer::builder()
        .layer(layer)
        .add_service(EchoServer::new(Echo::default()));
    tokio::spawn(server.serve_with_incoming(incoming));
    let channel = connect(address);
    call(channel.clone(), Kind::Unary).await.unwrap();

    for kind in KINDS {
        let status = call(channel.clone(), kind).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{kind:?}");
        assert_eq!(status.message(), "rate limit exceeded (größe 100%)");
        let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
        let millis: u64 = pushback.to_str().unwrap().parse().unwrap();
        assert!((9_000..=10_000).contains(&millis), "{millis}");
    }
}

#[tokio::test]
async fn rejections_on_the_wire_are_trailers_only() {
    let (incoming, address) = bind().await;
    let server = TonicServer::builder()
        .layer(limit_of(1))
        .add_service(EchoServer::new(Echo::default()));
    tokio::spawn(server.serve_with_incoming(incoming));
    let channel = connect(address);
    call(channel.clone(), Kind::Unary).await.unwrap();

    let uri = format!("http://{address}/keep.test.Echo/Unary");
    let request = http::Request::post(uri)
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = tower::ServiceExt::oneshot(channel, request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(http_body::Body::is_end_stream(response.body()));
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "8");
    assert_eq!(
        response.headers()["grpc-message"],
        "rate%20limit%20exceeded%20(daily)"
    );
}

#[tokio::test]
async fn one_limit_holds_for_all_services_and_connections() {
    let (incoming, address) = bind().await;
    let (_, health) = tonic_health::server::health_reporter();
    let server = TonicServer::builder()
        .layer(limit_of(3))
        .add_service(EchoServer::new(Echo::default()))
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));

    let calls = (0..12).map(|n| async move {
        // A connection each.
        if n % 2 == 0 {
            call(connect(address), Kind::Unary).await.is_ok()
        } else {
            let mut health = HealthClient::new(connect(address));
            health
                .check(tonic_health::pb::HealthCheckRequest::default())
                .await
                .is_ok()
        }
    });
    let admitted = join_all(calls).await.into_iter().filter(|&ok| ok).count();
    assert_eq!(admitted, 3);
}

#[tokio::test]
async fn a_layered_service_keeps_its_name() {
    let echo = Echo::default();
    let limited = limit_of(3).layer(EchoServer::new(echo.clone()));
    let (bulkhead, _) = bulkhead_of(10);
    let named = bulkhead.layer(limited);
    fn name<S: NamedService>(_: &S) -> &'static str {
        S::NAME
    }
    assert_eq!(name(&named), "keep.test.Echo");

    let (incoming, address) = bind().await;
    let (_, health) = tonic_health::server::health_reporter();
    let server = TonicServer::builder()
        .add_service(named)
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));
    let mut admitted = 0;
    for _ in 0..3 {
        for kind in KINDS {
            admitted += usize::from(call(connect(address), kind).await.is_ok());
        }
        // The other service is not limited.
        let mut health = HealthClient::new(connect(address));
        health
            .check(tonic_health::pb::HealthCheckRequest::default())
            .await
            .unwrap();
    }
    assert_eq!((admitted, echo.calls()), (3, 3));
}

#[tokio::test]
async fn a_server_bulkhead_counts_a_stream_until_its_end() {
    for kind in KINDS {
        let echo = Echo::default();
        let release = Arc::new(Notify::new());
        echo.script([Reply::Hold(release.clone())]);
        let (layer, handle) = bulkhead_of(1);
        let channel = serve_behind(layer, echo.clone()).await;

        let held = tokio::spawn(call(channel.clone(), kind).into_future());
        arrived(&echo, 1).await;
        assert_eq!(handle.snapshot().in_flight, 1, "{kind:?}");
        let status = call(channel.clone(), kind).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::ResourceExhausted, "bulkhead full")
        );
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms"), None);

        release.notify_one();
        held.await.unwrap().unwrap();
        idle(&handle).await;
        assert_eq!(call(channel, kind).await.unwrap(), echoed(kind));
        assert_eq!(echo.calls(), 2);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_the_servers_bulkhead() {
    let echo = Echo::default();
    echo.script([Reply::Hang, Reply::Hang]);
    let (layer, handle) = bulkhead_of(1);
    let channel = serve_behind(layer, echo.clone()).await;
    for (kind, calls) in [(Kind::Unary, 1), (Kind::ServerStream, 2)] {
        let hung = tokio::spawn(call(channel.clone(), kind).into_future());
        arrived(&echo, calls).await;
        assert_eq!(handle.snapshot().in_flight, 1);
        hung.abort();
        idle(&handle).await;
    }
}

#[tokio::test]
async fn a_client_bulkhead_counts_a_stream_until_its_end() {
    let echo = Echo::default();
    let layer = BulkheadLayer::builder(1)
        .name("echo")
        .protocol(Client::new())
        .build()
        .unwrap();
    let service = layer.layer(serve(echo).await);
    let mut client = EchoClient::new(service.clone());
    let mut stream = client
        .server_stream(message("a"))
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap().unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 1);

    let status = call(service.clone(), Kind::Unary).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "bulkhead full")
    );
    let rejected = Rejected::find(&status).unwrap();
    assert_eq!(
        (rejected.kind, rejected.name),
        (RejectedKind::BulkheadFull, Some("echo"))
    );

    while stream.message().await.unwrap().is_some() {}
    assert_eq!(layer.handle().snapshot().in_flight, 0);
    call(service, Kind::Unary).await.unwrap();
}

#[tokio::test]
async fn a_client_rate_limit_is_resource_exhausted() {
    let echo = Echo::default();
    let layer = RateLimitLayer::builder(Rate::new(1, DAY))
        .protocol(Client::new())
        .build()
        .unwrap();
    let service = layer.layer(serve(echo.clone()).await);
    call(service.clone(), Kind::Unary).await.unwrap();
    for kind in KINDS {
        let status = call(service.clone(), kind).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{kind:?}");
        let rejected = Rejected::find(&status).unwrap();
        assert_eq!(rejected.kind, RejectedKind::RateLimited);
    }
    assert_eq!(echo.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_timeout_is_deadline_exceeded() {
    let echo = Echo::default();
    let channel = serve(echo.clone()).await;
    // Connected, so that only the timer can be what wakes the clock.
    call(channel.clone(), Kind::Unary).await.unwrap();
    echo.script([Reply::Hang]);
    let layer = TimeoutLayer::builder(Duration::from_secs(1))
        .protocol(Client::new())
        .build()
        .unwrap();
    let status = call(layer.layer(channel), Kind::Unary).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DeadlineExceeded, "timed out")
    );
    let rejected = Rejected::find(&status).unwrap();
    assert_eq!(rejected.kind, RejectedKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_server_timeout_is_deadline_exceeded() {
    let echo = Echo::default();
    echo.script([Reply::Hang]);
    let layer = TimeoutLayer::builder(Duration::from_secs(1))
        .protocol(Server::new())
        .build()
        .unwrap();
    let (incoming, address) = bind().await;
    let server = TonicServer::builder().add_service(layer.layer(EchoServer::new(echo)));
    tokio::spawn(server.serve_with_incoming(incoming));
    let status = call(connect(address), Kind::Unary).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DeadlineExceeded, "timed out")
    );
}

#[tokio::test(start_paused = true)]
async fn tonics_own_timeout_is_cancelled() {
    let counted: fn(Code) -> Outcome = |code| match code {
        Code::Cancelled => Outcome::Failure,
        code => outcome_of(code),
    };
    for (classify, state) in [
        (outcome_of as fn(Code) -> Outcome, BreakerState::Closed),
        (counted, BreakerState::Open),
    ] {
        let echo = Echo::default();
        echo.script([Reply::Hang]);
        let (incoming, address) = bind().await;
        let server = TonicServer::builder()
            .timeout(Duration::from_secs(1))
            .add_service(EchoServer::new(echo));
        tokio::spawn(server.serve_with_incoming(incoming));

        let layer = CircuitBreakerLayer::builder()
            .min_calls(1)
            .protocol(Client::new().classify_code(classify))
            .build()
            .unwrap();
        let service = layer.layer(connect(address));
        let status = call(service, Kind::Unary).await.unwrap_err();
        // The guide warns of it.
        assert_eq!(status.code(), Code::Cancelled);
        assert_eq!(layer.handle().state(), state);
    }
}

#[tokio::test]
async fn a_server_circuit_opens_by_its_handlers_statuses() {
    let echo = Echo::default();
    echo.script([Reply::FailAfterMessage(Status::internal("bug"))]);
    let breaker = CircuitBreakerLayer::builder()
        .min_calls(1)
        .protocol(Server::new())
        .build()
        .unwrap();
    let handle = breaker.handle();
    let (incoming, address) = bind().await;
    let server = TonicServer::builder()
        .layer(breaker)
        .add_service(EchoServer::new(echo.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));

    let status = call(connect(address), Kind::ServerStream)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(handle.state(), BreakerState::Open);
    let status = call(connect(address), Kind::Unary).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "circuit open")
    );
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
    assert_eq!(echo.calls(), 1);
}

#[tokio::test]
async fn a_handler_may_pass_a_rejection_of_its_client_on() {
    /// Answers with what its own client is told.
    struct Relay(tower_keep::bulkhead::Bulkhead<Channel, Client>);

    #[tonic::async_trait]
    impl echo::echo_server::Echo for Relay {
        type ServerStreamStream = tonic::Streaming<echo::Message>;
        type BidirectionalStream = tonic::Streaming<echo::Message>;

        async fn unary(
            &self,
            request: tonic::Request<echo::Message>,
        ) -> Result<tonic::Response<echo::Message>, Status> {
            EchoClient::new(self.0.clone()).unary(request).await
        }

        async fn server_stream(
            &self,
            _: tonic::Request<echo::Message>,
        ) -> Result<tonic::Response<Self::ServerStreamStream>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn client_stream(
            &self,
            _: tonic::Request<tonic::Streaming<echo::Message>>,
        ) -> Result<tonic::Response<echo::Message>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn bidirectional(
            &self,
            _: tonic::Request<tonic::Streaming<echo::Message>>,
        ) -> Result<tonic::Response<Self::BidirectionalStream>, Status> {
            Err(Status::unimplemented(""))
        }
    }

    let upstream = Echo::default();
    let release = Arc::new(Notify::new());
    upstream.script([Reply::Hold(release.clone())]);
    let bulkhead = BulkheadLayer::builder(1)
        .protocol(Client::new())
        .build()
        .unwrap();
    let relay = Relay(bulkhead.layer(serve(upstream.clone()).await));
    let (incoming, address) = bind().await;
    let server = TonicServer::builder().add_service(EchoServer::new(relay));
    tokio::spawn(server.serve_with_incoming(incoming));

    let held = tokio::spawn(call(connect(address), Kind::Unary).into_future());
    arrived(&upstream, 1).await;
    let status = call(connect(address), Kind::Unary).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "bulkhead full")
    );
    release.notify_one();
    held.await.unwrap().unwrap();
}
