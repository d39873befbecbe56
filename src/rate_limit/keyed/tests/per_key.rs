use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use futures::FutureExt;
use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::{
    ConfigError, Rejected, RejectedKind,
    algorithm::{All, SlidingLog, TokenBucket},
    ambient::clock::Clock,
    keyed::{FindKey, HasKey, KeyFn},
    rate_limit::{
        Missing, Overflow, PerKey, PerKeyRateLimitLayer, Rate, RateLimitBuilder, RateLimitLayer,
    },
};

type Tenant = Option<&'static str>;
type Itself = fn(&Tenant) -> Tenant;

fn echo() -> impl Service<Tenant, Response = Tenant, Error = BoxError, Future: Send> + Clone + Send
{
    service_fn(async |tenant: Tenant| Ok::<_, BoxError>(tenant))
}

fn itself(tenant: &Tenant) -> Tenant {
    *tenant
}

/// Each key gets two calls in any second. Keys without room and calls without a key share one call
/// a second.
fn per_key() -> RateLimitBuilder<PerKey<KeyFn<Itself, Tenant>>> {
    let shared = RateLimitLayer::builder(Rate::per_second(1)).name("customers");
    shared.per_key(itself as Itself, |_: &&str| {
        SlidingLog::new(Rate::per_second(2))
    })
}

async fn admitted<F>(layer: &PerKeyRateLimitLayer<F>, tenant: Tenant) -> bool
where
    F: HasKey<Key: std::hash::Hash + Eq + Clone + Send + Sync + 'static>,
    F: FindKey<Tenant, F::Key> + Send + Sync + 'static,
{
    layer.layer(echo()).oneshot(tenant).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_limit_shared_by_all_services() {
    let layer = per_key().build().unwrap();
    for tenant in [Some("a"), Some("b")] {
        assert!(
            admitted(&layer, tenant).await
                && admitted(&layer, tenant).await
                && !admitted(&layer, tenant).await
        );
    }
    advance(Duration::from_millis(999)).await;
    assert!(!admitted(&layer, Some("a")).await);
    advance(Duration::from_millis(1)).await;
    assert!(admitted(&layer, Some("a")).await);
}

#[tokio::test(start_paused = true)]
async fn limits_may_depend_on_the_key_and_share_parts() {
    // given: a total of four an hour, and for each key a burst of as many calls as its name has
    // letters.
    let total = Arc::new(SlidingLog::new(Rate::per_hour(4)).unwrap());
    let parts = total.clone();
    let layer =
        RateLimitLayer::builder(Rate::per_second(1)).per_key(itself, move |tenant: &&str| {
            Ok(All::new(TokenBucket::new(
                Rate::per_second(1),
                u32::try_from(tenant.len()).unwrap_or(1),
            )?)
            .and(parts.clone()))
        });
    let layer = layer.build().unwrap();
    // when, then
    assert!(admitted(&layer, Some("a")).await && !admitted(&layer, Some("a")).await);
    // A limit that is made later has the same clock as those made before it.
    advance(Duration::from_secs(3600 - 1)).await;
    assert!(
        admitted(&layer, Some("bcd")).await
            && admitted(&layer, Some("bcd")).await
            && admitted(&layer, Some("bcd")).await
    );
    assert!(!admitted(&layer, Some("bcd")).await && !admitted(&layer, Some("e")).await);
    advance(Duration::from_secs(1)).await;
    assert!(admitted(&layer, Some("e")).await && !admitted(&layer, Some("f")).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_past_the_bound_shares_or_fails_or_passes() {
    let cases = [
        (Overflow::Shared, 1, Some(Duration::from_secs(1))),
        (Overflow::Reject, 0, Some(Duration::from_secs(1))),
        (Overflow::Allow, 4, None),
    ];
    for (overflow, expected, hint) in cases {
        let layer = per_key().max_keys(1).overflow(overflow).build().unwrap();
        assert!(admitted(&layer, Some("resident")).await);
        let mut hints = Vec::new();
        for tenant in ["b", "c", "d", "d"] {
            hints.push(layer.layer(echo()).oneshot(Some(tenant)).await.err());
        }
        assert_eq!(
            hints.iter().filter(|error| error.is_none()).count(),
            expected,
            "{overflow:?}"
        );
        let last = hints
            .pop()
            .unwrap()
            .map(|error| Rejected::find(&*error).unwrap().clone());
        assert_eq!(
            last.as_ref().and_then(|rejected| rejected.retry_after),
            hint,
            "{overflow:?}"
        );
        assert!(last.is_none_or(|rejected| rejected.name == Some("customers")));
        assert!(
            admitted(&layer, Some("resident")).await,
            "the key that has a place keeps its limit"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_key_shares_or_fails_or_passes() {
    for (missing, expected) in [
        (Missing::Share, 1),
        (Missing::Reject, 0),
        (Missing::Allow, 3),
    ] {
        let layer = per_key().missing(missing).build().unwrap();
        let mut count = 0;
        for _ in 0..3 {
            count += usize::from(admitted(&layer, None).await);
        }
        assert_eq!(count, expected, "{missing:?}");
        assert!(layer.handle().keys().is_empty());
    }
    let layer = per_key().missing(Missing::Reject).build().unwrap();
    let error = layer.layer(echo()).oneshot(None).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::MissingKey
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_fresh_limit_that_nothing_holds_is_evicted() {
    let layer = per_key()
        .max_keys(1)
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    assert!(admitted(&layer, Some("a")).await);
    advance(Duration::from_millis(999)).await;
    assert!(
        !admitted(&layer, Some("b")).await,
        "the first owes for a second"
    );
    advance(Duration::from_millis(1)).await;
    let held = layer.handle().key(&"a").unwrap();
    assert!(!admitted(&layer, Some("b")).await, "a handle holds it");
    drop(held);
    assert!(admitted(&layer, Some("b")).await);
    assert!(layer.handle().key(&"a").is_none());
    assert_eq!(layer.handle().keys().len(), 1);
    // A limit can be made and changed before the first call.
    advance(Duration::from_secs(9)).await;
    layer
        .handle()
        .make(&"c")
        .unwrap()
        .set_rate(Rate::per_second(1), 1)
        .unwrap();
    assert!(admitted(&layer, Some("c")).await && !admitted(&layer, Some("c")).await);
    assert!(layer.handle().make(&"d").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_handle_lists_all_keys_and_changes_one() {
    let layer = per_key().build().unwrap();
    assert!(admitted(&layer, Some("a")).await && admitted(&layer, Some("b")).await);
    let mut keys: Vec<_> = layer
        .handle()
        .keys()
        .into_iter()
        .map(|(key, handle)| (key, handle.snapshot().available))
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, [("a", 1), ("b", 1)]);
    layer.handle().key(&"a").unwrap().refund(1);
    layer
        .handle()
        .key(&"b")
        .unwrap()
        .set_rate(Rate::per_second(1), 1)
        .unwrap();
    assert!(
        admitted(&layer, Some("a")).await
            && admitted(&layer, Some("a")).await
            && !admitted(&layer, Some("b")).await
    );
    layer.handle().shared().close_for(Duration::from_secs(9));
    assert!(!admitted(&layer, None).await);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_changed_by_hand_keeps_its_place() {
    let layer = per_key()
        .max_keys(1)
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    assert!(admitted(&layer, Some("a")).await);
    // A rejected update changes nothing.
    assert!(
        layer
            .handle()
            .key(&"a")
            .unwrap()
            .set_rate(Rate::per_second(0), 0)
            .is_err()
    );
    advance(Duration::from_secs(60)).await;
    assert!(admitted(&layer, Some("b")).await);
    advance(Duration::from_secs(60)).await;
    assert!(admitted(&layer, Some("a")).await);
    layer
        .handle()
        .key(&"a")
        .unwrap()
        .set_rate(Rate::per_second(1), 1)
        .unwrap();
    advance(Duration::from_secs(60)).await;
    assert!(!admitted(&layer, Some("b")).await);
    assert!(admitted(&layer, Some("a")).await && !admitted(&layer, Some("a")).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_for_a_key_that_finds_no_place() {
    let made = Arc::new(AtomicU32::new(0));
    let count = made.clone();
    let limit = RateLimitLayer::builder(Rate::per_second(1000)).per_key(itself, move |_: &&str| {
        count.fetch_add(1, Ordering::Relaxed);
        SlidingLog::new(Rate::per_hour(1000))
    });
    let layer = limit.max_keys(1).build().unwrap();
    for tenant in [Some("a"), Some("b"), Some("c"), Some("b")] {
        assert!(admitted(&layer, tenant).await);
    }
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_finds_a_fresh_one_past_the_first_eight() {
    // given: ten keys in debt, and after them one that is not.
    let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "free"];
    let layer = per_key()
        .max_keys(names.len())
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    for name in names {
        assert!(admitted(&layer, Some(name)).await);
    }
    layer.handle().key(&"free").unwrap().refund(1);
    // when, then
    let found = [
        admitted(&layer, Some("new")).await,
        admitted(&layer, Some("new")).await,
    ];
    assert_eq!(found, [false, true]);
    assert!(layer.handle().key(&"free").is_none());
}

// Regression: a `Clone` of a key panicked between the search for room and the eviction. The
// eviction mark stayed on the limit to be evicted, and each of its calls looked up its key forever.
#[tokio::test(start_paused = true)]
async fn a_key_whose_clone_panics_does_no_harm() {
    #[derive(PartialEq, Eq, Hash)]
    struct Fragile(u32);

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert_ne!(self.0, 2, "the clone that fails");
            Self(self.0)
        }
    }

    let limit = RateLimitLayer::builder(Rate::per_second(1)).per_key(
        |key: &u32| Some(Fragile(*key)),
        |key: &Fragile| {
            assert_ne!(key.0, 3, "the limit that fails");
            TokenBucket::new(Rate::per_second(1000), 1)
        },
    );
    let layer = limit.max_keys(1).build().unwrap();
    let service = layer.layer(service_fn(async |key: u32| Ok::<_, BoxError>(key)));
    assert!(service.clone().oneshot(1).await.is_ok());
    for fails in [2, 3] {
        advance(Duration::from_secs(1)).await;
        assert!(
            std::panic::AssertUnwindSafe(service.clone().oneshot(fails))
                .catch_unwind()
                .await
                .is_err()
        );
        assert!(service.clone().oneshot(1).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_tells_who_has_used_most() {
    let limit = RateLimitLayer::builder(Rate::per_second(1));
    let layer = limit
        .per_key(itself, |_: &&str| TokenBucket::new(Rate::per_second(1), 10))
        .build()
        .unwrap();
    for tenant in ["a", "b", "b", "c", "b", "c"] {
        assert!(admitted(&layer, Some(tenant)).await);
    }
    let top: Vec<_> = layer
        .handle()
        .heavy_hitters(2)
        .into_iter()
        .map(|(key, handle)| (key, handle.snapshot().available))
        .collect();
    assert_eq!(top, [("b", 7), ("c", 8)]);
    assert_eq!(layer.handle().heavy_hitters(9).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_with_waiters_is_not_evicted() {
    let shared = RateLimitLayer::builder(Rate::per_second(1)).max_wait(Duration::from_secs(9));
    let limit = shared
        .per_key(itself, |_: &&str| TokenBucket::new(Rate::per_second(1), 1))
        .max_keys(1);
    let layer = limit.overflow(Overflow::Reject).build().unwrap();
    let clock = Clock::start();
    let tasks = [(); 3].map(|()| tokio::spawn(layer.layer(echo()).oneshot(Some("a"))));
    tokio::task::yield_now().await;
    assert!(!admitted(&layer, Some("b")).await);
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(clock.now(), 2_000_000_000);
    assert!(
        layer
            .handle()
            .key(&"a")
            .is_some_and(|handle| handle.snapshot().waiting == 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_cannot_be_made_overflows() {
    let limit = RateLimitLayer::builder(Rate::per_second(1));
    let layer = limit
        .per_key(itself, |_: &&str| SlidingLog::new(Rate::per_second(0)))
        .build()
        .unwrap();
    assert!(admitted(&layer, Some("a")).await && !admitted(&layer, Some("b")).await);
    assert!(layer.handle().keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_disabled_layer_admits_every_call() {
    let limit = RateLimitLayer::builder(Rate::per_second(1)).enabled(false);
    let limit = limit
        .per_key(itself, |_: &&str| SlidingLog::new(Rate::per_second(1)))
        .max_keys(1);
    let layer = limit
        .overflow(Overflow::Reject)
        .missing(Missing::Reject)
        .build()
        .unwrap();
    for tenant in [Some("a"), Some("a"), Some("b"), None] {
        assert!(admitted(&layer, tenant).await, "{tenant:?}");
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    let refused =
        |builder: RateLimitBuilder<PerKey<_>>| -> ConfigError { builder.build().unwrap_err() };
    let error = refused(per_key().max_keys(0));
    assert_eq!((error.field, error.name), ("max_keys", Some("customers")));
    let shared = RateLimitLayer::builder(Rate::per_second(1)).burst(0);
    let error = shared
        .per_key(itself, |_: &&str| SlidingLog::new(Rate::per_second(2)))
        .build()
        .unwrap_err();
    assert_eq!((error.field, error.layer), ("burst", Some("rate_limit")));
}

// A caller that has found a limit which is being evicted must not use it: the key's next call would
// find another limit.
#[test]
fn threads_that_evict_each_other_get_no_second_burst() {
    const ROUNDS: u32 = 3000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let key = |request: &(u32, u32)| Some(request.0);
    let limit = RateLimitLayer::builder(Rate::per_second(1)).cost(|request: &(u32, u32)| request.1);
    let limit = limit.per_key(key, |_: &u32| TokenBucket::new(Rate::per_day(1), 1));
    let layer = limit
        .max_keys(1)
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    let (barrier, admitted, most) = (Barrier::new(4), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for number in 0..4u32 {
            let (layer, barrier, admitted, most) = (&layer, &barrier, &admitted, &most);
            let mut service = layer.layer(service_fn(async |_: (u32, u32)| Ok::<_, BoxError>(())));
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    barrier.wait();
                    // Two threads make a key with a call that costs nothing, and use it. Two
                    // threads evict it while it is unused.
                    let key = if number < 2 {
                        round * 2
                    } else {
                        ROUNDS * 2 + number
                    };
                    for cost in [0, u32::from(number < 2), 0] {
                        let admission = service.call((key, cost)).now_or_never().unwrap();
                        admitted.fetch_add(cost * u32::from(admission.is_ok()), Ordering::Relaxed);
                    }
                    if barrier.wait().is_leader() {
                        most.fetch_max(admitted.swap(0, Ordering::Relaxed), Ordering::Relaxed);
                        layer
                            .handle()
                            .keys()
                            .into_iter()
                            .for_each(|(_, handle)| handle.refund(1));
                    }
                }
            });
        }
    });
    assert_eq!(most.into_inner(), 1);
}
