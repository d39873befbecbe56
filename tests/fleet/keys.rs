//! Keyed limits that processes share.

use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, ServiceExt};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::TokenBucket,
    keyed::KeyFn,
    rate_limit::{KeyedRateLimitLayer, Missing, Overflow, Rate, RateLimitLayer},
    store::Memory,
};

use crate::support::{echo, ms};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Tenant(&'static str);

type Find = fn(&Tenant) -> Option<Tenant>;

fn tenant(tenant: &Tenant) -> Option<Tenant> {
    (!tenant.0.is_empty()).then_some(*tenant)
}

fn by_tenant(store: &Memory, max_keys: usize) -> KeyedRateLimitLayer<KeyFn<Find, Tenant>> {
    let find: Find = tenant;
    RateLimitLayer::builder(Rate::per_second(10))
        .burst(10)
        .keyed_by(find)
        .missing(Missing::Reject)
        .overflow(Overflow::Reject)
        .max_keys(max_keys)
        .fleet(store, "tenants")
        .build()
        .unwrap()
}

async fn send(
    layer: &KeyedRateLimitLayer<KeyFn<Find, Tenant>>,
    name: &'static str,
) -> Result<Tenant, BoxError> {
    layer.layer(echo::<Tenant>()).oneshot(Tenant(name)).await
}

#[tokio::test(start_paused = true)]
async fn a_key_is_shared_and_another_is_not() {
    let store = Memory::new();
    let layers = [(); 2].map(|()| by_tenant(&store, 100));
    let (mut admitted, started) = (0_u32, Instant::now());
    for _ in 0..12 {
        for layer in &layers {
            admitted += u32::from(send(layer, "ann").await.is_ok());
        }
    }
    let most = 10.0 + 10.0 * started.elapsed().as_secs_f64();
    assert!(
        f64::from(admitted) <= most && admitted > 5,
        "{admitted} of {most}"
    );
    assert!(send(&layers[0], "bob").await.is_ok());
    assert_eq!(store.keys().len(), 2);
    assert!(
        store.keys().iter().all(|key| !key.contains("ann")),
        "keys are hashed"
    );
    let handle = layers[0].handle();
    assert!(handle.snapshot().active >= 1 && handle.fleet().is_some());
    let error = send(&layers[0], "").await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::MissingKey
    );
}

#[tokio::test(start_paused = true)]
async fn the_store_knows_a_key_by_a_stated_hash() {
    let store = Memory::new();
    assert!(send(&by_tenant(&store, 100), "ann").await.is_ok());
    // SipHash-2-4-128 of "ann" and a byte of ff, under "tower-keep fleet".
    let known = "tenants:eba0ce30a03c35d17ef127a101c5e10b";
    assert_eq!(&*store.keys()[0], known);
    // when a limit of listed keys has the same name
    let listed = RateLimitLayer::builder(Rate::per_second(1))
        .burst(2)
        .per_key(tenant, |_| TokenBucket::new(Rate::per_second(10), 10))
        .fleet(&store, "tenants")
        .build()
        .unwrap();
    let service = listed.layer(echo::<Tenant>());
    assert!(service.oneshot(Tenant("ann")).await.is_ok());
    assert_eq!(store.keys().len(), 1, "{:?}", store.keys());
}

#[tokio::test(start_paused = true)]
async fn a_secret_makes_other_keys() {
    let store = Memory::new();
    for secret in [[1; 16], [2; 16], [1; 16]] {
        let layer = RateLimitLayer::builder(Rate::per_second(10))
            .keyed_by(|tenant: &u64| Some(*tenant))
            .fleet_secret(secret)
            .fleet(&store, "tenants")
            .build()
            .unwrap();
        assert!(layer.layer(echo::<u64>()).oneshot(7).await.is_ok());
    }
    assert_eq!(store.keys().len(), 2, "{:?}", store.keys());
    let alone = RateLimitLayer::builder(Rate::per_second(1)).fleet_secret([1; 16]);
    assert_eq!(alone.build().unwrap_err().field, "fleet_secret");
}

#[tokio::test(start_paused = true)]
async fn a_warm_key_does_not_wait_for_a_cold_one() {
    let store = Memory::new().delay(ms(20), ms(20));
    let layer = by_tenant(&store, 100);
    for _ in 0..20 {
        let _ = send(&layer, "warm").await;
        sleep(ms(100)).await;
    }
    let cold = tokio::spawn({
        let layer = layer.layer(echo::<Tenant>());
        async move { layer.oneshot(Tenant("cold")).await }
    });
    assert!(send(&layer, "warm").await.is_ok());
    assert!(!cold.is_finished());
    assert!(cold.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_an_idle_key_makes_room_for_another() {
    let store = Memory::new();
    let layer = by_tenant(&store, 2);
    assert!(send(&layer, "ann").await.is_ok() && send(&layer, "bob").await.is_ok());
    // Both owe something that the store does not know yet.
    store.fail(true);
    layer.handle().charge(&Tenant("ann"), 5);
    layer.handle().charge(&Tenant("bob"), 5);
    assert!(send(&layer, "eve").await.is_err());
    store.fail(false);
    sleep(ms(12_000)).await;
    assert!(send(&layer, "eve").await.is_ok());
    assert!(layer.handle().snapshot().evictions > 0);
}

#[tokio::test(start_paused = true)]
async fn listed_keys_are_shared_by_their_own_rate() {
    let store = Memory::new();
    let layers = [(); 2].map(|()| {
        RateLimitLayer::builder(Rate::per_second(1))
            .burst(2)
            .per_key(tenant, |tenant: &Tenant| {
                let burst = if tenant.0.starts_with("big") { 20 } else { 10 };
                TokenBucket::new(Rate::per_second(10), burst)
            })
            .fleet(&store, "plans")
            .build()
            .unwrap()
    });
    for (name, most) in [("big", 22), ("small", 12)] {
        let mut admitted = 0;
        for _ in 0..30 {
            for layer in &layers {
                let service = layer.layer(echo::<Tenant>());
                let result = tokio::time::timeout(ms(5), service.oneshot(Tenant(name))).await;
                admitted += usize::from(matches!(result, Ok(Ok(_))));
            }
        }
        assert!(
            admitted > most / 3 && admitted <= most + 3,
            "{name}: {admitted}"
        );
    }
    assert!(
        layers[0]
            .handle()
            .key(&Tenant("big"))
            .unwrap()
            .fleet()
            .is_some()
    );
}
