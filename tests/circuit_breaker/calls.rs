//! The circuit breaker as a layer: sharing, permits, readiness, recovery.

use std::{
    convert::Infallible,
    future::{pending, poll_fn, ready},
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::BoxFuture,
    task::{noop_waker, noop_waker_ref},
};
use tokio::time::{advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt, limit::GlobalConcurrencyLimitLayer, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::{
        BreakerState, Cause, CircuitBreakerBuilder, CircuitBreakerHandle, CircuitBreakerLayer,
        Verdict, Window,
    },
    keyed::NotKeyed,
    protocol::{Chosen, Plain},
};
use tower_test::{assert_request_eq, mock};

const OPEN_FOR: Duration = Duration::from_secs(5);

/// Opens at the second failure, for five seconds; one probe.
fn builder() -> CircuitBreakerBuilder<NotKeyed, Chosen<Plain>> {
    CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(2)
        .open_for(OPEN_FOR)
        .jitter(false)
        .probes(1)
}

/// The behaviour that a request wants of the upstream.
#[derive(Clone, Copy)]
enum Deed {
    Succeed,
    Fail,
    Hang,
    Panic,
}

/// An upstream that behaves as its requests say.
#[derive(Clone)]
struct Peer;

impl Service<Deed> for Peer {
    type Response = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, deed: Deed) -> Self::Future {
        match deed {
            Deed::Succeed => ready(Ok(())).boxed(),
            Deed::Fail => ready(Err(io::Error::other("down"))).boxed(),
            Deed::Hang => pending().boxed(),
            Deed::Panic => async { panic!("the peer's client has a bug") }.boxed(),
        }
    }
}

async fn call<S: Service<Deed>>(service: &mut S, deed: Deed) -> Result<S::Response, S::Error> {
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(deed).await
}

/// Opens the circuit, and waits until it would admit a probe.
async fn fail_until_half_open<S: Service<Deed>>(service: &mut S) {
    for _ in 0..2 {
        let _ = call(service, Deed::Fail).await;
    }
    advance(OPEN_FOR).await;
}

fn kind(error: &BoxError) -> Option<RejectedKind> {
    Rejected::find(&**error).map(|rejected| rejected.kind)
}

fn last_cause(handle: &CircuitBreakerHandle) -> Option<Cause> {
    handle
        .snapshot()
        .last_transition
        .map(|transition| transition.cause)
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_one_circuit() {
    let layer = builder().build().unwrap();
    let (mut one, mut other) = (layer.layer(Peer), layer.layer(Peer));
    let _ = call(&mut one, Deed::Fail).await;
    let _ = call(&mut other.clone(), Deed::Fail).await;
    let error = call(&mut other, Deed::Succeed).await.unwrap_err();
    assert_eq!(Rejected::find(&*error).unwrap().retry_after, Some(OPEN_FOR));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_does_not_ask_a_dead_inner_service() {
    let layer = builder().build().unwrap();
    layer.handle().force_open();
    let (mut service, mut inner) = mock::spawn_layer::<u32, u32, _>(layer);
    inner.allow(0);
    assert!(service.poll_ready().is_ready());
    let error = service.call(1).await.unwrap_err();
    assert_eq!(kind(&error), Some(RejectedKind::CircuitOpen));
}

#[tokio::test(start_paused = true)]
async fn an_unreadied_admitted_call_waits_for_the_service() {
    let layer = builder().build().unwrap();
    layer.handle().force_open();
    let (mut service, mut inner) = mock::spawn_layer::<u32, u32, _>(layer.clone());
    inner.allow(0);
    assert!(service.poll_ready().is_ready());
    layer.handle().close();
    let mut response = by_hand(service.call(7));
    assert!(response.poll_once().is_pending());
    inner.allow(1);
    assert!(response.poll_once().is_pending());
    assert_request_eq!(inner, 7).send_response(8);
    assert_eq!(response.0.await.unwrap(), 8);
}

#[expect(clippy::disallowed_methods, reason = "tokio's paused clock")]
async fn time_of<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> Duration {
    let start = tokio::time::Instant::now();
    future.await.unwrap();
    start.elapsed()
}

/// A future that is polled by hand.
struct Polled<F>(std::pin::Pin<Box<F>>);

fn by_hand<F: Future>(future: F) -> Polled<F> {
    Polled(Box::pin(future))
}

impl<F: Future> Polled<F> {
    fn poll_once(&mut self) -> Poll<F::Output> {
        self.0
            .as_mut()
            .poll(&mut Context::from_waker(&noop_waker()))
    }
}

/// In other libraries a hung probe blocks recovery for good.
#[tokio::test(start_paused = true)]
async fn recovers_from_a_hung_probe() {
    let layer = builder().build().unwrap();
    let mut service = layer.layer(Peer);
    fail_until_half_open(&mut service).await;
    let hung = tokio::spawn(service.call(Deed::Hang));
    advance(OPEN_FOR - Duration::from_millis(1)).await;
    assert!(call(&mut service, Deed::Succeed).await.is_err());
    advance(Duration::from_millis(1)).await;
    assert!(call(&mut service, Deed::Succeed).await.is_err());
    assert_eq!(last_cause(&layer.handle()), Some(Cause::LeaseExpired));
    advance(OPEN_FOR).await;
    call(&mut service, Deed::Succeed).await.unwrap();
    hung.abort();
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn recovers_from_a_panicking_probe() {
    let layer = builder().build().unwrap();
    let mut service = layer.layer(Peer);
    fail_until_half_open(&mut service).await;
    let panicked = AssertUnwindSafe(call(&mut service, Deed::Panic))
        .catch_unwind()
        .await;
    assert!(panicked.is_err());
    assert_eq!(
        (layer.handle().state(), last_cause(&layer.handle())),
        (BreakerState::Open, Some(Cause::ProbesFailed))
    );
    advance(OPEN_FOR).await;
    call(&mut service, Deed::Succeed).await.unwrap();
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn recovers_from_a_dropped_probe_at_once() {
    let layer = builder().build().unwrap();
    let mut service = layer.layer(Peer);
    fail_until_half_open(&mut service).await;
    assert!(
        timeout(Duration::from_secs(1), call(&mut service, Deed::Hang))
            .await
            .is_err()
    );
    // A future that is dropped before its first poll gives the slot back too.
    drop(service.call(Deed::Hang));
    call(&mut service, Deed::Succeed).await.unwrap();
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_rejected_beneath_gives_its_slot_back() {
    let layer = builder().build().unwrap();
    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    let mut beneath = bulkhead.layer(Peer);
    let mut service = layer.layer(bulkhead.layer(Peer));
    fail_until_half_open(&mut service).await;
    let holds = beneath.call(Deed::Hang);
    for _ in 0..3 {
        let error = call(&mut service, Deed::Succeed).await.unwrap_err();
        assert_eq!(kind(&error), Some(RejectedKind::BulkheadFull));
        assert_eq!(layer.handle().state(), BreakerState::HalfOpen);
    }
    drop(holds);
    call(&mut service, Deed::Succeed).await.unwrap();
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_are_out_than_allowed() {
    let layer = builder().probes(3).verdict(Verdict::Rate).build().unwrap();
    let mut service = layer.layer(Peer);
    fail_until_half_open(&mut service).await;
    let mut out: Vec<_> = (0..3).map(|_| service.call(Deed::Hang)).collect();
    assert!(service.call(Deed::Hang).now_or_never().is_some());
    out.pop();
    let again = service.call(Deed::Hang);
    assert!(service.call(Deed::Hang).now_or_never().is_some());
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_does_not_disturb_half_open() {
    let layer = builder().build().unwrap();
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    let receive = Arc::new(std::sync::Mutex::new(Some(receive)));
    let mut slow = layer.layer(service_fn(move |_: Deed| {
        let receive = receive.lock().unwrap().take().unwrap();
        async move { receive.await.map_err(io::Error::other) }
    }));
    poll_fn(|cx| slow.poll_ready(cx)).await.unwrap();
    let late = slow.call(Deed::Succeed);
    let mut service = layer.layer(Peer);
    fail_until_half_open(&mut service).await;
    let probe = service.call(Deed::Hang);
    send.send(()).unwrap();
    late.await.unwrap();
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.state, snapshot.late), (BreakerState::HalfOpen, 1));
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn calls_cut_off_by_an_outer_timeout_open_the_circuit() {
    let layer = builder()
        .slow_calls(Duration::from_secs(1), 0.5)
        .build()
        .unwrap();
    let mut service = layer.layer(Peer);
    for _ in 0..2 {
        assert!(
            timeout(Duration::from_secs(1), call(&mut service, Deed::Hang))
                .await
                .is_err()
        );
    }
    assert_eq!(
        (layer.handle().state(), last_cause(&layer.handle())),
        (BreakerState::Open, Some(Cause::SlowRate))
    );
}

#[tokio::test(start_paused = true)]
async fn calls_that_never_end_open_the_circuit() {
    let layer = builder()
        .slow_calls(Duration::from_secs(1), 0.5)
        .build()
        .unwrap();
    let mut service = layer.layer(Peer);
    let _hung: Vec<_> = (0..2).map(|_| service.call(Deed::Hang)).collect();
    advance(Duration::from_secs(2)).await;
    assert_eq!(layer.handle().snapshot().hung, 2);
    assert!(call(&mut service, Deed::Succeed).await.is_err());
    assert_eq!(last_cause(&layer.handle()), Some(Cause::SlowRate));
}

#[tokio::test(start_paused = true)]
async fn a_disabled_layer_lets_everything_through() {
    let layer = builder().enabled(false).build().unwrap();
    let mut service = layer.layer(Peer);
    for _ in 0..10 {
        assert_eq!(
            kind(&call(&mut service, Deed::Fail).await.unwrap_err()),
            None
        );
    }
    assert_eq!(layer.handle().snapshot().counts.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_handle_tells_and_changes_everything() {
    let layer = builder().name("payments").build().unwrap();
    let (handle, mut service) = (layer.handle(), layer.layer(Peer));
    let mut transitions = handle.transitions();
    let mut config = handle.config();
    config.min_calls = 3;
    handle.update(config).unwrap();
    for _ in 0..2 {
        let _ = call(&mut service, Deed::Fail).await;
    }
    let snapshot = handle.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.counts.failures),
        (BreakerState::Closed, 2)
    );
    let _ = call(&mut service, Deed::Fail).await;
    advance(Duration::from_secs(1)).await;
    let snapshot = handle.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.generation),
        (BreakerState::Open, 1)
    );
    assert_eq!(snapshot.until_half_open, Some(Duration::from_secs(4)));
    let error = call(&mut service, Deed::Succeed).await.unwrap_err();
    assert_eq!(Rejected::find(&*error).unwrap().name, Some("payments"));

    handle.metrics_only();
    handle.reset();
    drop((layer, service));
    let told: Vec<_> = std::iter::from_fn(|| transitions.try_next())
        .map(|told| (told.to, told.cause))
        .collect();
    let hand = Cause::ByHand;
    assert_eq!(
        told,
        [
            (BreakerState::Open, Cause::FailureRate),
            (BreakerState::MetricsOnly, hand),
            (BreakerState::Closed, hand)
        ]
    );
    config.probes = 0;
    assert_eq!(handle.update(config).unwrap_err().field, "probes");
    assert_eq!(handle.config().probes, 1);
    drop(handle);
    assert_eq!(transitions.next().await, None);
}

/// In another library 30 of 64 tasks were never woken again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_backpressure_no_waiter_is_forgotten() {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .backpressure()
        .build()
        .unwrap();
    let handle = layer.handle();
    for round in 0..20 {
        handle.force_open();
        let woken = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (mut service, woken) = (layer.layer(Peer), woken.clone());
                tokio::spawn(async move {
                    poll_fn(|cx| Service::<Deed>::poll_ready(&mut service, cx))
                        .await
                        .unwrap();
                    woken.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        // Sometimes before all tasks wait.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        handle.close();
        for task in tasks {
            timeout(Duration::from_secs(10), task)
                .await
                .expect("somebody waits for ever")
                .unwrap();
        }
        assert_eq!(woken.load(Ordering::Relaxed), 64);
    }
}

#[tokio::test(start_paused = true)]
async fn backpressure_is_ready_when_the_open_time_ends() {
    let layer = builder().backpressure().build().unwrap();
    let mut service = layer.layer(Peer);
    for _ in 0..2 {
        let _ = call(&mut service, Deed::Fail).await;
    }
    let mut waiting = by_hand(poll_fn(|cx| Service::<Deed>::poll_ready(&mut service, cx)));
    assert!(waiting.poll_once().is_pending());
    let waited = time_of(waiting.0).await;
    assert!((OPEN_FOR..OPEN_FOR + Duration::from_millis(5)).contains(&waited));
}

#[tokio::test(start_paused = true)]
async fn under_backpressure_a_dropped_probe_wakes_waiters() {
    let layer = builder().backpressure().build().unwrap();
    let mut service = layer.layer(Peer);
    fail_until_half_open_unready(&mut service).await;
    let probe = service.call(Deed::Hang);
    let mut other = layer.layer(Peer);
    let waiting = tokio::spawn(async move {
        call(&mut other, Deed::Succeed)
            .await
            .map_err(|error| error.to_string())
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    drop(probe);
    sleep(Duration::from_millis(1)).await;
    assert!(waiting.is_finished());
    waiting.await.unwrap().unwrap();
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

async fn fail_until_half_open_unready<S: Service<Deed>>(service: &mut S) {
    fail_until_half_open(service).await;
    let _ = poll_fn(|cx| service.poll_ready(cx)).await;
}

/// Regression: a service that was ready when its circuit opened kept what it had reserved for as
/// long as it was held back.
#[tokio::test(start_paused = true)]
async fn under_backpressure_a_reservation_is_given_back() {
    let one_place = GlobalConcurrencyLimitLayer::new(1);
    let layers = [(); 2].map(|()| builder().backpressure().build().unwrap());
    let [mut withheld, mut other] =
        [&layers[0], &layers[1]].map(|l| l.layer(one_place.layer(Peer)));
    let is_ready = |service: &mut _| {
        let mut cx = Context::from_waker(noop_waker_ref());
        Service::<Deed>::poll_ready(service, &mut cx).is_ready()
    };
    assert!(is_ready(&mut withheld) && !is_ready(&mut other));
    layers[0].handle().force_open();
    assert!(!is_ready(&mut withheld) && is_ready(&mut other));
    layers[0].handle().close();
    assert!(!is_ready(&mut withheld));
    drop(other);
    assert!(is_ready(&mut withheld));
}

/// As above, where calls fail fast: callers that are told to call must hold nothing.
#[tokio::test(start_paused = true)]
async fn an_open_circuit_gives_its_reservation_back() {
    let one_place = GlobalConcurrencyLimitLayer::new(1);
    let layers = [(); 2].map(|()| builder().build().unwrap());
    let [mut rejecting, mut other] =
        [&layers[0], &layers[1]].map(|l| l.layer(one_place.layer(Peer)));
    let is_ready = |service: &mut _| {
        let mut cx = Context::from_waker(noop_waker_ref());
        Service::<Deed>::poll_ready(service, &mut cx).is_ready()
    };
    assert!(is_ready(&mut rejecting) && !is_ready(&mut other));
    layers[0].handle().force_open();
    // Ready to reject.
    assert!(is_ready(&mut rejecting) && is_ready(&mut other));
}

/// If all callers wait, none calls, and so no call could notice that the lease is over.
#[tokio::test(start_paused = true)]
async fn under_backpressure_a_hung_probe_blocks_no_waiter() {
    let layer = builder().backpressure().build().unwrap();
    let mut service = layer.layer(Peer);
    fail_until_half_open_unready(&mut service).await;
    let _hung = service.call(Deed::Hang);
    let mut other = layer.layer(Peer);
    let waited = time_of(call(&mut other, Deed::Succeed)).await;
    // The probe's lease, and the open time that follows.
    assert!((2 * OPEN_FOR..2 * OPEN_FOR + Duration::from_millis(10)).contains(&waited));
    assert_eq!(layer.handle().state(), BreakerState::Closed);
}

#[test]
fn a_service_is_send_and_sync() {
    fn check<T: Send + Sync>(_: &T) {}
    let layer = builder().backpressure().build().unwrap();
    check(&layer.handle());
    check(&layer.layer(Peer));
}

#[tokio::test(start_paused = true)]
async fn a_build_that_cannot_work_says_so() {
    let error = builder().probes(0).build().unwrap_err();
    assert_eq!(error.field, "probes");
    let error = builder().window_of_calls(0).build().unwrap_err();
    assert_eq!(error.field, "window");
    let never: Result<(), Infallible> = Ok(());
    let layer = builder().build().unwrap();
    let mut service = layer.layer(service_fn(move |_: ()| async move { never }));
    service.ready().await.unwrap().call(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_update_of_the_window_says_that_it_starts_anew() {
    let layer = CircuitBreakerLayer::builder().protocol(Plain::new());
    let layer = layer.min_calls(3).build().unwrap();
    let service = layer.layer(service_fn(async |()| Err::<(), _>("down")));
    let fails = || service.clone().oneshot(());
    for _ in 0..2 {
        fails().await.unwrap_err();
    }
    let handle = layer.handle();
    let mut config = handle.config();
    config.window = Window::Time(Duration::from_secs(60));
    let changed = handle.update(config).unwrap();
    assert!(changed.restarts());
    let told = "circuit_breaker: `window` from 10s to 60s (the window starts anew)";
    assert_eq!(changed.to_string(), told);
    assert_eq!(handle.snapshot().counts.failures, 0);
    config.min_calls = 2;
    assert!(!handle.update(config).unwrap().restarts());
    for _ in 0..2 {
        fails().await.unwrap_err();
    }
    assert_eq!(handle.state(), BreakerState::Open);
}
