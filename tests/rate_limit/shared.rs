//! Limits that layers share which were built at different times.

use std::{io, sync::Arc, time::Duration};

use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    algorithm::{
        All, LeakyBucket, Limit, Rate, SlidingCounter, SlidingLog, SlidingRing, TokenBucket,
    },
    rate_limit::RateLimitLayer,
};

type Calls = BoxCloneSyncService<u32, (), Box<dyn std::error::Error + Send + Sync>>;

const HOUR: Duration = Duration::from_secs(3600);

/// How many of so many calls of a key are admitted now.
async fn admitted(service: &Calls, calls: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..calls {
        admitted += usize::from(service.clone().oneshot(1).await.is_ok());
    }
    admitted
}

fn over_good<L>(layer: L) -> Calls
where
    L: Layer<BoxCloneSyncService<u32, (), io::Error>>,
    L::Service: Service<u32, Response = (), Error = Box<dyn std::error::Error + Send + Sync>>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<u32>>::Future: Send,
{
    let good = BoxCloneSyncService::new(service_fn(async |_: u32| Ok(())));
    BoxCloneSyncService::new(layer.layer(good))
}

/// In a layer by itself, with others, as a key's own, and as the total of all keys.
fn layers(limit: &Arc<dyn Limit>) -> [Calls; 4] {
    let wide = || TokenBucket::new(Rate::per_second(1_000_000), 1000).unwrap();
    let with = |limit: Arc<dyn Limit>| over_good(RateLimitLayer::with(limit).build().unwrap());
    let together = All::new(wide()).and(limit.clone());
    let of_key = limit.clone();
    let per_key = RateLimitLayer::builder(Rate::per_second(10))
        .per_key(|key: &u32| Some(*key), move |_| Ok(of_key.clone()))
        .build()
        .unwrap();
    let total = RateLimitLayer::builder(Rate::per_second(1_000_000))
        .burst(1000)
        .keyed_by(|key: &u32| Some(*key))
        .within(limit.clone())
        .build()
        .unwrap();
    [
        with(limit.clone()),
        over_good(RateLimitLayer::with(together).build().unwrap()),
        over_good(per_key),
        over_good(total),
    ]
}

#[tokio::test(start_paused = true)]
async fn layers_of_any_age_agree_on_a_limits_time() {
    let rate = Rate::per_second(10);
    let limits: [fn(Rate) -> Arc<dyn Limit>; 5] = [
        |rate| Arc::new(TokenBucket::new(rate, 10).unwrap()),
        |rate| Arc::new(LeakyBucket::new(rate, Duration::ZERO).unwrap()),
        |rate| Arc::new(SlidingLog::new(rate).unwrap()),
        |rate| Arc::new(SlidingRing::new(rate, 10).unwrap()),
        |rate| Arc::new(SlidingCounter::new(rate).unwrap()),
    ];
    for limit in limits {
        let limit = limit(rate);
        let mut all = Vec::new();
        for _ in 0..3 {
            sleep(HOUR).await;
            all.extend(layers(&limit));
            for service in &all {
                sleep(Duration::from_secs(5)).await;
                // Whoever used it last, it is whole again after two windows, and no sooner.
                let most = usize::try_from(limit.burst()).unwrap();
                assert_eq!(admitted(service, 20).await, most, "{limit:?}");
                for other in &all {
                    assert_eq!(admitted(other, 2).await, 0, "{limit:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn parts_of_any_age_make_one_limit() {
    let bucket = || Arc::new(TokenBucket::new(Rate::per_hour(10), 10).unwrap());
    let with = |limit: Arc<dyn Limit>| over_good(RateLimitLayer::with(limit).build().unwrap());
    for old_first in [true, false] {
        let (old, young) = (bucket(), bucket());
        let older = with(old.clone());
        sleep(10 * HOUR).await;
        let younger = with(young.clone());
        sleep(10 * HOUR).await;
        let both = match old_first {
            true => All::new(old.clone()).and(young.clone()),
            false => All::new(young.clone()).and(old.clone()),
        };
        let both = over_good(RateLimitLayer::with(both).build().unwrap());
        // What a limit alone has used is used in both, and the other way round.
        assert_eq!(admitted(&older, 4).await, 4);
        assert_eq!(admitted(&younger, 6).await, 6);
        assert_eq!(admitted(&both, 10).await, 4);
        assert_eq!(admitted(&older, 10).await, 2);
        assert_eq!(admitted(&younger, 10).await, 0);
        sleep(HOUR / 2).await;
        assert_eq!(admitted(&both, 10).await, 5);
        // And a limit outlives the layers that had it.
        drop((older, younger, both));
        sleep(HOUR / 5).await;
        assert_eq!(admitted(&with(old), 10).await, 2);
    }
}
