//! Bulkheads whose limit learns.
#![allow(clippy::disallowed_methods, reason = "tests read time")]

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    algorithm::{AdaptiveLimit, Aimd, Gradient2, Vegas, adaptive::Window},
    bulkhead::{BulkheadHandle, BulkheadLayer},
    circuit_breaker::CircuitBreakerLayer,
    gate::GateLayer,
    protocol::Plain,
};

const SERVICE: Duration = Duration::from_millis(10);

async fn work(time: Duration) -> Result<(), Infallible> {
    sleep(time).await;
    Ok(())
}

/// So many callers that call again as soon as they have an answer, for so long.
async fn press<S>(service: S, callers: usize, time: Duration)
where
    S: Service<Duration, Error = BoxError> + Clone,
{
    let end = Instant::now() + time;
    let callers = (0..callers).map(|_| async {
        let mut service = service.clone();
        while Instant::now() < end {
            if service.ready().await.unwrap().call(SERVICE).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        }
    });
    futures::future::join_all(callers).await;
}

fn layers() -> [(&'static str, BulkheadLayer); 3] {
    let builder = || BulkheadLayer::builder(500);
    [
        ("aimd", builder().adaptive(Aimd::default()).build().unwrap()),
        (
            "vegas",
            builder().adaptive(Vegas::default()).build().unwrap(),
        ),
        (
            "gradient2",
            builder().adaptive(Gradient2::default()).build().unwrap(),
        ),
    ]
}

fn limit(handle: &BulkheadHandle) -> usize {
    handle.snapshot().limit
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_under_load_up_to_its_maximum() {
    for (name, layer) in layers() {
        let handle = layer.handle();
        assert_eq!(limit(&handle), 20, "{name}");
        press(layer.layer(service_fn(work)), 100, Duration::from_secs(2)).await;
        assert!(limit(&handle) > 30, "{name}: {}", limit(&handle));
        assert_eq!(handle.snapshot().in_flight, 0, "{name}");
        assert_eq!(handle.snapshot().rtt, Some(SERVICE), "{name}");
        handle.set_limit(25).unwrap();
        press(layer.layer(service_fn(work)), 50, Duration::from_secs(1)).await;
        assert!(limit(&handle) <= 25, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn sequential_calls_never_raise_the_limit() {
    for (name, layer) in layers() {
        press(layer.layer(service_fn(work)), 1, Duration::from_secs(20)).await;
        assert_eq!(limit(&layer.handle()), 20, "{name}");
        assert_eq!(layer.handle().snapshot().rtt, Some(SERVICE), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_low_maximum_is_the_start() {
    let layer = BulkheadLayer::builder(5).adaptive(Vegas::default());
    assert_eq!(limit(&layer.build().unwrap().handle()), 5);
}

#[tokio::test(start_paused = true)]
async fn dropped_calls_tell_nothing() {
    let layer = BulkheadLayer::builder(500).adaptive(Aimd::default());
    let layer = layer.build().unwrap();
    let mut service = layer.layer(service_fn(work));
    for _ in 0..500 {
        let call = service.ready().await.unwrap().call(SERVICE);
        timeout(SERVICE / 2, call).await.unwrap_err();
    }
    assert_eq!(layer.handle().snapshot().rtt, None);
    assert_eq!(layer.handle().snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_narrow_upstream_is_found() {
    let layer = BulkheadLayer::builder(500).adaptive(Vegas::default());
    let layer = layer.build().unwrap();
    // Five work at once, the others wait for them.
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(5));
    let service = layer.layer(service_fn(move |time| {
        let places = places.clone();
        async move {
            let _place = places.acquire().await.unwrap();
            work(time).await
        }
    }));
    press(service, 30, Duration::from_secs(15)).await;
    assert!(
        (3..=12).contains(&limit(&layer.handle())),
        "{}",
        limit(&layer.handle())
    );
}

#[derive(Debug)]
struct Panics;

impl AdaptiveLimit for Panics {
    fn initial(&self) -> usize {
        30
    }

    fn update(&mut self, _: &Window) -> usize {
        panic!("foreign")
    }

    fn fresh(&self) -> Box<dyn AdaptiveLimit> {
        Box::new(Self)
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_algorithm_leaks_no_place() {
    let layer = BulkheadLayer::builder(500).adaptive(Panics);
    let layer = layer.build().unwrap();
    let mut panics = 0;
    for _ in 0..400 {
        let mut service = layer.layer(service_fn(work));
        let call = service.ready().await.unwrap().call(SERVICE);
        panics += usize::from(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }
    assert_eq!(panics, 1);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.in_flight, snapshot.limit), (0, 30));
}

/// Wants as little as possible.
#[derive(Debug)]
struct Least;

impl AdaptiveLimit for Least {
    fn initial(&self) -> usize {
        30
    }

    fn update(&mut self, _: &Window) -> usize {
        0
    }

    fn fresh(&self) -> Box<dyn AdaptiveLimit> {
        Box::new(Self)
    }
}

#[tokio::test(start_paused = true)]
async fn the_least_limit_is_one_call() {
    let layer = BulkheadLayer::builder(500).adaptive(Least);
    let layer = layer.build().unwrap();
    press(layer.layer(service_fn(work)), 10, Duration::from_secs(5)).await;
    assert_eq!(limit(&layer.handle()), 1);
}

#[tokio::test(start_paused = true)]
async fn each_key_learns_its_own_limit() {
    let layer = BulkheadLayer::builder(500)
        .adaptive(Vegas::default())
        .keyed_by(|time: &Duration| Some(*time))
        .build()
        .unwrap();
    press(layer.layer(service_fn(work)), 100, Duration::from_secs(2)).await;
    let mut service = layer.layer(service_fn(work));
    service
        .ready()
        .await
        .unwrap()
        .call(SERVICE * 2)
        .await
        .unwrap();
    let of = |time| layer.handle().key(&time).map(|handle| limit(&handle));
    assert!(of(SERVICE) > Some(30));
    assert_eq!(of(SERVICE * 2), Some(20));
    layer.handle().set_limit(10).unwrap();
    assert_eq!((of(SERVICE), of(SERVICE * 2)), (Some(10), Some(10)));
}

#[tokio::test(start_paused = true)]
async fn it_learns_among_other_gates() {
    let bulkhead = BulkheadLayer::builder(500)
        .adaptive(Vegas::default())
        .gate()
        .unwrap();
    let handle = bulkhead.handle();
    let breaker = CircuitBreakerLayer::builder().gate().unwrap();
    let layer = GateLayer::new((breaker, bulkhead)).protocol(Plain::new());
    press(layer.layer(service_fn(work)), 100, Duration::from_secs(2)).await;
    assert!(limit(&handle) > 30);
    assert_eq!(handle.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn waiters_come_in_when_the_limit_rises() {
    let layer = BulkheadLayer::builder(500)
        .adaptive(Vegas::default())
        .max_wait(Duration::from_secs(1))
        .build()
        .unwrap();
    press(layer.layer(service_fn(work)), 60, Duration::from_secs(3)).await;
    let snapshot = layer.handle().snapshot();
    assert!(snapshot.limit >= 60, "{snapshot:?}");
    assert!(snapshot.waited > 0, "{snapshot:?}");
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_update_while_calls_wait_bounds_what_is_learned() {
    let layer = BulkheadLayer::builder(500)
        .adaptive(Vegas::default())
        .max_wait(Duration::from_secs(1))
        .build()
        .unwrap();
    let handle = layer.handle();
    let callers = press(layer.layer(service_fn(work)), 60, Duration::from_secs(3));
    let changes = async {
        sleep(Duration::from_millis(1005)).await;
        assert!(limit(&handle) > 30);
        // A cut holds at once: all above it wait, and what is learned stays below.
        handle.set_limit(10).unwrap();
        assert!(limit(&handle) <= 10);
        for _ in 0..90 {
            sleep(Duration::from_millis(11)).await;
            let now = handle.snapshot();
            assert!(now.limit <= 10 && now.in_flight <= 10, "{now:?}");
            assert_eq!(now.in_flight + now.waiting, 60, "{now:?}");
        }
        handle.set_limit(500).unwrap();
    };
    futures::future::join(callers, changes).await;
    let now = handle.snapshot();
    assert!(now.limit > 20, "{now:?}");
    assert_eq!((now.in_flight, now.waiting), (0, 0));
    assert_eq!(now.totals.rejected.local(), 0, "{now:?}");
}

/// A body that takes long is the reader's doing; the call counts as in flight to its end.
#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn a_call_is_timed_to_the_head_of_its_response() {
    use http_body_util::{BodyExt, Full};
    use tower_keep::protocol::http::{Client, UntilBodyEnd};

    let layer = BulkheadLayer::builder(500)
        .adaptive(Vegas::default())
        .protocol(UntilBodyEnd::new(Client::new()))
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(async |()| {
        sleep(SERVICE).await;
        Ok::<_, BoxError>(http::Response::new(Full::new(bytes::Bytes::from("hi"))))
    }));
    for _ in 0..200 {
        let response = service.ready().await.unwrap().call(()).await.unwrap();
        sleep(SERVICE * 7).await;
        assert_eq!(layer.handle().snapshot().in_flight, 1);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(layer.handle().snapshot().rtt, Some(SERVICE));
}
