//! Timeout, scenario by scenario.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::advance;
use tower::{BoxError, Layer, Service};

use crate::support::{Ask, Probe};
use tower_keep::{
    Rejected, RejectedKind,
    timeout::{TimeoutHandle, TimeoutLayer},
};

const SECOND: Duration = Duration::from_secs(1);

fn layer() -> (TimeoutLayer, TimeoutHandle) {
    let layer = TimeoutLayer::builder(SECOND).build().unwrap();
    let handle = layer.handle();
    (layer, handle)
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn timed_out(result: Poll<Result<(), BoxError>>) -> bool {
    let Poll::Ready(Err(error)) = result else {
        return false;
    };
    Rejected::find(&*error).unwrap().kind == RejectedKind::TimedOut
}

#[tokio::test(start_paused = true)]
async fn an_expired_call_is_dropped_before_its_future_is() {
    let (layer, handle) = layer();
    let probe = Probe::new();
    let mut call = pin!(layer.layer(probe.clone()).call(Ask::Hang));
    assert!(poll(call.as_mut()).is_pending());
    advance(SECOND + Duration::from_millis(1)).await;
    assert!(timed_out(poll(call.as_mut())));
    assert_eq!(probe.running(), 0);
    assert_eq!(handle.snapshot().expired, 1);
}

/// A call of an unnamed timeout holds no reference to its state.
#[tokio::test(start_paused = true)]
async fn a_call_is_timed_out_when_its_layer_is_gone() {
    for keeps_handle in [true, false] {
        let (layer, handle) = layer();
        let handle = keeps_handle.then_some(handle);
        let mut call = pin!(layer.layer(Probe::new()).call(Ask::Hang));
        drop(layer);
        assert!(poll(call.as_mut()).is_pending());
        advance(SECOND + Duration::from_millis(1)).await;
        assert!(timed_out(poll(call.as_mut())));
        let expired = handle.map(|handle| handle.snapshot().expired);
        assert_eq!(expired, keeps_handle.then_some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_wins_over_a_timeout_at_the_same_poll() {
    let (layer, _) = layer();
    let mut call = pin!(layer.layer(Probe::new()).call(Ask::Yield(1)));
    assert!(poll(call.as_mut()).is_pending());
    advance(10 * SECOND).await;
    assert!(matches!(poll(call.as_mut()), Poll::Ready(Ok(()))));
}

#[tokio::test(start_paused = true)]
async fn a_changed_duration_applies_to_later_calls() {
    let (layer, handle) = layer();
    let mut service = layer.layer(Probe::new());
    let mut before = pin!(service.call(Ask::Hang));
    handle.set_duration(3 * SECOND).unwrap();
    let mut after = pin!(service.call(Ask::Hang));
    assert!(poll(before.as_mut()).is_pending() && poll(after.as_mut()).is_pending());
    advance(2 * SECOND).await;
    assert!(timed_out(poll(before.as_mut())));
    assert!(poll(after.as_mut()).is_pending());
    advance(2 * SECOND).await;
    assert!(timed_out(poll(after.as_mut())));
}

#[tokio::test]
async fn a_call_that_exhausts_its_task_budget_times_out() {
    let layer = TimeoutLayer::builder(Duration::from_millis(20))
        .build()
        .unwrap();
    let busy = tower::service_fn(async |()| {
        loop {
            tokio::task::consume_budget().await;
        }
        #[expect(unreachable_code, reason = "it never ends")]
        Ok::<(), BoxError>(())
    });
    let error = layer.layer(busy).call(()).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::TimedOut
    );
}
