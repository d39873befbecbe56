//! The layers where users put them: straight onto an axum `Router`, onto a hyper-util client, and
//! under `BoxError`.

use std::{convert::Infallible, future::IntoFuture, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    protocol::{Plain, http as keep_http},
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

const SECOND: Duration = Duration::from_secs(1);

fn server() -> keep_http::Server {
    keep_http::Server::new()
}

fn client() -> keep_http::Client {
    keep_http::Client::new()
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

fn get_request(address: SocketAddr) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{address}/"))
        .body(Empty::new())
        .unwrap()
}

fn to_router() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_layer_goes_straight_onto_a_router() {
    let router = Router::new()
        .route("/", get(async || "hello"))
        .layer(
            TimeoutLayer::builder(SECOND)
                .protocol(server())
                .build()
                .unwrap(),
        )
        .layer(
            BulkheadLayer::builder(10)
                .protocol(server())
                .build()
                .unwrap(),
        )
        .layer(
            CircuitBreakerLayer::builder()
                .protocol(server())
                .build()
                .unwrap(),
        )
        .layer(
            RateLimitLayer::builder(Rate::per_second(10))
                .protocol(server())
                .build()
                .unwrap(),
        );
    assert_eq!(
        router.oneshot(to_router()).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_layer_under_a_service_builder_goes_onto_a_router() {
    let stack = ServiceBuilder::new()
        .layer(
            RateLimitLayer::builder(Rate::per_second(10))
                .protocol(server())
                .build()
                .unwrap(),
        )
        .layer(
            BulkheadLayer::builder(10)
                .protocol(server())
                .build()
                .unwrap(),
        );
    let router = Router::new().route("/", get(async || "hello")).layer(stack);
    assert_eq!(
        router.oneshot(to_router()).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn clones_of_a_router_share_one_limit_over_all_routes() {
    let limit = RateLimitLayer::builder(Rate::per_minute(1))
        .burst(2)
        .protocol(server())
        .build()
        .unwrap();
    let router = Router::new()
        .route("/", get(async || "a"))
        .route("/b", get(async || "b"))
        .layer(limit);
    let mut statuses = Vec::new();
    for path in ["/", "/b", "/", "/b"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        statuses.push(
            router
                .clone()
                .oneshot(request)
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[tokio::test]
async fn a_rejected_request_is_told_when_to_come_back() {
    let limit = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(1)
        .name("api")
        .protocol(server())
        .build()
        .unwrap();
    let router = Router::new().route("/", get(async || "hello")).layer(limit);
    let address = serve(router).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    assert_eq!(
        client.request(get_request(address)).await.unwrap().status(),
        StatusCode::OK
    );
    let response = client.request(get_request(address)).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[RETRY_AFTER], "30");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn all_five_go_onto_a_hyper_client() {
    let address = serve(Router::new().route("/", get(async || "hello"))).await;
    let stack = ServiceBuilder::new()
        .layer(
            TimeoutLayer::builder(10 * SECOND)
                .protocol(client())
                .build()
                .unwrap(),
        )
        .layer(RetryLayer::builder().protocol(client()).build().unwrap())
        .layer(
            CircuitBreakerLayer::builder()
                .protocol(client())
                .build()
                .unwrap(),
        )
        .layer(
            RateLimitLayer::builder(Rate::per_second(100))
                .protocol(client())
                .build()
                .unwrap(),
        )
        .layer(
            BulkheadLayer::builder(10)
                .protocol(client())
                .build()
                .unwrap(),
        )
        .layer(
            TimeoutLayer::builder(SECOND)
                .protocol(client())
                .build()
                .unwrap(),
        );
    let mut client = stack.service(Client::builder(TokioExecutor::new()).build_http());
    let response = client
        .ready()
        .await
        .unwrap()
        .call(get_request(address))
        .await
        .unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
}

#[tokio::test]
async fn each_goes_onto_a_hyper_client_alone() {
    async fn check<S>(mut service: S, address: SocketAddr)
    where
        S: Service<
                Request<Empty<Bytes>>,
                Response = Response<hyper::body::Incoming>,
                Error = BoxError,
            >,
    {
        let response = service
            .ready()
            .await
            .unwrap()
            .call(get_request(address))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    let address = serve(Router::new().route("/", get(async || "hello"))).await;
    let plain = Client::builder(TokioExecutor::new()).build_http();
    check(
        RateLimitLayer::builder(Rate::per_second(1))
            .protocol(client())
            .build()
            .unwrap()
            .layer(plain.clone()),
        address,
    )
    .await;
    check(
        BulkheadLayer::builder(1)
            .protocol(client())
            .build()
            .unwrap()
            .layer(plain.clone()),
        address,
    )
    .await;
    check(
        CircuitBreakerLayer::builder()
            .protocol(client())
            .build()
            .unwrap()
            .layer(plain.clone()),
        address,
    )
    .await;
    check(
        TimeoutLayer::builder(SECOND)
            .protocol(client())
            .build()
            .unwrap()
            .layer(plain),
        address,
    )
    .await;
    let replaying = Client::builder(TokioExecutor::new()).build_http();
    check(
        RetryLayer::builder()
            .protocol(client())
            .build()
            .unwrap()
            .layer(replaying),
        address,
    )
    .await;
}

#[tokio::test]
async fn all_five_stack_over_any_service_as_box_errors() {
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::builder(SECOND).build().unwrap())
        .layer(
            RetryLayer::builder()
                .protocol(Plain::new().idempotent())
                .build()
                .unwrap(),
        )
        .layer(
            CircuitBreakerLayer::builder()
                .protocol(Plain::new())
                .build()
                .unwrap(),
        )
        .layer(
            RateLimitLayer::builder(Rate::per_second(1))
                .build()
                .unwrap(),
        )
        .layer(BulkheadLayer::builder(1).build().unwrap())
        .service(service_fn(async |n: u32| Ok::<_, Infallible>(n)));
    let mut boxed = service.boxed_clone();
    assert_eq!(boxed.ready().await.unwrap().call(1).await.unwrap(), 1);
    let error = boxed.ready().await.unwrap().call(2).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::RateLimited
    );
}

#[tokio::test(start_paused = true)]
async fn inner_timeouts_open_the_circuit_but_rejections_not() {
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(2)
        .build()
        .unwrap();
    let handle = breaker.handle();
    let mut full = ServiceBuilder::new()
        .layer(breaker)
        .layer(
            RateLimitLayer::builder(Rate::per_day(1))
                .burst(1)
                .build()
                .unwrap(),
        )
        .service(service_fn(async |()| Ok::<_, Infallible>(())));
    for _ in 0..10 {
        let _ = full.ready().await.unwrap().call(()).await;
    }
    assert_eq!(
        (
            handle.snapshot().counts.successes,
            handle.snapshot().counts.failures
        ),
        (1, 0)
    );

    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(2)
        .build()
        .unwrap();
    let handle = breaker.handle();
    let mut hung = ServiceBuilder::new()
        .layer(breaker)
        .layer(TimeoutLayer::builder(SECOND).build().unwrap())
        .service(service_fn(async |()| {
            std::future::pending::<Result<(), Infallible>>().await
        }));
    for _ in 0..2 {
        hung.ready().await.unwrap().call(()).await.unwrap_err();
    }
    assert_eq!(
        handle.snapshot().counts.total(),
        0,
        "the circuit opened, and its window is empty"
    );
    assert_eq!(
        handle.state(),
        tower_keep::circuit_breaker::BreakerState::Open
    );
}

#[tokio::test]
async fn an_inner_rejection_opens_no_servers_circuit() {
    let breaker = CircuitBreakerLayer::builder()
        .min_calls(2)
        .protocol(server())
        .build()
        .unwrap();
    let handle = breaker.handle();
    let router = Router::new()
        .route("/", get(async || "hello"))
        .layer(
            RateLimitLayer::builder(Rate::per_day(1))
                .burst(1)
                .protocol(server())
                .build()
                .unwrap(),
        )
        .layer(breaker);
    for _ in 0..5 {
        router.clone().oneshot(to_router()).await.unwrap();
    }
    assert_eq!(
        (
            handle.snapshot().counts.successes,
            handle.snapshot().counts.failures
        ),
        (1, 0)
    );
}
