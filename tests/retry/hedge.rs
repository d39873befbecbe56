//! Hedges: second attempts for calls that take long.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Deadline, Rejected, RejectedKind,
    algorithm::{Budget, RetryBudget},
    circuit_breaker::CircuitBreakerLayer,
    hedge::{HedgeBuilder, HedgeLayer},
    protocol::{
        Chosen, Plain,
        http::{Attempt, Client, ReplayBody},
    },
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

type Behavior = Box<dyn Fn(usize) -> Step + Send + Sync>;

/// What an attempt does.
enum Step {
    Hangs,
    Answers(Duration, StatusCode),
    /// A 503, and how long to stay away, in seconds.
    Asks(Duration, u64),
    Breaks(Duration),
}

/// An upstream whose attempts do as told, by their number; tells how many came and were dropped.
#[derive(Clone)]
struct Upstream {
    does: Arc<Behavior>,
    came: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct OnDrop(Arc<AtomicUsize>, bool);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if self.1 {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn upstream(does: impl Fn(usize) -> Step + Send + Sync + 'static) -> Upstream {
    Upstream {
        does: Arc::new(Box::new(does)),
        came: Arc::default(),
        dropped: Arc::default(),
    }
}

impl Upstream {
    async fn answer(self, _: Request<impl Send>) -> Result<Response<Full<Bytes>>, BoxError> {
        let number = self.came.fetch_add(1, Ordering::Relaxed);
        let mut guard = OnDrop(self.dropped.clone(), true);
        let result = match (self.does)(number) {
            Step::Hangs => pending().await,
            Step::Answers(after, status) => {
                sleep(after).await;
                let mut response = Response::new(Full::from(number.to_string()));
                *response.status_mut() = status;
                Ok(response)
            }
            Step::Asks(after, seconds) => {
                sleep(after).await;
                let response = Response::builder().status(503);
                let response = response.header(http::header::RETRY_AFTER, seconds);
                Ok(response.body(Full::default()).unwrap())
            }
            Step::Breaks(after) => {
                sleep(after).await;
                Err(format!("attempt {number}").into())
            }
        };
        guard.1 = false;
        result
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

const DELAY: Duration = Duration::from_millis(50);

fn hedge() -> HedgeBuilder<Chosen<Client>> {
    HedgeLayer::builder().protocol(Client::new()).delay(DELAY)
}

fn get() -> Request<Full<Bytes>> {
    Request::get("http://upstream/")
        .body(Full::default())
        .unwrap()
}

async fn send(
    layer: &HedgeLayer<Client>,
    upstream: &Upstream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Duration), BoxError> {
    let start = Instant::now();
    let own = upstream.clone();
    let service = layer.layer(service_fn(move |request| own.clone().answer(request)));
    let response = service.oneshot(request).await?;
    Ok((response.status(), start.elapsed()))
}

fn within(elapsed: Duration, millis: u64) -> bool {
    (millis..=millis + 3).contains(&u64::try_from(elapsed.as_millis()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_hedge_overtakes_a_call_that_hangs() {
    let (layer, quick) = (hedge().build().unwrap(), Duration::from_millis(10));
    let upstream = upstream(move |number| match number {
        0 => Step::Hangs,
        _ => Step::Answers(quick, StatusCode::OK),
    });
    let (status, elapsed) = send(&layer, &upstream, get()).await.unwrap();
    assert!(status == 200 && within(elapsed, 60), "{elapsed:?}");
    let now = layer.handle().snapshot();
    assert_eq!((now.sent, now.won_by_hedge, now.won_by_first), (1, 1, 0));
    assert_eq!(
        upstream.dropped.load(Ordering::Relaxed),
        1,
        "the loser is dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn a_quick_answer_is_not_hedged() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|_| Step::Answers(DELAY / 2, StatusCode::OK));
    send(&layer, &upstream, get()).await.unwrap();
    assert_eq!((upstream.came(), layer.handle().snapshot().sent), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_may_win_after_all() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|number| match number {
        0 => Step::Answers(DELAY * 2, StatusCode::OK),
        _ => Step::Hangs,
    });
    let (_, elapsed) = send(&layer, &upstream, get()).await.unwrap();
    assert!(within(elapsed, 100), "{elapsed:?}");
    assert_eq!(layer.handle().snapshot().won_by_first, 1);
}

#[tokio::test(start_paused = true)]
async fn a_post_is_not_hedged() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|_| Step::Answers(DELAY * 3, StatusCode::OK));
    let mut request = get();
    *request.method_mut() = Method::POST;
    send(&layer, &upstream, request).await.unwrap();
    assert_eq!(upstream.came(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_sends_the_next_at_once() {
    let layer = hedge().max_hedges(2).build().unwrap();
    let upstream = upstream(|number| match number {
        0 => Step::Answers(Duration::from_millis(5), StatusCode::SERVICE_UNAVAILABLE),
        1 => Step::Answers(Duration::from_millis(5), StatusCode::BAD_GATEWAY),
        _ => Step::Answers(Duration::from_millis(5), StatusCode::OK),
    });
    let (status, elapsed) = send(&layer, &upstream, get()).await.unwrap();
    assert!(status == 200 && within(elapsed, 15), "{elapsed:?}");
}

/// Sends a call with a deadline.
async fn send_within(
    layer: &HedgeLayer<Client>,
    upstream: &Upstream,
    deadline: Duration,
) -> (StatusCode, Duration) {
    let mut request = get();
    request.extensions_mut().insert(Deadline::after(deadline));
    send(layer, upstream, request).await.unwrap()
}

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_hedge_waits_as_long_as_an_answer_asks() {
    let layer = hedge().max_hedges(2).build().unwrap();
    let upstream = upstream(|number| match number {
        0 => Step::Asks(5 * MILLISECOND, 5),
        1 => Step::Asks(5 * MILLISECOND, 2),
        _ => Step::Answers(5 * MILLISECOND, StatusCode::OK),
    });
    let (status, elapsed) = send(&layer, &upstream, get()).await.unwrap();
    assert!(status == 200 && within(elapsed, 7015), "{elapsed:?}");
    assert_eq!(layer.handle().snapshot().sent, 2);
}

#[tokio::test(start_paused = true)]
async fn no_hedge_waits_beyond_the_deadline() {
    let layer = hedge().build().unwrap();
    let asking = upstream(|_| Step::Asks(5 * MILLISECOND, 2));
    for deadline in [2005, 2004, 100] {
        let (status, elapsed) = send_within(&layer, &asking, deadline * MILLISECOND).await;
        assert!(status == 503 && within(elapsed, 5), "{elapsed:?}");
    }
    assert_eq!(asking.came(), 3);
    let (_, elapsed) = send_within(&layer, &asking, 2006 * MILLISECOND).await;
    assert!(within(elapsed, 2010), "{elapsed:?}");
    assert_eq!(asking.came(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_the_maximum_ends_the_call() {
    let asking = upstream(|_| Step::Asks(5 * MILLISECOND, 11));
    let (_, elapsed) = send(&hedge().build().unwrap(), &asking, get())
        .await
        .unwrap();
    assert!(within(elapsed, 5) && asking.came() == 1, "{elapsed:?}");
    let patient = hedge().max_retry_after(Duration::from_secs(11));
    let (_, elapsed) = send(&patient.build().unwrap(), &asking, get())
        .await
        .unwrap();
    assert!(within(elapsed, 11_010) && asking.came() == 3, "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_hedge_does_not_end_the_call() {
    for fails in [
        || Step::Answers(MILLISECOND, StatusCode::INTERNAL_SERVER_ERROR),
        || Step::Answers(MILLISECOND, StatusCode::TOO_MANY_REQUESTS),
        || Step::Asks(MILLISECOND, 5),
        || Step::Asks(MILLISECOND, 3600),
        || Step::Breaks(MILLISECOND),
    ] {
        let layer = hedge().max_hedges(2).without_budget().build().unwrap();
        let slow = upstream(move |number| match number {
            0 => Step::Answers(DELAY * 6, StatusCode::OK),
            _ => fails(),
        });
        let (status, elapsed) = send(&layer, &slow, get()).await.unwrap();
        assert!(status == 200 && within(elapsed, 300), "{elapsed:?}");
        assert_eq!(layer.handle().snapshot().won_by_first, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_hint_moves_a_hedge_that_waits() {
    let layer = hedge().max_hedges(3).build().unwrap();
    let upstream = upstream(|number| match number {
        0 => Step::Asks(DELAY * 2, 3),
        1 => Step::Asks(MILLISECOND, 1),
        _ => Step::Answers(MILLISECOND, StatusCode::OK),
    });
    let (_, elapsed) = send(&layer, &upstream, get()).await.unwrap();
    assert!(within(elapsed, 3101), "{elapsed:?}");
    assert_eq!(upstream.came(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_waits_costs_nothing_unless_sent() {
    let budget: Arc<Budget> = RetryBudget::new(10, 0.001).unwrap().into();
    let layer = hedge().budget(budget.clone()).build().unwrap();
    let asking = upstream(|_| Step::Asks(MILLISECOND, 5));
    let call = send(&layer, &asking, get());
    assert!(tokio::time::timeout(DELAY, call).await.is_err());
    let now = layer.handle().snapshot();
    assert_eq!((budget.available(0), now.sent, now.lost), (10, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_stands_is_not_hedged() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|_| Step::Answers(Duration::ZERO, StatusCode::NOT_FOUND));
    assert_eq!(send(&layer, &upstream, get()).await.unwrap().0, 404);
    assert_eq!(upstream.came(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_all_have_failed_the_last_failure_stands() {
    let layer = hedge().max_hedges(2).build().unwrap();
    let upstream = upstream(|_| Step::Answers(Duration::ZERO, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(send(&layer, &upstream, get()).await.unwrap().0, 503);
    assert_eq!((upstream.came(), layer.handle().snapshot().lost), (3, 1));
    let refused = self::upstream(|_| Step::Breaks(Duration::ZERO));
    assert!(send(&layer, &refused, get()).await.is_err());
}

/// A rejection says less than the failure of an attempt that was sent, whichever comes last.
#[tokio::test(start_paused = true)]
async fn a_rejected_hedge_leaves_the_failure() {
    let layer = hedge().build().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let counted = came.clone();
    let service = layer.layer(service_fn(move |_: Request<_>| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(DELAY * 2).await;
            if number > 0 {
                let full = Rejected::new(RejectedKind::BulkheadFull, "bulkhead");
                return Err(BoxError::from(full));
            }
            let failed = Response::builder().status(503);
            Ok(failed.body(Full::<Bytes>::default()).unwrap())
        }
    }));
    assert_eq!(service.oneshot(get()).await.unwrap().status(), 503);
    assert_eq!(came.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn without_budget_there_is_no_hedge() {
    let budget = RetryBudget::new(1, 0.1).unwrap();
    let layer = hedge().budget(budget).build().unwrap();
    let upstream = upstream(|number| match number % 2 {
        0 => Step::Answers(DELAY * 3, StatusCode::OK),
        _ => Step::Hangs,
    });
    send(&layer, &upstream, get()).await.unwrap();
    assert_eq!(upstream.came(), 2);
    send(&layer, &upstream, get()).await.unwrap();
    let now = layer.handle().snapshot();
    assert_eq!((upstream.came(), now.sent, now.budget_denied), (3, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_due_hedge_without_a_token_is_counted() {
    let budget = RetryBudget::new(1, 0.1).unwrap();
    let layer = hedge().budget(budget).build().unwrap();
    let upstream = upstream(|_| Step::Answers(DELAY * 3, StatusCode::OK));
    let [one, other] = [(); 2].map(|()| send(&layer, &upstream, get()));
    let (one, other) = tokio::join!(one, other);
    assert_eq!(
        (one.unwrap().0, other.unwrap().0),
        (StatusCode::OK, StatusCode::OK)
    );
    let now = layer.handle().snapshot();
    assert_eq!((now.sent, now.budget_denied), (1, 1), "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_a_hedge_counts_none_as_lost() {
    let budget = RetryBudget::new(1, 0.1).unwrap();
    let layer = hedge().budget(budget).build().unwrap();
    let upstream = upstream(|_| Step::Answers(Duration::ZERO, StatusCode::SERVICE_UNAVAILABLE));
    for came in [2, 3] {
        send(&layer, &upstream, get()).await.unwrap();
        assert_eq!((upstream.came(), layer.handle().snapshot().lost), (came, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_takes_its_hedges_along() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|_| Step::Hangs);
    let mut call = Box::pin(send(&layer, &upstream, get()));
    assert!(call.as_mut().now_or_never().is_none());
    advance(DELAY * 2).await;
    assert!(call.as_mut().now_or_never().is_none());
    assert_eq!(
        (upstream.came(), upstream.dropped.load(Ordering::Relaxed)),
        (2, 0)
    );
    drop(call);
    assert_eq!(upstream.dropped.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn losers_do_not_count_against_the_upstream() {
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Client::new())
        .min_calls(2)
        .build()
        .unwrap();
    let layer = hedge().without_budget().build().unwrap();
    let upstream = upstream(|number| match number % 2 {
        0 => Step::Hangs,
        _ => Step::Answers(Duration::ZERO, StatusCode::OK),
    });
    let own = upstream.clone();
    let inner = breaker.layer(service_fn(move |request| own.clone().answer(request)));
    for _ in 0..50 {
        assert!(layer.layer(inner.clone()).oneshot(get()).await.is_ok());
    }
    let now = breaker.handle().snapshot();
    assert_eq!((now.counts.failures, now.totals.cancelled), (0, 50));
    assert_eq!(now.state.as_str(), "closed");
}

#[tokio::test(start_paused = true)]
async fn the_delay_follows_the_latency() {
    let layer = HedgeLayer::builder()
        .protocol(Client::new())
        .quantile(0.9)
        .build()
        .unwrap();
    assert_eq!(layer.handle().snapshot().delay, None);
    let slow = upstream(|_| Step::Answers(Duration::from_millis(40), StatusCode::OK));
    for _ in 0..64 {
        send(&layer, &slow, get()).await.unwrap();
    }
    let delay = layer.handle().snapshot().delay.unwrap();
    assert!((40..=47).contains(&delay.as_millis()), "{delay:?}");
    // Calls that a hedge overtook count with the time they had: the delay does not drift down.
    let hanging = upstream(|number| match number % 2 {
        0 => Step::Hangs,
        _ => Step::Answers(Duration::from_millis(1), StatusCode::OK),
    });
    let patient = HedgeLayer::builder()
        .protocol(Client::new())
        .delay(Duration::from_millis(30))
        .quantile(0.5)
        .without_budget()
        .build()
        .unwrap();
    for _ in 0..64 {
        send(&patient, &slow, get()).await.unwrap();
    }
    for _ in 0..128 {
        send(&patient, &hanging, get()).await.unwrap();
    }
    assert!(patient.handle().snapshot().delay.unwrap() >= Duration::from_millis(40));
}

#[tokio::test(start_paused = true)]
async fn quick_failures_and_impatient_callers_teach_nothing() {
    let layer = HedgeLayer::builder()
        .protocol(Client::new())
        .quantile(0.5)
        .without_budget()
        .build()
        .unwrap();
    let slow = upstream(|_| Step::Answers(Duration::from_millis(40), StatusCode::OK));
    for _ in 0..64 {
        send(&layer, &slow, get()).await.unwrap();
    }
    let delay = layer.handle().snapshot().delay;
    let broken = upstream(|_| Step::Breaks(Duration::ZERO));
    for _ in 0..200 {
        assert!(send(&layer, &broken, get()).await.is_err());
        let impatient = send(&layer, &slow, get());
        assert!(
            tokio::time::timeout(Duration::from_millis(1), impatient)
                .await
                .is_err()
        );
    }
    assert_eq!(layer.handle().snapshot().delay, delay);
    // A quick failure says nothing either if the hedge after it succeeds.
    let half = upstream(|number| match number % 2 {
        0 => Step::Breaks(Duration::ZERO),
        _ => Step::Answers(Duration::from_millis(1), StatusCode::OK),
    });
    for _ in 0..200 {
        send(&layer, &half, get()).await.unwrap();
    }
    assert_eq!(layer.handle().snapshot().delay, delay);
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_after_the_hedge_teach_the_delay() {
    let layer = HedgeLayer::builder()
        .protocol(Client::new())
        .quantile(0.5)
        .without_budget()
        .build()
        .unwrap();
    let slow = upstream(|_| Step::Answers(Duration::from_millis(40), StatusCode::OK));
    for _ in 0..64 {
        send(&layer, &slow, get()).await.unwrap();
    }
    let hangs = upstream(|_| Step::Hangs);
    for _ in 0..200 {
        let call = send(&layer, &hangs, get());
        let left = tokio::time::timeout(Duration::from_millis(400), call).await;
        assert!(left.is_err());
    }
    let delay = layer.handle().snapshot().delay.unwrap();
    assert!(delay >= Duration::from_millis(200), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn by_default_a_call_has_one_hedge() {
    let layer = hedge().build().unwrap();
    let hangs = upstream(|_| Step::Hangs);
    let call = send(&layer, &hangs, get());
    assert!(tokio::time::timeout(20 * DELAY, call).await.is_err());
    assert_eq!((hangs.came(), layer.handle().snapshot().sent), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_loser_is_dropped_with_the_answer() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|number| match number {
        0 => Step::Hangs,
        _ => Step::Answers(Duration::ZERO, StatusCode::OK),
    });
    let own = upstream.clone();
    let mut service = layer.layer(service_fn(move |request| own.clone().answer(request)));
    let mut call = Box::pin(service.ready().await.unwrap().call(get()));
    call.as_mut().await.unwrap();
    // Though the future is still there.
    assert_eq!(upstream.dropped.load(Ordering::Relaxed), 1);
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_has_the_number_of_its_attempt() {
    let layer = hedge().max_hedges(2).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let numbers = seen.clone();
    let service = layer.layer(service_fn(
        move |request: Request<ReplayBody<Full<Bytes>>>| {
            let number = request.extensions().get::<Attempt>().map(|number| number.0);
            numbers.lock().unwrap().push(number);
            pending::<Result<Response<Full<Bytes>>, BoxError>>()
        },
    ));
    let call = service.oneshot(get());
    assert!(tokio::time::timeout(20 * DELAY, call).await.is_err());
    assert_eq!(*seen.lock().unwrap(), [None, Some(2), Some(3)]);
}

#[tokio::test(start_paused = true)]
async fn no_hedge_is_sent_at_the_deadline() {
    let total = TimeoutLayer::builder(DELAY)
        .total(true)
        .protocol(Client::new())
        .build()
        .unwrap();
    let layer = hedge().build().unwrap();
    let upstream = upstream(|_| Step::Hangs);
    let own = upstream.clone();
    let service = layer.layer(service_fn(move |request| own.clone().answer(request)));
    assert!(total.layer(service).oneshot(get()).await.is_err());
    assert_eq!(upstream.came(), 1);
}

/// The service is ready again only when the deadline has passed: no answer would be in time.
#[tokio::test(start_paused = true)]
async fn a_hedge_ready_after_the_deadline_is_not_sent() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|_| Step::Answers(DELAY * 4, StatusCode::SERVICE_UNAVAILABLE));
    let own = upstream.clone();
    let inner = service_fn(move |request| own.clone().answer(request));
    let limited = tower::limit::ConcurrencyLimit::new(inner, 1);
    let mut request = get();
    request.extensions_mut().insert(Deadline::after(DELAY * 2));
    let response = layer.layer(limited).oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.came()), (503, 1));
    assert_eq!(layer.handle().snapshot().sent, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_readiness_ends_with_the_deadline() {
    let layer = hedge().build().unwrap();
    let upstream = upstream(|_| Step::Answers(DELAY / 2, StatusCode::SERVICE_UNAVAILABLE));
    let own = upstream.clone();
    let inner = service_fn(move |request| own.clone().answer(request));
    let limited = tower::limit::ConcurrencyLimit::new(inner, 1);
    // Takes the only place once the first attempt has ended.
    let mut other = limited.clone();
    let mut call = layer.layer(limited);
    let call = call.ready().await.unwrap();
    let other = tokio::spawn(async move {
        let ready = other.ready().await.map(drop);
        pending::<()>().await;
        ready
    });
    yield_now().await;
    let start = Instant::now();
    let mut request = get();
    request.extensions_mut().insert(Deadline::after(DELAY * 2));
    let response = call.call(request).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.came()), (503, 1));
    assert!(within(start.elapsed(), 100), "{:?}", start.elapsed());
    other.abort();
}

/// The first attempt of a retry's second try once said that it was the first of all.
#[tokio::test(start_paused = true)]
async fn a_hedge_counts_on_from_the_retry_above() {
    let plain = Client::new().attempt_headers(true);
    for client in [plain, plain.before_retry_async(async |head| head)] {
        let hedge = HedgeLayer::builder().protocol(client).delay(DELAY);
        let hedge = hedge.without_budget().build().unwrap();
        let retry = RetryLayer::builder().protocol(client).without_budget();
        let retry = retry.build().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let numbers = seen.clone();
        let service = retry.layer(hedge.layer(service_fn(
            move |request: Request<ReplayBody<ReplayBody<Full<Bytes>>>>| {
                let told = &request.headers()["x-envoy-attempt-count"];
                let told: u32 = told.to_str().unwrap().parse().unwrap();
                assert_eq!(Attempt::of(request.extensions()), Attempt(told));
                numbers.lock().unwrap().push(told);
                async {
                    sleep(DELAY * 2).await;
                    Err::<Response<Full<Bytes>>, BoxError>("broken".into())
                }
            },
        )));
        service.oneshot(get()).await.unwrap_err();
        assert_eq!(*seen.lock().unwrap(), [1, 2, 2, 3, 3, 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_hedge_waits_for_readiness() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let inner = service_fn(move |call: u32| {
        seen.lock().unwrap().push(call);
        pending::<Result<u32, BoxError>>()
    });
    let limited = tower::limit::ConcurrencyLimit::new(inner, 1);
    let layer = HedgeLayer::builder()
        .protocol(Plain::new().idempotent())
        .delay(DELAY)
        .build()
        .unwrap();
    let call = tokio::spawn(layer.layer(limited).oneshot(1));
    for _ in 0..3 {
        advance(DELAY * 2).await;
        yield_now().await;
    }
    // The first attempt holds the only place, so the hedge is not sent, and costs nothing.
    assert_eq!(
        (order.lock().unwrap().len(), layer.handle().snapshot().sent),
        (1, 0)
    );
    call.abort();
}

#[test]
fn a_delay_of_an_hour_is_the_longest() {
    for delay in [Duration::from_micros(100), Duration::from_secs(3600)] {
        let builder = HedgeLayer::builder().delay(delay).protocol(Plain::new());
        let layer = builder.build().unwrap();
        assert_eq!(layer.handle().config().delay, delay);
    }
}

#[test]
fn bad_settings_are_errors_that_name_the_fix() {
    for builder in [
        HedgeLayer::builder().delay(Duration::ZERO),
        HedgeLayer::builder().delay(Duration::from_micros(99)),
        HedgeLayer::builder().delay(Duration::from_secs(3600) + Duration::from_nanos(1)),
        HedgeLayer::builder().delay(Duration::MAX),
        HedgeLayer::builder().quantile(f64::NAN),
        HedgeLayer::builder().quantile(1.0),
        HedgeLayer::builder().max_hedges(0),
        HedgeLayer::builder().max_hedges(usize::MAX),
        HedgeLayer::builder().delay(DELAY).timeout(DELAY),
        HedgeLayer::builder().timeout(Duration::from_millis(1)),
    ] {
        let error = builder
            .name("search")
            .protocol(Plain::new())
            .build()
            .unwrap_err();
        assert!(
            error.to_string().starts_with("hedge (search): `"),
            "{error}"
        );
    }
}

#[test]
fn an_update_changes_all_or_nothing() {
    let layer = hedge().timeout(20 * DELAY).name("search").build().unwrap();
    let handle = layer.handle();
    let before = handle.config();
    assert_eq!((before.delay, before.max_hedges), (DELAY, 1));
    let update = |delay, max_hedges| {
        let mut config = before;
        (config.delay, config.max_hedges) = (delay, max_hedges);
        handle.update(config)
    };
    for (delay, max_hedges) in [
        (Duration::ZERO, 3),
        (20 * DELAY, 3),
        (2 * DELAY, 0),
        (2 * DELAY, 11),
    ] {
        let error = update(delay, max_hedges).unwrap_err();
        assert!(error.to_string().starts_with("hedge (search): `"));
        assert_eq!(handle.config(), before);
    }
    let changed = update(2 * DELAY, 10);
    let expected = "hedge: `delay` from 50ms to 100ms, hedge: `max_hedges` from 1 to 10";
    assert_eq!(changed.unwrap().to_string(), expected);
    assert!(handle.update(handle.config()).unwrap().is_empty());
    assert_eq!(handle.snapshot().delay, Some(2 * DELAY));
}

#[tokio::test(start_paused = true)]
async fn an_update_counts_for_calls_that_follow() {
    let layer = hedge().delay(20 * DELAY).max_hedges(2).without_budget();
    let layer = layer.build().unwrap();
    let upstream = upstream(|_| Step::Hangs);
    let hedged_within = async |time| {
        let before = upstream.came();
        let call = tokio::time::timeout(time, send(&layer, &upstream, get())).await;
        assert!(call.is_err());
        upstream.came() - before
    };
    assert_eq!(hedged_within(15 * DELAY).await, 1);
    assert_eq!(hedged_within(50 * DELAY).await, 3);
    let mut config = layer.handle().config();
    (config.delay, config.max_hedges) = (DELAY, 1);
    layer.handle().update(config).unwrap();
    assert_eq!(hedged_within(15 * DELAY).await, 2);
}

#[tokio::test(start_paused = true)]
async fn by_default_a_client_stores_one_hedge() {
    let layer = hedge().build().unwrap();
    let slow = upstream(|_| Step::Answers(DELAY * 3, StatusCode::OK));
    let hedged = async |calls: u64| {
        let before = layer.handle().snapshot().sent;
        for _ in 0..calls {
            send(&layer, &slow, get()).await.unwrap();
        }
        layer.handle().snapshot().sent - before
    };
    assert_eq!(hedged(40).await, 1);
    // However long nothing is called: no more has been stored.
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(hedged(20).await, 1);
    // A fiftieth for each success.
    assert_eq!(hedged(500).await, 10);
}

#[tokio::test(start_paused = true)]
async fn hedging_stops_while_all_calls_are_late() {
    let builder = HedgeLayer::builder().protocol(Client::new()).quantile(0.95);
    let layer = builder.without_budget().build().unwrap();
    let answers =
        |millis| upstream(move |_| Step::Answers(Duration::from_millis(millis), StatusCode::OK));
    for _ in 0..100 {
        send(&layer, &answers(10), get()).await.unwrap();
    }
    let before = layer.handle().snapshot();
    assert_eq!(before.suppressed, 0, "no call was late");
    for _ in 0..30 {
        send(&layer, &answers(500), get()).await.unwrap();
    }
    let now = layer.handle().snapshot();
    let sent = now.sent - before.sent;
    let due = 20..=30 - sent;
    assert!(sent < 5 && due.contains(&now.suppressed), "{now:?}");
    // And goes on once they are not.
    for _ in 0..40 {
        send(&layer, &answers(10), get()).await.unwrap();
    }
    let hanging = upstream(|number| match number {
        0 => Step::Hangs,
        _ => Step::Answers(Duration::ZERO, StatusCode::OK),
    });
    send(&layer, &hanging, get()).await.unwrap();
    assert_eq!(layer.handle().snapshot().sent, now.sent + 1);
}
