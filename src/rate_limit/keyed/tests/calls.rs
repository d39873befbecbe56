//! Waiting, settling and honoring hints, for each key as for a plain rate limit.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{JoinHandle, yield_now},
    time::advance,
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::{
    Rejected,
    ambient::clock::Clock,
    rate_limit::{KeyedRateLimitHandle, Rate, RateLimitBuilder, RateLimitLayer},
};

type Log = Arc<Mutex<Vec<(char, u64)>>>;

/// Records the tenant of each call, and its time in milliseconds.
fn noting() -> (
    impl Service<char, Response = char, Error = BoxError, Future: Send> + Clone + Send + 'static,
    Log,
) {
    let (log, clock) = (Log::default(), Clock::start());
    let noted = log.clone();
    let service = service_fn(move |tenant: char| {
        noted
            .lock()
            .unwrap()
            .push((tenant, clock.now() / 1_000_000));
        async move { Ok::<_, BoxError>(tenant) }
    });
    (service, log)
}

fn ten_a_second() -> RateLimitBuilder {
    RateLimitLayer::builder(Rate::per_second(10))
        .burst(1)
        .max_wait(Duration::from_secs(60))
}

fn itself(tenant: &char) -> Option<char> {
    Some(*tenant)
}

/// Spawns a call for each tenant, in order.
fn spawned<L>(layer: &L, tenants: &str) -> (Vec<JoinHandle<Result<char, BoxError>>>, Log)
where
    L: Layer<tower::util::BoxCloneService<char, char, BoxError>>,
    L::Service: Service<char, Response = char, Error = BoxError, Future: Send> + Send + 'static,
{
    let (inner, log) = noting();
    let inner = tower::util::BoxCloneService::new(inner);
    (
        tenants
            .chars()
            .map(|tenant| tokio::spawn(layer.layer(inner.clone()).oneshot(tenant)))
            .collect(),
        log,
    )
}

fn sorted(log: &Log) -> Vec<(char, u64)> {
    let mut log = log.lock().unwrap().clone();
    log.sort_unstable();
    log
}

fn lines<K>(handle: &KeyedRateLimitHandle<K>) -> usize {
    handle.queues()
}

fn hint(error: &BoxError) -> Option<Duration> {
    Rejected::find(&**error).unwrap().retry_after
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_queue_that_delays_no_other_key() {
    // given
    let layer = ten_a_second().keyed_by(itself).build().unwrap();
    let handle = layer.handle();
    // when: three calls of one tenant, of which two have to wait, and then two calls of another.
    let (tasks, log) = spawned(&layer, "aaabb");
    yield_now().await;
    assert_eq!((handle.snapshot().waiting, lines(&handle)), (3, 2));
    assert_eq!(handle.snapshot_of(&'a').waiting, 2);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // then
    assert_eq!(
        sorted(&log),
        [('a', 0), ('a', 100), ('a', 200), ('b', 0), ('b', 100)]
    );
    assert_eq!((handle.snapshot().waiting, lines(&handle)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiters_of_several_keys_are_woken_once_each() {
    let layer = ten_a_second().keyed_by(itself).build().unwrap();
    let (inner, log) = noting();
    let polls = Arc::new(AtomicUsize::new(0));
    let calls = "abcd".chars().cycle().take(400).map(|tenant| {
        let (mut call, polls) = (
            Box::pin(layer.layer(inner.clone()).oneshot(tenant)),
            polls.clone(),
        );
        tokio::spawn(poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            call.as_mut().poll(cx)
        }))
    });
    for task in calls.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    let expected: Vec<_> = "abcd"
        .chars()
        .flat_map(|tenant| (0..100).map(move |slot| (tenant, slot * 100)))
        .collect();
    assert_eq!(sorted(&log), expected);
    assert!(polls.load(Ordering::Relaxed) < 1000, "{polls:?} polls");
    assert_eq!(lines(&layer.handle()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_advances_its_key_and_drops_an_empty_queue() {
    let layer = ten_a_second().keyed_by(itself).build().unwrap();
    let (tasks, log) = spawned(&layer, "aaabb");
    yield_now().await;
    [1, 4].into_iter().for_each(|task| tasks[task].abort());
    yield_now().await;
    assert_eq!(lines(&layer.handle()), 1);
    for task in tasks {
        let _ = task.await;
    }
    assert_eq!(sorted(&log), [('a', 0), ('a', 100), ('b', 0)]);
    assert_eq!(lines(&layer.handle()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_max_wait_is_rejected_and_counted() {
    // given
    let layer = RateLimitLayer::builder(Rate::per_minute(1)).max_wait(Duration::from_millis(100));
    let layer = layer
        .keyed_by(itself)
        .heavy_hitters(|tenant: &char| tenant.to_string())
        .build()
        .unwrap();
    let handle = layer.handle();
    // when
    let (tasks, _) = spawned(&layer, "aa");
    for (task, expected) in tasks.into_iter().zip([None, Some(Duration::from_secs(60))]) {
        assert_eq!(task.await.unwrap().err().as_ref().and_then(hint), expected);
    }
    handle.close_for(&'b', Duration::from_millis(50));
    let (tasks, _) = spawned(&layer, "b");
    yield_now().await;
    assert_eq!(handle.snapshot().waiting, 1);
    handle.close_for(&'b', Duration::from_secs(30));
    for task in tasks {
        assert_eq!(
            hint(&task.await.unwrap().unwrap_err()),
            Some(Duration::from_secs(30))
        );
    }
    // then
    let told: Vec<_> = handle
        .heavy_hitters(9)
        .into_iter()
        .map(|key| (key.label, key.rejections))
        .collect();
    assert_eq!(told, [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!(lines(&handle), 0);
}

#[tokio::test(start_paused = true)]
async fn a_higher_burst_admits_the_waiters_of_every_key() {
    let layer = RateLimitLayer::builder(Rate::per_minute(1))
        .max_wait(Duration::from_secs(60))
        .keyed_by(itself)
        .build()
        .unwrap();
    let (tasks, log) = spawned(&layer, "aabb");
    yield_now().await;
    advance(Duration::from_secs(1)).await;
    layer.handle().set_rate(Rate::per_minute(1), 2).unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(sorted(&log), [('a', 0), ('a', 1000), ('b', 0), ('b', 1000)]);
}

#[tokio::test(start_paused = true)]
async fn a_response_settles_what_its_own_key_has_used() {
    let layer = RateLimitLayer::builder(Rate::per_second(10))
        .burst(100)
        .cost(|_: &(char, u32)| 50);
    let layer = layer
        .settle(|used: &u32| *used)
        .keyed_by(|order: &(char, u32)| Some(order.0))
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |order: (char, u32)| {
        Ok::<_, BoxError>(order.1)
    }));
    let left = |tenant| {
        let now = layer.handle().snapshot_of(&tenant);
        assert_eq!(now.waiting, 0);
        now.available
    };
    assert!(service.clone().oneshot(('a', 10)).await.is_ok());
    assert!(service.clone().oneshot(('b', 140)).await.is_ok());
    assert_eq!((left('a'), left('b'), left('c')), (90, 0, 100));
    assert_eq!(
        hint(&service.oneshot(('b', 0)).await.unwrap_err()),
        Some(Duration::from_secs(9))
    );
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn a_retry_after_closes_only_the_key_that_received_it() {
    let layer =
        RateLimitLayer::builder(Rate::per_second(100)).honor_retry_after(Duration::from_secs(60));
    let layer = layer
        .protocol(crate::protocol::http::Client::new())
        .keyed_by(itself)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |host: char| {
        let response = http::Response::builder()
            .status(if host == 'a' { 429 } else { 200 })
            .header("retry-after", "30");
        Ok::<_, BoxError>(response.body(()).unwrap())
    }));
    assert!(service.clone().oneshot('a').await.is_ok());
    assert_eq!(
        hint(&service.clone().oneshot('a').await.unwrap_err()),
        Some(Duration::from_secs(30))
    );
    assert!(service.clone().oneshot('b').await.is_ok());
    assert!(service.oneshot('b').await.is_ok());
}
