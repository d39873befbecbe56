//! The client's throttle: what counts, what it rejects, and how it recovers.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use http::{Response, StatusCode};
use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Outcome, Rejected, RejectedKind,
    protocol::{Plain, http as keep_http},
    throttle::{ThrottleHandle, ThrottleLayer},
};

/// Answers as the request says.
async fn answer(good: bool) -> Result<(), std::io::Error> {
    if good {
        Ok(())
    } else {
        Err(std::io::Error::other("too much"))
    }
}

async fn send<S>(service: &mut S, good: bool) -> Option<RejectedKind>
where
    S: Service<bool, Error = BoxError>,
{
    let result = service.ready().await.unwrap().call(good).await;
    let error = result.err()?;
    Rejected::find(&*error).map(|rejected| rejected.kind)
}

fn throttled(handle: &ThrottleHandle) -> u64 {
    let totals = handle.snapshot().totals;
    totals.rejected.of(RejectedKind::Throttled)
}

fn counts(handle: &ThrottleHandle) -> (u64, u64) {
    let snapshot = handle.snapshot();
    (snapshot.accepts, snapshot.failures)
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_upstream_is_sent_twice_what_it_does() {
    let layer = ThrottleLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(answer));
    // It serves one call in five of those it is sent.
    let mut sent = 0u32;
    for _ in 0..5000 {
        sent += u32::from(send(&mut service, sent % 5 == 0).await.is_none());
    }
    let handle = layer.handle();
    let (accepts, failures) = counts(&handle);
    assert_eq!(accepts + failures, u64::from(sent));
    assert_eq!(throttled(&handle), 5000 - u64::from(sent));
    // K = 2 and a share of 1/5 of those sent: 2/5 of the rest is sent, and so on, to the floor.
    assert!(sent < 2000, "{sent}");
    assert!(handle.snapshot().probability > 0.6);
}

#[tokio::test(start_paused = true)]
async fn a_healthy_upstream_is_never_throttled() {
    let layer = ThrottleLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(answer));
    for n in 0..5000 {
        assert_eq!(send(&mut service, n % 3 > 0).await, None);
    }
    assert_eq!(throttled(&layer.handle()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_names_its_instance() {
    let layer = ThrottleLayer::builder()
        .protocol(Plain::new())
        .name("search")
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(answer));
    let mut found = None;
    for _ in 0..200 {
        let call = service.ready().await.unwrap().call(false);
        let error = call.await.unwrap_err();
        found = found.or(Rejected::find(&*error).cloned());
    }
    let rejected = found.unwrap();
    assert_eq!(rejected.kind, RejectedKind::Throttled);
    assert_eq!(
        (rejected.layer, rejected.name),
        ("throttle", Some("search"))
    );
    assert_eq!(rejected.retry_after, None);
}

#[tokio::test(start_paused = true)]
async fn dropped_and_ignored_calls_count_for_nothing() {
    let ignore = |_: Result<&(), &std::io::Error>| Outcome::Ignore;
    let layer = ThrottleLayer::builder().protocol(Plain::classify(ignore));
    let layer = layer.build().unwrap();
    let mut service = layer.layer(service_fn(answer));
    for _ in 0..100 {
        assert_eq!(send(&mut service, false).await, None);
        drop(service.ready().await.unwrap().call(false));
    }
    assert_eq!(counts(&layer.handle()), (0, 0));
    assert_eq!(throttled(&layer.handle()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_was_not_accepted() {
    let layer = ThrottleLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let panics = service_fn(async |(): ()| -> Result<(), BoxError> { panic!("broken") });
    let mut service = layer.layer(panics);
    let call = service.ready().await.unwrap().call(());
    AssertUnwindSafe(call).catch_unwind().await.unwrap_err();
    assert_eq!(counts(&layer.handle()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn statuses_429_and_503_are_not_accepted() {
    let layer = ThrottleLayer::builder().protocol(keep_http::Client::new());
    let layer = layer.build().unwrap();
    let mut service = layer.layer(service_fn(async |status: u16| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok::<_, BoxError>(response)
    }));
    for status in [200, 404, 429, 503] {
        service.ready().await.unwrap().call(status).await.unwrap();
    }
    assert_eq!(counts(&layer.handle()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_server_answers_503() {
    let layer = ThrottleLayer::builder().protocol(keep_http::Server::new());
    let layer = layer.build().unwrap();
    let mut service = layer.layer(service_fn(async |()| {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        Ok::<_, BoxError>(response)
    }));
    let mut rejected = 0;
    for _ in 0..200 {
        let response = service.ready().await.unwrap().call(()).await.unwrap();
        if let Some(kind) = response.extensions().get::<Rejected>() {
            assert_eq!(kind.kind, RejectedKind::Throttled);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            rejected += 1;
        }
    }
    assert!(rejected > 100, "{rejected}");
}

#[tokio::test(start_paused = true)]
async fn a_recovery_is_noticed_and_a_reset_forgets() {
    let layer = ThrottleLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(answer));
    for _ in 0..1000 {
        send(&mut service, false).await;
    }
    assert!(handle.snapshot().probability > 0.9);
    handle.reset();
    assert_eq!(handle.snapshot().probability, 0.0);
    for _ in 0..1000 {
        send(&mut service, false).await;
    }
    // It has recovered: the share that is sent doubles, until the outage has left the window.
    let mut last = 0;
    for second in 0..600 {
        advance(Duration::from_secs(1)).await;
        for _ in 0..20 {
            if send(&mut service, true).await.is_some() {
                last = second;
            }
        }
    }
    assert!((60..420).contains(&last), "{last}");
    assert_eq!(handle.snapshot().probability, 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_update_of_all_keys_is_that_of_keys_to_come_too() {
    let layer = ThrottleLayer::builder().keyed_by(|good: &bool| Some(*good));
    let layer = layer.protocol(Plain::new()).build().unwrap();
    let mut service = layer.layer(service_fn(answer));
    send(&mut service, false).await;
    let handle = layer.handle();
    let mut config = handle.shared().config();
    config.multiplier = 3.0;
    let changed = handle.update(config).unwrap();
    assert_eq!(
        changed.to_string(),
        "throttle: `multiplier` from 2.0 to 3.0"
    );
    send(&mut service, true).await;
    for key in [false, true] {
        assert_eq!(handle.key(&key).unwrap().config(), config);
    }
    config.max_rejection = 2.0;
    let error = handle.update(config).unwrap_err().to_string();
    assert!(
        error.contains("throttle") && error.contains("max_rejection"),
        "{error}"
    );
    assert!(handle.shared().config().max_rejection < 1.0);
}
