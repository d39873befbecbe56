//! What HTTP answers mean to a circuit breaker: by status, and at the end of a body.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Outcome,
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerHandle, CircuitBreakerLayer},
    protocol::http::{Client, Server, UntilBodyEnd},
};

type Reply = Result<Response<BoxBody<Bytes, io::Error>>, io::Error>;

fn status(status: u16) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// What the window holds after one call that is answered so.
async fn counted(reply: Result<u16, ()>) -> (u64, u64) {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Client::new())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(move |_: Request<()>| async move {
        reply
            .map(status)
            .map_err(|()| io::Error::from(io::ErrorKind::ConnectionRefused))
    }));
    let _ = service.ready().await.unwrap().call(Request::new(())).await;
    let counts = layer.handle().snapshot().counts;
    (counts.successes, counts.failures)
}

#[tokio::test(start_paused = true)]
async fn status_5xx_and_refusals_fail_and_4xx_succeed() {
    for good in [200, 204, 301, 400, 401, 403, 404, 409, 422] {
        assert_eq!(counted(Ok(good)).await, (1, 0), "{good}");
    }
    for bad in [429, 500, 502, 503, 504] {
        assert_eq!(counted(Ok(bad)).await, (0, 1), "{bad}");
    }
    assert_eq!(counted(Err(())).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_lengthens_the_open_time() {
    let layer = CircuitBreakerLayer::builder()
        .min_calls(1)
        .open_for(Duration::from_secs(5))
        .jitter(false)
        .protocol(Client::new())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |_: Request<()>| {
        let mut response = status(503);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("20"));
        Ok::<_, Infallible>(response)
    }));
    service
        .ready()
        .await
        .unwrap()
        .call(Request::new(()))
        .await
        .unwrap();
    assert_eq!(
        layer.handle().snapshot().until_half_open,
        Some(Duration::from_secs(20))
    );
}

/// Calls once with a body of `frames`; hands out the body and the circuit, which one failure opens.
async fn tracked(
    frames: Vec<Result<Frame<Bytes>, io::Error>>,
) -> (
    impl BodyExt<Error = io::Error> + Unpin,
    CircuitBreakerHandle,
) {
    let grpc = |trailers: &HeaderMap| match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
        None | Some(b"0") => Outcome::Success,
        Some(b"8") => Outcome::Overload,
        Some(_) => Outcome::Failure,
    };
    let protocol = UntilBodyEnd::new(Client::new()).trailers(grpc);
    let layer = CircuitBreakerLayer::builder()
        .min_calls(1)
        .slow_calls(Duration::from_secs(1), 1.0)
        .protocol(protocol)
        .build()
        .unwrap();
    let mut frames = Some(frames);
    let mut service = layer.layer(service_fn_once(move || {
        Ok(Response::new(BodyExt::boxed(StreamBody::new(
            stream::iter(frames.take().unwrap()),
        ))))
    }));
    let response = service
        .ready()
        .await
        .unwrap()
        .call(Request::new(()))
        .await
        .unwrap();
    (response.into_body(), layer.handle())
}

/// A service whose answers need not be cloned.
fn service_fn_once(
    reply: impl FnMut() -> Reply + Send + 'static,
) -> impl Service<
    Request<()>,
    Response = Response<BoxBody<Bytes, io::Error>>,
    Error = io::Error,
    Future: Send,
> + Clone {
    let reply = std::sync::Arc::new(std::sync::Mutex::new(reply));
    service_fn(move |_| {
        let reply = (reply.lock().unwrap())();
        async move { reply }
    })
}

fn data(text: &'static str) -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn trailers(status: &'static str) -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::trailers(HeaderMap::from_iter([(
        "grpc-status".parse().unwrap(),
        HeaderValue::from_static(status),
    )])))
}

#[tokio::test(start_paused = true)]
async fn trailers_settle_the_call_and_not_the_head() {
    for (status, state) in [
        ("0", BreakerState::Closed),
        ("14", BreakerState::Open),
        ("8", BreakerState::Open),
    ] {
        let (mut body, handle) = tracked(vec![data("a"), trailers(status)]).await;
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert_eq!(handle.snapshot().counts.total(), 0);
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert_eq!(handle.state(), state, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_ends_at_its_last_frame_without_another_poll() {
    let layer = BulkheadLayer::builder(1)
        .protocol(UntilBodyEnd::new(Client::new()))
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |()| {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("all of it")))
    }));
    let mut response = service.ready().await.unwrap().call(()).await.unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 1);
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_has_failed() {
    let (mut body, handle) =
        tracked(vec![data("a"), Err(io::ErrorKind::ConnectionReset.into())]).await;
    let _ = body.frame().await;
    let _ = body.frame().await;
    assert_eq!(handle.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_body_without_trailers_succeeds_at_its_end() {
    let (body, handle) = tracked(vec![data("a"), data("b")]).await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
    assert_eq!(handle.snapshot().counts.successes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_a_slow_upstream() {
    for seconds in [0, 1, 60] {
        let (mut body, handle) = tracked(vec![data("a"), data("b")]).await;
        let _ = body.frame().await;
        advance(Duration::from_secs(seconds)).await;
        // Neither by a body that is dropped late,
        drop(body);
        assert_eq!(handle.state(), BreakerState::Closed);
        assert_eq!(handle.snapshot().counts.slow, 0);
        // nor by one that is read late.
        let (body, handle) = tracked(vec![data("a"), data("b")]).await;
        advance(Duration::from_secs(seconds)).await;
        body.collect().await.unwrap();
        let counts = handle.snapshot().counts;
        assert_eq!((counts.slow, counts.successes), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_out_until_its_body_ends() {
    let protocol = UntilBodyEnd::new(Server::new());
    let layer = CircuitBreakerLayer::builder()
        .min_calls(1)
        .probes(1)
        .open_for(Duration::from_secs(5))
        .jitter(false)
        .protocol(protocol)
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |fails: bool| {
        let mut response = Response::new(Full::<Bytes>::from("hello"));
        *response.status_mut() = if fails {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::OK
        };
        Ok::<_, Infallible>(response)
    }));
    service.ready().await.unwrap().call(true).await.unwrap();
    assert_eq!(layer.handle().state(), BreakerState::Open);
    advance(Duration::from_secs(5)).await;
    let probe = service.ready().await.unwrap().call(false).await.unwrap();
    let refused = service.ready().await.unwrap().call(false).await.unwrap();
    assert_eq!(
        (refused.status(), layer.handle().state()),
        (StatusCode::SERVICE_UNAVAILABLE, BreakerState::HalfOpen)
    );
    probe.into_body().collect().await.unwrap();
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_is_settled_at_once() -> Result<(), BoxError> {
    let layer = CircuitBreakerLayer::builder()
        .protocol(UntilBodyEnd::new(Client::new()))
        .build()?;
    let mut service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(status(204))
    }));
    let _unread = service.ready().await?.call(Request::new(())).await?;
    assert_eq!(layer.handle().snapshot().counts.successes, 1);
    Ok(())
}
