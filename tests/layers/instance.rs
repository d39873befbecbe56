//! The instance that was asked is the instance that is called: a call that is rejected, or has to
//! wait, frees what its inner service had reserved for it, over tower's `ConcurrencyLimit` and
//! `Buffer`.

use std::{convert::Infallible, future::pending, time::Duration};

use futures::FutureExt;
use tokio::time::{Instant, timeout};
use tower::{
    BoxError, Layer, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit, service_fn,
    util::BoxCloneSyncService,
};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::TokenBucket,
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
};

type Inner = BoxCloneSyncService<u32, u32, BoxError>;
type Outer = BoxCloneSyncService<u32, u32, BoxError>;

const SECOND: Duration = Duration::from_secs(1);
const RATE: Rate = Rate::per_second(10);

/// Services with room for one, which whoever is readied holds.
fn rooms_for_one() -> [(&'static str, Inner); 2] {
    let echo = service_fn(async |n: u32| Ok::<_, Infallible>(n));
    let limited = ConcurrencyLimit::new(echo.map_err(BoxError::from), 1);
    let buffered = Buffer::new(service_fn(async |n: u32| Ok::<_, BoxError>(n)), 1);
    [
        ("concurrency limit", BoxCloneSyncService::new(limited)),
        ("buffer", BoxCloneSyncService::new(buffered)),
    ]
}

fn over<L>(layer: &L, inner: &Inner) -> Outer
where
    L: Layer<Inner>,
    L::Service: Service<u32, Response = u32, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    BoxCloneSyncService::new(layer.layer(inner.clone()))
}

/// Layers that reject every call once it was made ready, and what they do so with.
async fn rejecting(inner: &Inner) -> Vec<(&'static str, Outer)> {
    let empty = || RateLimitLayer::builder(Rate::per_day(1)).burst(1);
    let used_up = async |mut outer: Outer| {
        outer.ready().await.unwrap().call(0).await.unwrap();
        outer
    };
    let open = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    let hangs = service_fn(async |_: u32| pending::<Result<u32, BoxError>>().await);
    let mut held = Box::pin(bulkhead.layer(hangs).oneshot(0));
    assert!((&mut held).now_or_never().is_none());
    // Its place is taken for good.
    std::mem::forget(held);
    let full = BulkheadLayer::builder(1).gate().unwrap();
    let handle = full.handle();
    let together = GateLayer::new((
        CircuitBreakerLayer::builder().gate().unwrap(),
        empty().gate().unwrap(),
        full,
    ))
    .protocol(Plain::new());
    let limit = empty().build().unwrap();
    let keyed = empty().keyed_by(|_: &u32| Some(())).build().unwrap();
    let own = |(): &()| TokenBucket::new(Rate::per_day(1), 1);
    let per_key = empty().per_key(|_: &u32| Some(()), own).build().unwrap();
    let cases = vec![
        ("rate limit", used_up(over(&limit, inner)).await),
        ("keyed rate limit", used_up(over(&keyed, inner)).await),
        ("per-key rate limit", used_up(over(&per_key, inner)).await),
        ("bulkhead", over(&bulkhead, inner)),
        ("three gates", used_up(over(&together, inner)).await),
        ("circuit breaker", {
            let outer = over(&open, inner);
            open.handle().force_open();
            outer
        }),
    ];
    assert_eq!(handle.snapshot().in_flight, 0);
    cases
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_frees_what_was_reserved() {
    for (room, inner) in rooms_for_one() {
        for (layer, mut outer) in rejecting(&inner).await {
            let error = outer.ready().await.unwrap().call(1).await.unwrap_err();
            assert!(Rejected::find(&*error).is_some(), "{layer}");
            // The readied service idles on, as on a connection that is kept alive.
            let mut other = inner.clone();
            let ready = timeout(SECOND, other.ready()).await;
            assert!(ready.is_ok(), "{layer} over a {room}");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads tokio's paused clock"
)]
#[tokio::test(start_paused = true)]
async fn a_call_that_waits_frees_what_was_reserved() {
    for (room, inner) in rooms_for_one() {
        let builder = || RateLimitLayer::builder(RATE).burst(1).max_wait(SECOND);
        let own = |(): &()| TokenBucket::new(RATE, 1);
        let cases = [
            ("rate limit", over(&builder().build().unwrap(), &inner)),
            (
                "keyed",
                over(
                    &builder().keyed_by(|_: &u32| Some(())).build().unwrap(),
                    &inner,
                ),
            ),
            (
                "per key",
                over(
                    &builder().per_key(|_: &u32| Some(()), own).build().unwrap(),
                    &inner,
                ),
            ),
        ];
        for (layer, mut outer) in cases {
            let start = Instant::now();
            for n in 0..3 {
                let call = outer.ready().await.unwrap().call(n);
                let answer = timeout(SECOND, call).await;
                assert_eq!(answer.expect(layer).unwrap(), n, "{layer} over a {room}");
            }
            assert_eq!(start.elapsed().as_millis(), 200, "{layer} over a {room}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_holds_no_place_while_it_waits() {
    for (room, inner) in rooms_for_one() {
        let failing = inner
            .clone()
            .and_then(async |n| Err::<u32, BoxError>(format!("{n}").into()));
        let retry = RetryLayer::builder()
            .protocol(Plain::new().idempotent())
            .build()
            .unwrap();
        let mut outer = retry.layer(failing);
        let call = tokio::spawn(outer.ready().await.unwrap().call(1));
        tokio::task::yield_now().await;
        let mut other = inner.clone();
        assert!(
            timeout(Duration::from_millis(1), other.ready())
                .await
                .is_ok(),
            "{room}"
        );
        drop(other);
        assert_eq!(call.await.unwrap().unwrap_err().to_string(), "1", "{room}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_pending_when_the_circuit_opens_fails_fast() {
    for (room, inner) in rooms_for_one() {
        let breaker = CircuitBreakerLayer::builder()
            .protocol(Plain::new())
            .build()
            .unwrap();
        let mut holder = inner.clone();
        holder.ready().await.unwrap();
        let mut outer = over(&breaker, &inner);
        let caller = tokio::spawn(async move { outer.ready().await.unwrap().call(1).await });
        tokio::task::yield_now().await;
        breaker.handle().force_open();
        let error = timeout(SECOND, caller)
            .await
            .expect(room)
            .unwrap()
            .unwrap_err();
        assert_eq!(
            Rejected::find(&*error).unwrap().kind,
            RejectedKind::CircuitOpen
        );
        // It has left the inner queue as well: the next in it gets the place.
        drop(holder);
        assert!(
            timeout(SECOND, inner.clone().ready()).await.is_ok(),
            "{room}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_reopened_circuit_ends_a_wait_for_readiness() {
    let (_, inner) = rooms_for_one().into_iter().next().unwrap();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let mut outer = over(&breaker, &inner);
    breaker.handle().force_open();
    outer.ready().await.unwrap();
    breaker.handle().close();
    let mut holder = inner.clone();
    holder.ready().await.unwrap();
    // Admitted, but the inner service, which was not asked, has no room.
    let caller = tokio::spawn(outer.call(1));
    tokio::task::yield_now().await;
    breaker.handle().force_open();
    let error = timeout(SECOND, caller).await.unwrap().unwrap().unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::CircuitOpen
    );
}
