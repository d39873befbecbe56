//! Bodies that are cut, stall or trickle, on a paused clock.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    fault::{Fault, FaultBody, FaultHandle, FaultLayer, Injected},
    protocol::http::Server,
};

use crate::{REASON, ms, now, secs, since};

/// A body of known frames, and then trailers.
#[derive(Debug, Clone, Default)]
struct Frames {
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// Set when it is dropped.
    dropped: Dropped,
}

#[derive(Debug, Clone, Default)]
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Frames {
    fn of(frames: &[&str]) -> Self {
        let mut frames: Vec<_> = frames
            .iter()
            .map(|&frame| Bytes::from(frame.to_owned()))
            .collect();
        frames.reverse();
        Self {
            frames,
            ..Self::default()
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let data = self.frames.pop().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.frames.iter().map(|frame| frame.len() as u64).sum())
    }
}

/// The body of one response, under a fault that runs.
fn broken(fault: Fault, body: Frames) -> (FaultBody<Frames>, FaultHandle) {
    let layer = FaultLayer::builder(REASON)
        .protocol(Server::new())
        .fault(fault)
        .build()
        .unwrap();
    layer.handle().start_for(secs(60));
    let handler = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(body.clone())))
    });
    let service = layer.layer(handler);
    let response = service.oneshot(Request::new(())).now_or_never().unwrap();
    let response = response.unwrap();
    assert!(response.extensions().get::<Injected>().is_some());
    (response.into_body(), layer.handle())
}

/// Reads data frames to the end, as texts, and the error if there is one.
async fn read(body: FaultBody<Frames>) -> (Vec<String>, Option<BoxError>) {
    let mut body = pin!(body);
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => frames.push(String::from_utf8(data.to_vec()).unwrap()),
            Ok(Err(_)) => {}
            Err(error) => {
                assert!(body.frame().await.is_none());
                return (frames, Some(error));
            }
        }
    }
    (frames, None)
}

#[tokio::test(start_paused = true)]
async fn a_cut_body_fails_after_so_many_bytes() {
    let (body, handle) = broken(Fault::cut_body(5), Frames::of(&["abc", "defg", "h"]));
    assert_eq!(
        (body.size_hint().exact(), handle.snapshot().active),
        (Some(8), 1)
    );
    let (frames, error) = read(body).await;
    assert_eq!(frames, ["abc", "de"]);
    let error = error.unwrap().downcast::<io::Error>().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(handle.snapshot().active, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_before_its_cut_is_whole() {
    for after in [5, 6, 7, u64::MAX] {
        let (body, _) = broken(Fault::cut_body(after), Frames::of(&["abc", "de"]));
        let (frames, error) = read(body).await;
        assert_eq!(frames, ["abc", "de"]);
        assert!(error.is_none());
    }
    for after in [0, 1, 4] {
        let (body, _) = broken(Fault::cut_body(after), Frames::of(&["abcde"]));
        assert!(!body.is_end_stream());
        let (frames, error) = read(body).await;
        assert_eq!(frames.concat().len() as u64, after);
        assert!(error.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_lets_go_of_the_body_at_once() {
    let frames = Frames::of(&["abc", "def"]);
    let dropped = frames.dropped.0.clone();
    let (mut body, _) = broken(Fault::cut_body(3), frames);
    body.frame().await.unwrap().unwrap();
    // The clones that the handler has made are gone already.
    dropped.store(false, Ordering::SeqCst);
    body.frame().await.unwrap().unwrap_err();
    assert!(dropped.load(Ordering::SeqCst));
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_goes_on_when_the_run_ends() {
    let start = now();
    let (body, handle) = broken(Fault::stall_body(4), Frames::of(&["abc", "def", "g"]));
    let mut body = pin!(body);
    for expected in ["abc", "d"] {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
    }
    assert!(body.frame().now_or_never().is_none());
    assert_eq!(body.size_hint().exact(), Some(3));
    for expected in ["ef", "g"] {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
    }
    assert_eq!((since(start), handle.snapshot().active), (secs(60), 0));
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_trickling_body_comes_in_pieces() {
    let start = now();
    let (body, handle) = broken(Fault::trickle_body(2, ms(100)), Frames::of(&["abcde", "f"]));
    let mut body = pin!(body);
    for (expected, after) in [("ab", 100), ("cd", 200), ("e", 300)] {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
        assert_eq!(since(start), ms(after));
    }
    handle.stop();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "f");
    assert_eq!(since(start), ms(300));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_body_suffers_no_longer() {
    let (mut body, handle) = broken(Fault::stall_body(0), Frames::of(&["abc"]));
    assert!(body.frame().now_or_never().is_none());
    assert_eq!(handle.snapshot().active, 1);
    drop(body);
    assert_eq!(handle.snapshot().active, 0);
}

fn any_frames() -> impl Strategy<Value = Frames> {
    let frame = prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
    let frames = prop::collection::vec(frame, 0..6);
    (frames, any::<bool>()).prop_map(|(frames, with_trailers)| {
        let field = ("grpc-status".parse().unwrap(), "0".parse().unwrap());
        Frames {
            frames,
            trailers: with_trailers.then(|| [field].into_iter().collect()),
            dropped: Dropped::default(),
        }
    })
}

fn any_fault() -> impl Strategy<Value = (Fault, Option<u64>)> {
    prop_oneof![
        (0..40_u64).prop_map(|after| (Fault::cut_body(after), Some(after))),
        (0..40_u64).prop_map(|after| (Fault::stall_body(after), None)),
        (1..9_usize, 0..300_u64)
            .prop_map(|(bytes, every)| (Fault::trickle_body(bytes, ms(every)), None)),
    ]
}

proptest! {
    /// Whatever its frames, a body is whole but for a cut, and then it is its beginning.
    #[test]
    fn what_comes_is_what_was_sent(frames in any_frames(), (fault, cut) in any_fault()) {
        let mut sent = frames.clone();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        let (got, error, trailers) = runtime.block_on(async {
            let mut body = pin!(broken(fault, frames).0);
            let (mut got, mut error, mut trailers) = (Vec::new(), false, None);
            let mut promised = body.size_hint().exact().unwrap();
            while let Some(frame) = body.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(data)) => {
                        got.extend_from_slice(&data);
                        promised -= data.len() as u64;
                        assert_eq!(body.size_hint().exact(), Some(promised));
                    }
                    Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
                    Err(_) => error = true,
                }
            }
            assert!(body.is_end_stream());
            (got, error, trailers)
        });
        let mut whole = Vec::new();
        while let Some(frame) = sent.frames.pop() {
            whole.extend_from_slice(&frame);
        }
        let ends = whole.len() as u64;
        prop_assert!(whole.starts_with(&got));
        match cut {
            Some(cut) if cut < ends => prop_assert!(error && got.len() as u64 == cut),
            // Trailers may be cut off as well.
            Some(cut) if cut == ends && error => prop_assert_eq!(got, whole),
            _ => prop_assert_eq!((got, error, trailers), (whole, false, sent.trailers.clone())),
        }
    }
}
