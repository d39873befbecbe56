//! Responses that are delivered with their first byte.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    hedge::HedgeLayer,
    protocol::http::{Client, FirstByteLayer},
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

const TENTH: Duration = Duration::from_millis(100);

/// A stream of so many parts, the first after `first`, and the others a tenth of a second apart.
fn streamed(first: Duration, parts: u64) -> Response<Body> {
    let parts = stream::iter(0..parts).then(move |part| async move {
        sleep(if part == 0 { first } else { TENTH }).await;
        Ok(Frame::data(Bytes::from(part.to_string())))
    });
    Response::new(StreamBody::new(parts).boxed_unsync())
}

fn to() -> Request<Empty<Bytes>> {
    Request::get("http://upstream/").body(Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_response_comes_with_its_first_byte() {
    let upstream = service_fn(async |_: Request<Empty<Bytes>>| {
        sleep(TENTH).await;
        Ok::<_, Infallible>(streamed(3 * TENTH, 3))
    });
    let begun = Instant::now();
    let service = FirstByteLayer::new().layer(upstream);
    let response = service.oneshot(to()).await.unwrap();
    assert_eq!(begun.elapsed(), 4 * TENTH);
    let mut body = response.into_body();
    assert_eq!(body.size_hint().lower(), 1);
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    // It waits for no further one.
    assert_eq!((first, begun.elapsed()), (Bytes::from("0"), 4 * TENTH));
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!((rest, begun.elapsed()), (Bytes::from("12"), 6 * TENTH));
}

#[tokio::test(start_paused = true)]
async fn bodies_without_a_byte_and_of_a_length_pass() {
    let body = |full: &'static str| Response::new(Full::new(Bytes::from(full)));
    for text in ["", "hello"] {
        let upstream = service_fn(move |()| std::future::ready(Ok::<_, Infallible>(body(text))));
        let response = FirstByteLayer::new().layer(upstream).oneshot(()).await;
        let body = response.unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        assert_eq!(body.is_end_stream(), text.is_empty());
        assert_eq!(body.collect().await.unwrap().to_bytes(), text);
    }
    let upstream = service_fn(async |()| Ok::<_, Infallible>(streamed(TENTH, 0)));
    let response = FirstByteLayer::new().layer(upstream).oneshot(()).await;
    let mut body = response.unwrap().into_body();
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_empty_frame_is_no_first_byte() {
    for (texts, waited) in [(["", "", "a"], 3), (["", "", ""], 3), (["", "a", "b"], 2)] {
        let upstream = service_fn(async |()| {
            let parts = stream::iter(texts).then(|text| async move {
                sleep(TENTH).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from(text)))
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(parts).boxed_unsync()))
        });
        let begun = Instant::now();
        let response = FirstByteLayer::new().layer(upstream).oneshot(()).await;
        assert_eq!(begun.elapsed(), waited * TENTH);
        let body = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), texts.concat());
    }
    // Trailers end the wait.
    let upstream = service_fn(async |()| {
        let trailers = Frame::trailers(HeaderMap::new());
        let parts = [Frame::data(Bytes::new()), trailers].map(Ok::<_, Infallible>);
        let parts = stream::iter(parts).chain(stream::pending());
        Ok::<_, Infallible>(Response::new(StreamBody::new(parts)))
    });
    let response = FirstByteLayer::new().layer(upstream).oneshot(()).await;
    let first = response.unwrap().into_body().frame().await;
    assert!(first.unwrap().unwrap().is_trailers());
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_byte_is_in_the_body() {
    let upstream = service_fn(async |()| {
        let broken = stream::once(async { Err::<Frame<Bytes>, _>("reset") });
        Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(broken))))
    });
    let response = FirstByteLayer::new().layer(upstream).oneshot(()).await;
    let body = response.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap_err(), "reset");
}

/// Heads come at once, and every tenth stream has its first byte after a minute.
#[tokio::test(start_paused = true)]
async fn a_hedge_learns_the_time_to_the_first_byte() {
    let calls = Arc::new(AtomicU64::new(0));
    let upstream = service_fn(move |_: Request<_>| {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        let first = if number % 10 == 9 { 600 } else { 2 } * TENTH;
        async move { Ok::<_, Infallible>(streamed(first, 1)) }
    });
    let hedge = HedgeLayer::builder()
        .quantile(0.8)
        .without_budget()
        .protocol(Client::new())
        .build()
        .unwrap();
    let mut service = (hedge.clone(), FirstByteLayer::new()).layer(upstream);
    for _ in 0..200 {
        let (begun, is_learned) = (Instant::now(), hedge.handle().snapshot().delay.is_some());
        let response = service.ready().await.unwrap().call(to()).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert!(!is_learned || begun.elapsed() < 10 * TENTH);
    }
    let snapshot = hedge.handle().snapshot();
    let delay = snapshot.delay.unwrap();
    assert!((TENTH..4 * TENTH).contains(&delay), "{delay:?}");
    assert!(snapshot.won_by_hedge >= 5, "{snapshot:?}");
}
