//! A store that is down, slow, or empty.

use tokio::time::{Instant, sleep, timeout};
use tower_keep::{RejectedKind, rate_limit::Outage, store::Memory};

use crate::support::{admitted, call, kind, ms, over};

/// Demand that warms a layer up.
async fn warm(layer: &tower_keep::rate_limit::RateLimitLayer) {
    for _ in 0..200 {
        let _ = call(layer).await;
        sleep(ms(15)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn leases_bridge_a_short_outage() {
    let store = Memory::new().delay(ms(1), ms(1));
    let layer = over(&store, Outage::Closed);
    warm(&layer).await;
    store.cut_off(true);
    assert!(call(&layer).await.is_ok(), "leased before");
}

#[tokio::test(start_paused = true)]
async fn closed_rejects_with_a_kind_of_its_own_and_a_hint() {
    let store = Memory::new();
    let layer = over(&store, Outage::Closed);
    warm(&layer).await;
    store.fail(true);
    sleep(ms(1500)).await;
    admitted(&layer, 20).await;
    let rejected = call(&layer).await.unwrap_err();
    assert_eq!(rejected.kind, RejectedKind::StoreDown);
    assert!(rejected.retry_after.is_some());
    let fleet = layer.handle().fleet().unwrap();
    let now = fleet.snapshot();
    // Each wait is twice as long as the one before.
    assert!(
        now.down_since.is_some() && (2..=6).contains(&now.failures),
        "{now:?}"
    );
    assert!(
        fleet
            .last_error()
            .unwrap()
            .to_string()
            .contains("told to fail")
    );
    // when it comes back
    store.fail(false);
    sleep(ms(6000)).await;
    let _ = call(&layer).await;
    sleep(ms(6000)).await;
    assert!(call(&layer).await.is_ok());
    assert!(fleet.snapshot().down_since.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_local_share_admits_its_part() {
    let store = Memory::new();
    store.fail(true);
    let layer = over(&store, Outage::Local { share: 0.25 });
    let (mut total, started) = (0, Instant::now());
    while started.elapsed() < ms(4000) {
        total += usize::from(call(&layer).await.is_ok());
        sleep(ms(2)).await;
    }
    assert!((100..=126).contains(&total), "{total} of 25 and 25/s");
}

#[tokio::test(start_paused = true)]
async fn open_admits_all_and_owes_it() {
    let store = Memory::new();
    let (link, other) = (store.link(), store.link());
    let layer = over(&link, Outage::Open);
    link.fail(true);
    assert_eq!(admitted(&layer, 100).await, 100);
    link.fail(false);
    sleep(ms(150)).await;
    let rejecting = over(&other, Outage::Closed);
    assert_eq!(
        kind(&rejecting).await,
        Some(RejectedKind::RateLimited),
        "it is paid off first"
    );
}

#[tokio::test(start_paused = true)]
async fn no_call_hangs_with_the_store() {
    let store = Memory::new();
    for outage in [Outage::Closed, Outage::Open, Outage::Local { share: 0.5 }] {
        let link = store.link();
        link.cut_off(true);
        let layer = over(&link, outage);
        let first = timeout(ms(600), call(&layer))
            .await
            .expect("it has a bound");
        sleep(ms(1000)).await;
        let later = timeout(ms(300), call(&layer))
            .await
            .expect("it has a bound");
        match outage {
            Outage::Closed => {
                assert!(first.is_err());
                assert_eq!(later.unwrap_err().kind, RejectedKind::StoreDown);
            }
            _ => assert!(later.is_ok(), "{outage:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_starts_empty_goes_on() {
    let store = Memory::new();
    let layer = over(&store, Outage::Closed);
    warm(&layer).await;
    store.clear();
    sleep(ms(2000)).await;
    assert!(call(&layer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_asked_ever_less_often() {
    let store = Memory::new();
    store.fail(true);
    let layer = over(&store, Outage::Closed);
    let started = Instant::now();
    while started.elapsed() < ms(20_000) {
        let _ = call(&layer).await;
        sleep(ms(5)).await;
    }
    let fleet = layer.handle().fleet().unwrap().snapshot();
    assert!((5..40).contains(&fleet.exchanges), "{fleet:?}");
}
