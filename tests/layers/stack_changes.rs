//! Parts that are added to running stacks, and removed from them.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::{task::yield_now, time::sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    observe::Registry,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    stack::{self, Changes},
};

const SECOND: Duration = Duration::from_secs(1);

/// Answers after that time.
fn after(
    time: Duration,
) -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + 'static {
    service_fn(move |number: u32| async move {
        sleep(time).await;
        Ok(number)
    })
}

fn kind<T>(result: Result<T, BoxError>) -> Option<RejectedKind> {
    let error = result.err()?;
    Rejected::find(&*error).map(|rejected| rejected.kind)
}

fn a_minute(calls: u64) -> Rate {
    Rate::new(calls, 60 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_added_removed_and_added_again() {
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .build()
        .unwrap();
    let service = stack.layer(after(Duration::ZERO));
    let early = stack.handle();
    assert!(early.rate_limit.is_none() && early.snapshot().rate_limit.is_none());
    let admitted = async |calls: u32| {
        let mut admitted = 0;
        for number in 0..calls {
            admitted += u32::from(service.clone().oneshot(number).await.is_ok());
        }
        admitted
    };
    assert_eq!(admitted(50).await, 50);

    let added = early.update(Changes::new().rate(a_minute(60), 3)).unwrap();
    let told = "rate_limit: `rate` from off to 60 per 60s, rate_limit: `burst` from off to 3";
    assert_eq!(added.to_string(), told);
    // A full burst, whatever was sent before.
    assert_eq!(admitted(9).await, 3);
    assert_eq!(early.snapshot().rate_limit.unwrap().available, 0);
    assert!(early.rate_limit.is_none() && stack.handle().rate_limit.is_some());

    let changed = early.update(Changes::new().rate(a_minute(120), 3)).unwrap();
    assert_eq!(
        changed.to_string(),
        "rate_limit: `rate` from 1 per 1s to 120 per 60s"
    );
    let removed = early.update(Changes::new().without_rate()).unwrap();
    let told = "rate_limit: `rate` from 2 per 1s to off, rate_limit: `burst` from 3 to off";
    assert_eq!(removed.to_string(), told);
    assert_eq!(admitted(50).await, 50);
    assert!(stack.handle().rate_limit.is_none() && early.snapshot().rate_limit.is_none());
    assert!(
        early
            .update(Changes::new().without_rate())
            .unwrap()
            .is_empty()
    );

    // It goes on where it was: what was used is paid off meanwhile.
    sleep(2 * SECOND).await;
    early.update(Changes::new().rate(a_minute(120), 3)).unwrap();
    assert_eq!(admitted(9).await, 1);
}

#[tokio::test(start_paused = true)]
async fn waiters_go_when_their_rate_is_removed() {
    let limit = RateLimitLayer::builder(a_minute(1)).max_wait(600 * SECOND);
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .rate_limit(limit);
    let stack = stack.without_total_timeout().build().unwrap();
    let (handle, service) = (stack.handle(), stack.layer(after(Duration::ZERO)));
    let calls = || (0..6).map(|number| tokio::spawn(service.clone().oneshot(number)));
    let begun = tokio::time::Instant::now();
    let waiting: Vec<_> = calls().collect();
    yield_now().await;
    assert_eq!(handle.snapshot().rate_limit.unwrap().waiting, 5);

    handle.update(Changes::new().without_rate()).unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert!(
        begun.elapsed() < Duration::from_millis(5),
        "{:?}",
        begun.elapsed()
    );

    // They have taken nothing, and left the queue.
    handle.update(Changes::new().rate(a_minute(60), 1)).unwrap();
    let now = handle.snapshot().rate_limit.unwrap();
    assert_eq!((now.waiting, now.available), (0, 0));
    sleep(60 * SECOND).await;
    assert_eq!(handle.snapshot().rate_limit.unwrap().available, 1);
    // And calls wait again.
    let waiting: Vec<_> = calls().collect();
    yield_now().await;
    assert_eq!(handle.snapshot().rate_limit.unwrap().waiting, 5);
    drop(waiting);
}

/// What was taken is given back to the limit it was taken from, and nothing else is.
#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_late_gives_nothing_back() {
    let limit = RateLimitLayer::builder(a_minute(1))
        .burst(4)
        .max_wait(600 * SECOND);
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .rate_limit(limit);
    let stack = stack.without_total_timeout().build().unwrap();
    let (handle, service) = (stack.handle(), stack.layer(after(Duration::ZERO)));
    let mut waiting = Vec::new();
    for number in 0..8 {
        let mut call = Box::pin(service.clone().oneshot(number));
        let _ = futures::poll!(&mut call);
        waiting.push(call);
    }
    handle.update(Changes::new().without_rate()).unwrap();
    handle.update(Changes::new().rate(a_minute(1), 4)).unwrap();
    drop(waiting);
    assert_eq!(handle.snapshot().rate_limit.unwrap().available, 0);
    assert_eq!(handle.snapshot().rate_limit.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_gets_a_rate_while_it_runs() {
    let stack = stack::server().http().max_in_flight(9).build().unwrap();
    let app = axum::Router::new()
        .route("/", axum::routing::get(async || "hello"))
        .layer(stack.clone());
    let status = async || {
        let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        (
            response.status().as_u16(),
            response.headers().contains_key("retry-after"),
        )
    };
    assert_eq!(status().await, (200, false));
    let handle = stack.handle();
    handle.update(Changes::new().rate(a_minute(1), 1)).unwrap();
    assert_eq!(status().await, (200, false));
    assert_eq!(status().await, (429, true));
    handle.update(Changes::new().without_rate()).unwrap();
    assert_eq!(status().await, (200, false));

    let error = handle
        .update(Changes::new().without_max_in_flight())
        .unwrap_err();
    assert_eq!(error.field, "max_in_flight");
    let error = handle
        .update(Changes::new().rate(a_minute(0), 1))
        .unwrap_err();
    assert_eq!(error.field, "rate");
    assert!(handle.snapshot().rate_limit.is_none(), "it stays off");
}

#[tokio::test(start_paused = true)]
async fn a_rate_has_metrics_once_it_was_added() {
    let registry = Registry::new();
    let stack = registry.with(|| {
        stack::client()
            .plain(Plain::new().idempotent())
            .name("db")
            .build()
    });
    let (handle, service) = (stack.as_ref().unwrap().handle(), after(Duration::ZERO));
    let service = stack.unwrap().layer(service);
    let of_limit = || {
        let instances = registry.snapshot().into_iter();
        let mut limits = instances.filter(|instance| instance.layer == "rate_limit");
        limits
            .next()
            .map(|limit| (limit.totals.admitted, limit.config))
    };
    service.clone().oneshot(1).await.unwrap();
    assert_eq!(of_limit(), None);
    handle.update(Changes::new().rate(a_minute(60), 2)).unwrap();
    service.clone().oneshot(1).await.unwrap();
    assert_eq!(of_limit(), Some((1, vec![("rate", 1.0), ("burst", 2.0)])));
    // What it has counted stays, its thresholds go.
    handle.update(Changes::new().without_rate()).unwrap();
    service.clone().oneshot(1).await.unwrap();
    assert_eq!(of_limit(), Some((1, vec![])));
}

#[tokio::test(start_paused = true)]
async fn places_are_added_and_removed() {
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .build()
        .unwrap();
    let (handle, service) = (stack.handle(), stack.layer(after(SECOND)));
    let call = || tokio::spawn(service.clone().oneshot(1));
    let running: Vec<_> = (0..3).map(|_| call()).collect();
    yield_now().await;
    // Those in flight count.
    handle.update(Changes::new().max_in_flight(3)).unwrap();
    assert_eq!(
        kind(call().await.unwrap()),
        Some(RejectedKind::BulkheadFull)
    );
    let removed = handle
        .update(Changes::new().without_max_in_flight())
        .unwrap();
    assert_eq!(
        removed.to_string(),
        "bulkhead: `max_in_flight` from 3 to any number"
    );
    assert_eq!(call().await.unwrap().unwrap(), 1);
    for call in running {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_go_when_their_bound_is_removed() {
    let bulkhead = BulkheadLayer::builder(1)
        .max_wait(60 * SECOND)
        .always_in_order();
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .bulkhead(bulkhead);
    let stack = stack.build().unwrap();
    let (handle, service) = (stack.handle(), stack.layer(after(SECOND)));
    let calls: Vec<_> = (0..5)
        .map(|n| tokio::spawn(service.clone().oneshot(n)))
        .collect();
    let begun = tokio::time::Instant::now();
    yield_now().await;
    handle
        .update(Changes::new().without_max_in_flight())
        .unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(begun.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_removed_and_added_again() {
    let sent = Arc::new(AtomicUsize::new(0));
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .hedge(|hedge| hedge.delay(SECOND / 10).without_budget())
        .build()
        .unwrap();
    let counted = sent.clone();
    let service = stack.layer(service_fn(move |_: u32| {
        counted.fetch_add(1, SeqCst);
        async {
            sleep(SECOND).await;
            Ok::<_, io::Error>(())
        }
    }));
    let (handle, hedge) = (stack.handle(), stack.handle().hedge.unwrap());
    let sends = async || {
        sent.store(0, SeqCst);
        service.clone().oneshot(1).await.unwrap();
        sent.load(SeqCst)
    };
    assert_eq!(sends().await, 2);
    let removed = handle.update(Changes::new().without_hedge()).unwrap();
    assert_eq!(removed.to_string(), "hedge: `enabled` from true to false");
    assert!(!hedge.is_enabled());
    assert_eq!(sends().await, 1);
    handle.update(Changes::new().hedge(hedge.config())).unwrap();
    assert_eq!(sends().await, 2);

    // A call that has begun is not hedged any more.
    sent.store(0, SeqCst);
    let call = tokio::spawn(service.clone().oneshot(1));
    yield_now().await;
    handle.update(Changes::new().without_hedge()).unwrap();
    call.await.unwrap().unwrap();
    assert_eq!(sent.load(SeqCst), 1);
    // A delay above the timeouts is wrong only while there is a hedge.
    let mut late = hedge.config();
    late.delay = 30 * SECOND;
    assert!(handle.update(Changes::new().hedge(late)).is_err());
    assert!(!hedge.is_enabled(), "it stays off");
    let brief = Changes::new()
        .total_timeout(SECOND / 20)
        .attempt_timeout(SECOND / 20);
    handle.update(brief).unwrap();

    let none = stack::client()
        .plain(Plain::new().idempotent())
        .build()
        .unwrap();
    assert!(
        none.handle()
            .update(Changes::new().without_hedge())
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn limits_by_key_stay() {
    let limit = RateLimitLayer::builder(a_minute(1)).per_host();
    let stack = stack::client().http().rate_limit(limit).build().unwrap();
    let error = stack
        .handle()
        .update(Changes::new().without_rate())
        .unwrap_err();
    assert!(error.to_string().contains("limits by key"), "{error}");
    let handle = stack.handle();
    handle.update(Changes::new().rate(a_minute(3), 3)).unwrap();
    let service = stack.layer(service_fn(async |_: Request<_>| {
        Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new()))
    }));
    let to = || {
        Request::get("http://host/")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let mut admitted = 0;
    for _ in 0..5 {
        admitted += u32::from(service.clone().oneshot(to()).await.is_ok());
    }
    assert_eq!(admitted, 3);
}

/// However a limit is switched meanwhile, it never admits more than it may while it is on, and
/// ends with nobody waiting.
#[test]
fn a_limit_that_is_switched_by_threads_loses_nobody() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(3).enable_time().build().unwrap();
    let limit = RateLimitLayer::builder(Rate::per_second(20_000))
        .burst(4)
        .max_wait(60 * SECOND);
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .rate_limit(limit);
    let stack = stack.without_total_timeout().build().unwrap();
    let (handle, service) = (stack.handle(), stack.layer(after(Duration::ZERO)));
    runtime.block_on(async {
        let switching = tokio::spawn({
            let handle = handle.clone();
            async move {
                for _ in 0..200 {
                    handle.update(Changes::new().without_rate()).unwrap();
                    yield_now().await;
                    handle
                        .update(Changes::new().rate(Rate::per_second(20_000), 4))
                        .unwrap();
                    yield_now().await;
                }
            }
        });
        let calls: Vec<_> = (0..400)
            .map(|number| tokio::spawn(service.clone().oneshot(number)))
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        switching.await.unwrap();
    });
    assert_eq!(handle.snapshot().rate_limit.unwrap().waiting, 0);
    assert!(handle.snapshot().rate_limit.unwrap().available <= 4);
}
