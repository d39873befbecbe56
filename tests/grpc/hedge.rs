//! What a hedge does with the pushback of gRPC services.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{hedge::HedgeLayer, protocol::grpc::Client};

/// How an attempt ends: after so many milliseconds, with this status and pushback.
type End = (u64, u16, Option<&'static str>);

const UNAVAILABLE: u16 = 14;
const EXHAUSTED: u16 = 8;

/// The status of a call whose attempts end so, when it had that, and how many were sent. A hedge is
/// due after 50 ms.
async fn hedged<const N: usize>(attempts: [End; N]) -> (String, u64, usize) {
    let layer = HedgeLayer::builder()
        .protocol(Client::new().idempotent(["/keep.test.Echo/"]))
        .delay(Duration::from_millis(50))
        .max_hedges(3)
        .without_budget()
        .build()
        .unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    let upstream = service_fn(move |_: Request<tonic::body::Body>| {
        let number = counting.fetch_add(1, Ordering::Relaxed);
        async move {
            let (takes, status, pushback) = attempts[number];
            sleep(Duration::from_millis(takes)).await;
            let mut response = Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", status);
            if let Some(pushback) = pushback {
                response = response.header("grpc-retry-pushback-ms", pushback);
            }
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        }
    });
    let request = Request::post("http://upstream/keep.test.Echo/Unary");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let start = Instant::now();
    let response = layer.layer(upstream).oneshot(request).await.unwrap();
    let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap();
    let status = response.headers()["grpc-status"].to_str().unwrap();
    (status.into(), elapsed, sent.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_sent_when_pushback_says() {
    for status in [UNAVAILABLE, EXHAUSTED] {
        let ended = hedged([(10, status, Some("2000")), (10, 0, None)]).await;
        assert_eq!(ended, ("0".into(), 2020, 2));
    }
    // A hedge's pushback holds the next one, not the first attempt.
    let ended = hedged([(90, 0, None), (10, UNAVAILABLE, Some("2000"))]).await;
    assert_eq!(ended, ("0".into(), 90, 2));
}

#[tokio::test(start_paused = true)]
async fn a_negative_pushback_ends_further_hedges_alone() {
    for pushback in ["-1", "soon"] {
        let stop = |takes| (takes, UNAVAILABLE, Some(pushback));
        assert_eq!(hedged([stop(10)]).await, ("14".into(), 10, 1));
        // The first attempt goes on beside a hedge that is told so.
        let ended = hedged([(300, 0, None), stop(10)]).await;
        assert_eq!(ended, ("0".into(), 300, 2));
        // And a hedge beside a first attempt that is.
        let ended = hedged([stop(60), (300, 0, None)]).await;
        assert_eq!(ended, ("0".into(), 350, 2));
    }
}
