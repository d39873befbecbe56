//! Backups: a value, a service that gets what has failed, and one that gets what was rejected.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::support::{Ask, Probe, ProbeError};
use tower_keep::{
    Outcome, Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerLayer},
    fallback::{FallbackLayer, PrimaryError, SpilloverLayer},
    protocol::{
        Plain,
        http::{Client, ReplayBody, Server},
    },
    rate_limit::{Rate, RateLimitLayer},
};

/// A body that is not `Clone`, in two frames.
type Upload = UnsyncBoxBody<Bytes, Infallible>;

fn upload(method: Method) -> Request<Upload> {
    let frames = ["all ", "of it"].map(|piece| Ok(http_body::Frame::data(Bytes::from(piece))));
    let body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
    Request::builder().method(method).body(body).unwrap()
}

/// Answers 503 after it has read so many frames.
async fn busy_after<B>(frames: usize, request: Request<B>) -> Result<Response<String>, BoxError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut body = request.into_body();
    for _ in 0..frames {
        let _ = body.frame().await;
    }
    drop(body);
    let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
    Ok(response.body("busy".into())?)
}

/// Answers what it was sent.
async fn echo<B>(request: Request<B>) -> Result<Response<String>, BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let body = request.into_body().collect().await.map_err(Into::into)?;
    Ok(Response::new(String::from_utf8(body.to_bytes().into())?))
}

fn forced_open<P: Clone>(protocol: P) -> (CircuitBreakerLayer<P>, CircuitBreakerHandle) {
    let builder = CircuitBreakerLayer::builder().protocol(protocol);
    let layer = builder.build().unwrap();
    let handle = layer.handle();
    handle.force_open();
    (layer, handle)
}

#[tokio::test]
async fn a_value_answers_for_every_failure() {
    let layer = FallbackLayer::value("stale")
        .protocol(Plain::new())
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |n: u32| match n {
        0 => Err(io::Error::other("down")),
        _ => Ok("fresh"),
    }));
    assert_eq!(service.clone().oneshot(1).await.unwrap(), "fresh");
    assert_eq!(service.oneshot(0).await.unwrap(), "stale");
    assert_eq!(layer.handle().snapshot().failures, 1);
}

#[tokio::test]
async fn a_predicate_chooses_the_failures() {
    let layer = FallbackLayer::value("stale")
        .when(|failure: Result<&&str, &BoxError>| {
            failure.is_err_and(|error| error.to_string() != "broken")
        })
        .protocol(Plain::new())
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |why: &'static str| {
        Err::<&str, _>(io::Error::other(why))
    }));
    assert_eq!(service.clone().oneshot("down").await.unwrap(), "stale");
    assert_eq!(
        service.oneshot("broken").await.unwrap_err().to_string(),
        "broken"
    );
    assert_eq!(layer.handle().snapshot().answered, 1);
}

#[tokio::test]
async fn a_backup_gets_the_whole_body_after_a_partial_read() {
    let layer = FallbackLayer::service(service_fn(echo::<ReplayBody<Upload>>))
        .protocol(Client::new())
        .build()
        .unwrap();
    for frames in 0..3 {
        let primary = service_fn(move |request| busy_after::<ReplayBody<Upload>>(frames, request));
        let response = layer.layer(primary).oneshot(upload(Method::PUT)).await;
        let response = response.unwrap();
        assert_eq!(response.body(), "all of it", "{frames}");
        let primary: &PrimaryError = response.extensions().get().unwrap();
        assert_eq!(primary.outcome, Outcome::Failure);
        assert_eq!(primary.message, "503 Service Unavailable");
    }
}

#[tokio::test]
async fn a_request_with_possible_effects_goes_to_no_backup() {
    let layer = FallbackLayer::service(service_fn(echo::<ReplayBody<Upload>>))
        .protocol(Client::new())
        .build()
        .unwrap();
    let primary = service_fn(|request| busy_after::<ReplayBody<Upload>>(2, request));
    let response = layer.layer(primary).oneshot(upload(Method::POST)).await;
    assert_eq!(response.unwrap().body(), "busy");

    let (breaker, _) = forced_open(Client::new());
    let primary = breaker.layer(service_fn(|request| {
        busy_after::<ReplayBody<Upload>>(2, request)
    }));
    let response = layer.layer(primary).oneshot(upload(Method::POST)).await;
    let response = response.unwrap();
    assert_eq!(response.body(), "all of it", "it was rejected unsent");
    let primary: &PrimaryError = response.extensions().get().unwrap();
    assert_eq!(primary.rejected, Some(RejectedKind::CircuitOpen));
    assert_eq!(layer.handle().snapshot().rejections, 1);
}

#[tokio::test]
async fn the_failure_is_returned_if_the_backup_is_not_ready() {
    let (primary, backup) = (Probe::new(), Probe::new());
    let layer = FallbackLayer::service(backup.clone())
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let service = layer.layer(primary);
    let error = |result: Result<(), BoxError>| result.unwrap_err().is::<ProbeError>();
    assert!(service.clone().oneshot(Ask::Succeed).await.is_ok());
    // The backup is asked the same.
    assert!(error(service.clone().oneshot(Ask::Fail).await));
    assert_eq!((backup.calls(), backup.unready_calls()), (1, 0));
    backup.break_down();
    assert!(error(service.oneshot(Ask::Fail).await));
    assert_eq!(backup.calls(), 1);
    assert_eq!(layer.handle().snapshot().failed, 2);
}

#[tokio::test]
async fn a_backup_is_called_once_it_is_ready() {
    let (primary, backup) = (Probe::new(), Probe::new());
    backup.hang_readiness(true);
    primary.script([Ask::Fail]);
    let layer = FallbackLayer::service(backup.clone())
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let mut call = pin!(layer.layer(primary.clone()).oneshot(Ask::Succeed));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    assert_eq!((primary.calls(), backup.calls()), (1, 0));
    backup.hang_readiness(false);
    assert!(matches!(call.poll(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!((backup.calls(), backup.unready_calls()), (1, 0));
}

/// Not `Clone`, as the test below needs no more than that.
struct Order(u32);

async fn later(order: Order) -> Result<u32, io::Error> {
    Ok(order.0 + 1000)
}

async fn now(order: Order) -> Result<u32, io::Error> {
    match order.0 {
        0 => Err(io::Error::other("no such order")),
        number => Ok(number),
    }
}

#[tokio::test]
async fn a_rejected_request_itself_goes_to_the_backup() {
    let (breaker, circuit) = forced_open(Plain::new());
    let layer = SpilloverLayer::builder(breaker, service_fn(later))
        .name("spilling")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(now));
    assert_eq!(service.clone().oneshot(Order(7)).await.unwrap(), 1007);
    circuit.close();
    assert_eq!(service.clone().oneshot(Order(7)).await.unwrap(), 7);
    assert!(service.oneshot(Order(0)).await.is_err(), "it was sent");
    let counts = layer.handle().snapshot();
    assert_eq!((counts.rejections, counts.answered), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_in_vain_goes_to_the_backup() {
    let bulkhead = BulkheadLayer::builder(1)
        .max_waiting(1)
        .max_wait(Duration::from_millis(50))
        .protocol(Plain::new())
        .build()
        .unwrap();
    let handle = bulkhead.handle();
    let hangs = service_fn(async |_: Order| std::future::pending::<Result<u32, io::Error>>().await);
    let service = SpilloverLayer::builder(bulkhead, service_fn(later)).build();
    let service = service.unwrap().layer(hangs);
    let mut running = pin!(service.clone().oneshot(Order(1)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(running.as_mut().poll(&mut cx).is_pending());
    // One waits, and one does not even get that far.
    let calls = (
        service.clone().oneshot(Order(2)),
        service.clone().oneshot(Order(3)),
    );
    let (second, third) = tokio::join!(calls.0, calls.1);
    assert_eq!((second.unwrap(), third.unwrap()), (1002, 1003));
    let now = handle.snapshot();
    assert_eq!((now.in_flight, now.waiting), (1, 0));
}

#[tokio::test]
async fn only_the_rejections_that_are_accepted_spill_over() {
    let (breaker, _) = forced_open(Plain::new());
    let layer = SpilloverLayer::builder(breaker, service_fn(later));
    let full = |rejected: &Rejected| rejected.kind == RejectedKind::BulkheadFull;
    for layer in [layer.clone().when(full), layer.enabled(false)] {
        let layer = layer.build().unwrap();
        let error = layer.layer(service_fn(now)).oneshot(Order(7)).await;
        let error = error.unwrap_err();
        assert_eq!(
            Rejected::find(&*error).unwrap().kind,
            RejectedKind::CircuitOpen
        );
        assert_eq!(layer.handle().snapshot().rejections, 0);
    }
}

#[tokio::test]
async fn a_backup_for_rejections_is_polled_for_readiness() {
    let (breaker, _) = forced_open(Plain::new());
    let (primary, backup) = (Probe::new(), Probe::new());
    backup.hang_readiness(true);
    let service = SpilloverLayer::builder(breaker, backup.clone()).build();
    let service = service.unwrap().layer(primary.clone());
    let mut call = pin!(service.clone().oneshot(Ask::Succeed));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    assert_eq!(backup.calls(), 0);
    backup.hang_readiness(false);
    assert!(matches!(call.poll(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!((backup.calls(), backup.unready_calls()), (1, 0));
    assert_eq!(primary.calls(), 0);
    backup.break_down();
    let error = service.oneshot(Ask::Succeed).await.unwrap_err();
    assert!(error.is::<ProbeError>());
}

#[tokio::test]
async fn a_server_spills_over_in_place_of_a_429() {
    let limit = RateLimitLayer::builder(Rate::per_minute(1))
        .burst(1)
        .protocol(Server::new())
        .build()
        .unwrap();
    let layer = SpilloverLayer::builder(
        limit,
        service_fn(async |request: Request<Full<Bytes>>| {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        }),
    );
    let layer = layer.build().unwrap();
    let service = layer.layer(service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(Response::new(Full::default()))
    }));
    let request = || Request::new(Full::new(Bytes::from("asked")));
    let first = service.clone().oneshot(request()).await.unwrap();
    assert!(first.extensions().get::<PrimaryError>().is_none());
    let second = service.oneshot(request()).await.unwrap();
    let primary: &PrimaryError = second.extensions().get().unwrap();
    assert_eq!(primary.rejected, Some(RejectedKind::RateLimited));
    assert_eq!(
        second.into_body().collect().await.unwrap().to_bytes(),
        "asked"
    );
}
