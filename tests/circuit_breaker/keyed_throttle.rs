//! Throttles by key: separate, bounded, and never evicted while their state matters.

use std::{io, thread, time::Duration};

use futures::FutureExt;
use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    keyed::{ByKey, KeyFn},
    observe::{Registry, State},
    protocol::{Chosen, Plain},
    throttle::{
        KeyedThrottleHandle, KeyedThrottled, Missing, Overflow, ThrottleBuilder, ThrottleHandle,
        ThrottleLayer,
    },
};

type Key = fn(&u32) -> Option<u32>;
type Builder = ThrottleBuilder<ByKey<KeyFn<Key, u32>>, Chosen<Plain>>;

const WINDOW: Duration = Duration::from_secs(120);

/// Returns a builder by number as key, where 0 is no key. Odd keys are overloaded. The counts of
/// the window are certain: tests leave to chance only whether any call is throttled.
fn builder() -> Builder {
    ThrottleLayer::builder()
        .protocol(Plain::new())
        .min_calls(2)
        .max_rejection(1.0)
        .keyed_by((|key: &u32| (*key > 0).then_some(*key)) as Key)
}

fn peer() -> impl Service<u32, Response = (), Error = io::Error, Future: Send> + Clone + Send + Sync
{
    service_fn(async |key: u32| {
        if key % 2 == 0 {
            Ok(())
        } else {
            Err(io::Error::other("too much"))
        }
    })
}

async fn call(
    service: &mut impl Service<u32, Response = (), Error = BoxError>,
    key: u32,
) -> Option<RejectedKind> {
    let error = service.ready().await.unwrap().call(key).await.err()?;
    Rejected::find(&*error).map(|rejected| rejected.kind)
}

/// Returns how many of a hundred calls are throttled.
async fn throttled(
    service: &mut impl Service<u32, Response = (), Error = BoxError>,
    key: u32,
) -> usize {
    let mut throttled = 0;
    for _ in 0..100 {
        throttled += usize::from(call(service, key).await == Some(RejectedKind::Throttled));
    }
    throttled
}

fn keys(handle: &KeyedThrottleHandle<u32>) -> Vec<u32> {
    let mut keys: Vec<_> = handle.keys().into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys
}

fn probability(handle: Option<ThrottleHandle>) -> f64 {
    handle.unwrap().snapshot().probability
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_key_does_not_throttle_others() {
    let layer = builder().build().unwrap();
    let (mut one, mut other) = (layer.layer(peer()), layer.layer(peer()));
    assert!(throttled(&mut one, 1).await > 50);
    assert!(throttled(&mut other, 1).await > 80);
    assert_eq!(throttled(&mut other, 2).await, 0);
    let handle = layer.handle();
    assert!(probability(handle.key(&1)) > 0.9);
    assert_eq!(probability(handle.key(&2)), 0.0);
    assert_eq!(probability(Some(handle.shared())), 0.0);
    assert_eq!(keys(&handle), [1, 2]);
    assert!(handle.key(&3).is_none());
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_keys_share_the_overflow() {
    let layer = builder().max_keys(2).build().unwrap();
    let mut service = layer.layer(peer());
    for key in [1, 2] {
        call(&mut service, key).await;
    }
    assert!(throttled(&mut service, 3).await > 50);
    assert!(throttled(&mut service, 4).await > 50);
    assert_eq!(throttled(&mut service, 2).await, 0);
    assert_eq!(keys(&layer.handle()), [1, 2]);
    assert!(probability(Some(layer.handle().shared())) > 0.4);
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_keys_are_rejected_or_let_through() {
    let layer = builder().max_keys(1).overflow(Overflow::Reject).build();
    let layer = layer.unwrap();
    let mut service = layer.layer(peer());
    call(&mut service, 1).await;
    let kind = call(&mut service, 2).await;
    assert_eq!(kind, Some(RejectedKind::Throttled));
    let totals = layer.handle().shared().snapshot().totals;
    assert_eq!(totals.rejected.of(RejectedKind::Throttled), 1);

    let layer = builder().max_keys(1).overflow(Overflow::Allow).build();
    let mut service = layer.unwrap().layer(peer());
    call(&mut service, 2).await;
    assert_eq!(throttled(&mut service, 1).await, 0);
}

#[tokio::test(start_paused = true)]
async fn missing_keys_share_or_are_rejected_or_allowed() {
    async fn calls(missing: Missing) -> Vec<Option<RejectedKind>> {
        let without = (|_: &u32| None) as Key;
        let layer = ThrottleLayer::builder()
            .protocol(Plain::new())
            .min_calls(2)
            .max_rejection(1.0)
            .keyed_by(without)
            .missing(missing)
            .build();
        let mut service = layer.unwrap().layer(peer());
        let mut kinds = Vec::new();
        for _ in 0..50 {
            kinds.push(call(&mut service, 1).await);
        }
        kinds
    }
    let shared = calls(Missing::Share).await;
    assert!(shared.contains(&Some(RejectedKind::Throttled)));
    let rejected = calls(Missing::Reject).await;
    assert_eq!(rejected, [Some(RejectedKind::MissingKey); 50]);
    assert_eq!(calls(Missing::Allow).await, [None; 50]);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_evicts_only_an_idle_one() {
    let layer = builder().max_keys(2).build().unwrap();
    let mut service = layer.layer(peer());
    call(&mut service, 1).await;
    call(&mut service, 2).await;
    // Both have a call in their window, and a success is worth keeping too.
    call(&mut service, 4).await;
    assert_eq!(keys(&layer.handle()), [1, 2]);
    advance(WINDOW / 2).await;
    call(&mut service, 1).await;
    advance(WINDOW / 2).await;
    call(&mut service, 4).await;
    assert_eq!(keys(&layer.handle()), [1, 4]);
    assert!(layer.handle().key(&2).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_with_a_call_in_flight_keeps_its_throttle() {
    let layer = builder().max_keys(1).build().unwrap();
    let mut service = layer.layer(peer());
    let in_flight = service.ready().await.unwrap().call(1);
    call(&mut service, 2).await;
    assert_eq!(keys(&layer.handle()), [1]);
    // Dropped without an answer, it says nothing, so its slot is free at once.
    drop(in_flight);
    call(&mut service, 2).await;
    assert_eq!(keys(&layer.handle()), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_handle_keeps_its_throttle() {
    let layer = builder().max_keys(1).build().unwrap();
    let mut service = layer.layer(peer());
    call(&mut service, 1).await;
    let held = layer.handle().key(&1);
    advance(2 * WINDOW).await;
    call(&mut service, 2).await;
    assert_eq!(keys(&layer.handle()), [1]);
    drop(held);
    call(&mut service, 2).await;
    assert_eq!(keys(&layer.handle()), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_forgets_the_calls_of_all_keys() {
    let layer = builder().max_keys(1).build().unwrap();
    let mut service = layer.layer(peer());
    assert!(throttled(&mut service, 1).await > 50);
    assert!(throttled(&mut service, 3).await > 50);
    let handle = layer.handle();
    handle.reset();
    assert_eq!(probability(handle.key(&1)), 0.0);
    assert_eq!(probability(Some(handle.shared())), 0.0);
    assert_eq!(call(&mut service, 1).await, None);
    assert_eq!(call(&mut service, 3).await, None);
}

#[tokio::test(start_paused = true)]
async fn all_keys_report_the_highest_probability() {
    let layer = builder().name("throttles by key").build().unwrap();
    let mut service = layer.layer(peer());
    for key in 1..=100 {
        call(&mut service, key * 2).await;
    }
    throttled(&mut service, 1).await;
    let instances = Registry::global().snapshot();
    let mut ours = instances
        .iter()
        .filter(|instance| instance.name == "throttles by key");
    let instance = ours.next().unwrap();
    assert!(ours.next().is_none());
    assert_eq!(instance.layer, "throttle");
    assert_eq!(instance.totals.success, 100);
    assert_eq!(instance.totals, layer.handle().totals());
    let State::Throttle { probability } = instance.state else {
        panic!("{instance:?}");
    };
    let highest = layer.handle().key(&1).unwrap().snapshot().probability;
    assert!(probability == highest && highest > 0.9);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let field = |builder: Builder| builder.build().unwrap_err().field;
    assert_eq!(field(builder().max_keys(0)), "max_keys");
    assert_eq!(field(builder().multiplier(0.5)), "multiplier");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_off_counts_nothing() {
    let layer = builder().enabled(false).build().unwrap();
    let mut service: KeyedThrottled<_, _, _> = layer.layer(peer());
    assert_eq!(throttled(&mut service, 1).await, 0);
    assert!(keys(&layer.handle()).is_empty());
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn each_host_has_a_throttle_of_its_own() {
    use http::{Request, Response};
    use tower_keep::protocol::http::Client;

    let layer = ThrottleLayer::builder().per_host().protocol(Client::new());
    let layer = layer.min_calls(2).build().unwrap();
    let mut client = layer.layer(service_fn(async |request: Request<()>| {
        let full = request.uri().host() == Some("full.example");
        let status = if full { 503 } else { 200 };
        Response::builder().status(status).body(())
    }));
    for _ in 0..50 {
        for host in ["full.example", "good.example"] {
            let request = Request::get(format!("http://{host}/")).body(()).unwrap();
            let _ = client.ready().await.unwrap().call(request).await;
        }
    }
    let handle = layer.handle();
    assert!(probability(handle.key(&"full.example".parse().unwrap())) > 0.9);
    let good = handle.key(&"good.example".parse().unwrap()).unwrap();
    assert_eq!(
        (good.snapshot().probability, good.snapshot().accepts),
        (0.0, 50)
    );
}

#[test]
fn threads_never_keep_more_keys_than_the_bound() {
    let layer = builder().max_keys(16).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    thread::scope(|scope| {
        for offset in 0..4 {
            let mut service = layer.layer(peer());
            scope.spawn(move || {
                for key in 1..2000 {
                    let call = call(&mut service, key * 4 + offset);
                    call.now_or_never();
                }
            });
        }
    });
    assert_eq!(layer.handle().keys().len(), 16);
}
