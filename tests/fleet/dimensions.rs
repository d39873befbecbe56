//! Several quotas on each call, shared by processes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    keyed::NotKeyed,
    protocol::Plain,
    rate_limit::{
        CostsOf, Dimension, DimensionsBuilder, DimensionsLayer, Follow, Missing, Outage, Rate,
        RateLimitLayer, UsesOf,
    },
    store::{Memory, Store},
};

use crate::{
    bounds::{draw, excess, seeds},
    support::{echo, ms},
};

/// What a call costs of requests and tokens.
type Costs = [u64; 2];
type Builder = DimensionsBuilder<
    2,
    NotKeyed,
    Plain,
    CostsOf<fn(&Costs) -> Costs>,
    UsesOf<fn(&Costs) -> Costs>,
>;
type Process = DimensionsLayer<2, Plain, CostsOf<fn(&Costs) -> Costs>, UsesOf<fn(&Costs) -> Costs>>;

fn same(costs: &Costs) -> Costs {
    *costs
}

fn dimensions() -> [Dimension; 2] {
    [
        Dimension::new("requests", Rate::per_second(20)).burst(20),
        Dimension::new("tokens", Rate::per_second(1000)).burst(1000),
    ]
}

/// A process of 20 requests and 1000 tokens a second. Its calls have cost what they took.
fn builder<S: Store + Clone>(link: &S, dimensions: [Dimension; 2]) -> Builder {
    RateLimitLayer::dimensions(dimensions)
        .cost(same as fn(&Costs) -> Costs)
        .settle(same as fn(&Costs) -> Costs)
        .fleet(link, "api")
}

fn process(store: &Memory) -> Process {
    builder(&store.link(), dimensions()).build().unwrap()
}

async fn call(layer: &Process, costs: Costs) -> Result<(), Rejected> {
    let service = layer.layer(echo::<Costs>());
    match service.oneshot(costs).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Rejected::find(&*error).unwrap().clone()),
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_call_waits_for_all_quotas_at_once() {
    let store = Memory::new().delay(ms(5), ms(5));
    let layer = process(&store);
    let started = Instant::now();
    assert!(call(&layer, [1, 50]).await.is_ok());
    assert!(started.elapsed() < ms(20), "{:?}", started.elapsed());
    let fleet = layer.handle().fleet().unwrap().snapshot();
    assert_eq!(fleet.leased, 51);
    let mut keys = store.keys();
    keys.sort();
    let keys: Vec<_> = keys.iter().map(|key| &**key).collect();
    assert_eq!(keys, ["api.requests", "api.tokens"]);
}

#[tokio::test(start_paused = true)]
async fn a_warm_call_of_several_quotas_does_not_wait() {
    let store = Memory::new().delay(ms(5), ms(5));
    let layer = process(&store);
    let mut waited = 0;
    for _ in 0..200 {
        let started = Instant::now();
        assert!(call(&layer, [1, 20]).await.is_ok());
        waited += usize::from(started.elapsed() > ms(0));
        sleep(ms(60)).await;
    }
    assert!(waited < 60, "{waited} of 200 waited");
}

/// Tokens are used up, so calls are rejected. They take no requests.
#[tokio::test(start_paused = true)]
async fn a_rejected_call_uses_up_no_quota() {
    let store = Memory::new();
    let layer = process(&store);
    let mut rejected = 0;
    for _ in 0..40 {
        if let Err(error) = call(&layer, [1, 500]).await {
            assert_eq!(error.dimension, Some("tokens"));
            assert_eq!(error.kind, RejectedKind::RateLimited);
            rejected += 1;
        }
    }
    assert!(rejected > 15, "{rejected}");
    let other = process(&store);
    for _ in 0..5 {
        assert!(call(&other, [1, 0]).await.is_ok(), "requests are left");
    }
}

/// The quota that is plenty is named by no rejection, although its lease is short: of two hundred
/// calls, ten at once, that cost too much of the other.
#[tokio::test(start_paused = true)]
async fn a_rejection_names_the_quota_that_is_used_up() {
    let store = Memory::new().delay(ms(1), ms(3));
    let money = Dimension::new("money", Rate::per_day(3000));
    let plenty = Dimension::new("tokens", Rate::per_minute(100_000));
    let layer = builder(&store.link(), [plenty, money]).build().unwrap();
    let calls = (0..200).map(|_| {
        let layer = &layer;
        async move {
            let answer = call(layer, [40, 600]).await;
            if answer.is_ok() {
                sleep(ms(7)).await;
                layer.handle().settle([40, 600], [8, 120]);
            }
            answer.map_err(|error| error.dimension)
        }
    });
    let answers: Vec<_> = stream::iter(calls).buffer_unordered(10).collect().await;
    let named: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(named.len() > 100, "{}", named.len());
    assert_eq!(
        named.iter().filter(|name| **name != Some("money")).count(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn each_quota_is_settled_by_itself_in_all_processes() {
    let store = Memory::new();
    let layer = process(&store);
    assert!(call(&layer, [1, 100]).await.is_ok());
    layer.handle().settle([1, 100], [1, 3100]);
    sleep(ms(100)).await;
    // when another process wants tokens
    let other = process(&store);
    let error = call(&other, [1, 100]).await.unwrap_err();
    assert_eq!(error.dimension, Some("tokens"));
    assert!(call(&other, [1, 0]).await.is_ok(), "requests owe nothing");
    // then the debt is paid off at the rate, and not sooner.
    sleep(ms(1500)).await;
    assert!(call(&other, [1, 100]).await.is_err());
    sleep(ms(2500)).await;
    assert!(call(&other, [1, 100]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn money_is_closed_while_other_quotas_are_open() {
    let store = Memory::new();
    store.fail(true);
    let quotas = [
        Dimension::new("requests", Rate::per_second(20)).burst(20),
        Dimension::money("cents", Rate::per_second(1000)),
    ];
    let open = builder(&store, quotas).while_down(Outage::Open);
    let layer = open.build().unwrap();
    assert!(call(&layer, [1, 5]).await.is_err());
    let error = call(&layer, [1, 5]).await.unwrap_err();
    assert_eq!(error.kind, RejectedKind::StoreDown);
    assert_eq!(error.dimension, Some("cents"));
    for _ in 0..2000 {
        assert!(call(&layer, [1, 0]).await.is_ok(), "what costs no money");
    }
    // when the store is back, the requests are told to it, and those that were rejected are not.
    // Long before they are paid off, and after the longest time until the store is asked again.
    store.fail(false);
    sleep(ms(40_000)).await;
    let other = process(&store.link());
    for _ in 0..30 {
        // Regression: a part of the debt was told at a time, no faster than it was paid off.
        let error = call(&other, [1, 0]).await.unwrap_err();
        assert_eq!(error.dimension, Some("requests"));
        sleep(ms(1100)).await;
    }
    let money = builder(&store.link(), quotas).build().unwrap();
    assert!(call(&money, [0, 5]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_local_share_is_taken_of_all_quotas_or_of_none() {
    let store = Memory::new();
    store.fail(true);
    let local = builder(&store, dimensions()).while_down(Outage::Local { share: 0.5 });
    let layer = local.max_wait(ms(0)).build().unwrap();
    while call(&layer, [0, 500]).await.is_err() {
        sleep(ms(1)).await;
    }
    for _ in 0..30 {
        assert!(call(&layer, [1, 400]).await.is_err());
    }
    let mut admitted = 0;
    while call(&layer, [1, 0]).await.is_ok() {
        admitted += 1;
    }
    assert_eq!(admitted, 10, "none was used up");
}

#[tokio::test(start_paused = true)]
async fn keys_share_their_quotas_and_a_total() {
    let store = Memory::new();
    let layers = [(); 2].map(|()| {
        RateLimitLayer::dimensions(dimensions())
            .cost(|(_, costs): &(u32, Costs)| *costs)
            .keyed_by(|(tenant, _): &(u32, Costs)| (*tenant > 0).then_some(*tenant))
            .missing(Missing::Reject)
            .within([
                Dimension::new("requests", Rate::per_second(1000)).burst(1000),
                Dimension::new("tokens", Rate::per_second(1500)).burst(1500),
            ])
            .fleet(&store.link(), "plans")
            .build()
            .unwrap()
    });
    let (mut by_tenant, started) = ([0; 4], Instant::now());
    for round in 0..60 {
        for (tenant, tokens) in by_tenant.iter_mut().enumerate().skip(1) {
            let request = (u32::try_from(tenant).unwrap(), [1, 90]);
            let service = layers[round % 2].layer(echo::<(u32, Costs)>());
            *tokens += 90 * u64::from(service.oneshot(request).await.is_ok());
        }
    }
    let spent = started.elapsed().as_secs_f64();
    let all: u64 = by_tenant.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (all, most) = (all as f64, 1500.0 + 1500.0 * spent);
    assert!(all <= most && all > 0.4 * most, "{by_tenant:?}, {most}");
    assert!(
        by_tenant[1..].iter().all(|tokens| *tokens > 200),
        "{by_tenant:?}"
    );
    assert!(
        store.keys().contains(&"plans.tokens:total".into()),
        "{:?}",
        store.keys()
    );
    let handle = layers[0].handle().key(&1).unwrap();
    assert!(handle.fleet().is_some() && handle.snapshot().dimensions[1].burst == 1000);
}

#[test]
fn settings_that_a_fleet_cannot_share_are_refused() {
    let store = Memory::new();
    let refused = |dimension: Dimension| {
        let quotas = [Dimension::new("requests", Rate::per_second(20)), dimension];
        builder(&store, quotas).build().unwrap_err()
    };
    let short = Dimension::new("tokens", Rate::per_second(1000)).burst(300);
    assert_eq!(refused(short).field, "burst");
    let large = Dimension::new("tokens", Rate::per_day(1 << 40));
    assert!(refused(large).to_string().contains("larger units"));
    let follows = Dimension::new("tokens", Rate::per_minute(1000)).follow(Follow::new("tokens"));
    assert_eq!(refused(follows).field, "follow");
    let open = Dimension::new("tokens", Rate::per_second(1000)).while_down(Outage::Open);
    let alone = RateLimitLayer::dimensions([open]).build().unwrap_err();
    assert_eq!(alone.field, "while_down");
    let money = Dimension::money("cents", Rate::per_second(1000));
    assert!(RateLimitLayer::dimensions([money]).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_shared_quota_holds() {
    let store = Memory::new();
    let layer = process(&store);
    let handle = layer.handle();
    assert!(call(&layer, [1, 10]).await.is_ok());
    handle.update("tokens", Rate::per_second(100), 100).unwrap();
    assert_eq!(handle.snapshot().dimensions[1].burst, 100);
    assert_eq!(
        call(&layer, [1, 101]).await.unwrap_err().kind,
        RejectedKind::CostTooHigh
    );
    assert!(
        handle
            .update("tokens", Rate::per_second(100), 1 << 40)
            .is_err()
    );
}

type Admitted = Arc<Mutex<Vec<(Duration, Costs)>>>;

/// Three processes over a bad network, of which one is cut off for a while and one dies.
fn run(seed: u64, outage: Outage) -> Vec<(Duration, Costs)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Memory::seeded(seed)
            .delay(ms(0), ms(1 + draw(seed, 1, 150)))
            .loss(f64::from(u32::try_from(draw(seed, 2, 4)).unwrap()) * 0.05)
            .repeat(0.1);
        let (admitted, started) = (Admitted::default(), Instant::now());
        let cut = (400 + draw(seed, 3, 800), 200 + draw(seed, 4, 1200));
        let mut processes = Vec::new();
        for number in 0..3 {
            let (link, admitted) = (store.link(), admitted.clone());
            let layer = builder(&link, dimensions())
                .while_down(outage)
                .build()
                .unwrap();
            processes.push(tokio::spawn(async move {
                let mut calls = tokio::task::JoinSet::new();
                let mut place = 100 * number;
                while started.elapsed() < ms(2500) {
                    place += 2;
                    // Each quota is asked for more than there is of it.
                    let costs = [draw(seed, place, 3), draw(seed, place + 1, 4).pow(4)];
                    let (layer, admitted) = (layer.clone(), admitted.clone());
                    calls.spawn(async move {
                        if call(&layer, costs).await.is_ok() {
                            admitted.lock().unwrap().push((started.elapsed(), costs));
                        }
                    });
                    sleep(ms(5 + draw(seed, place, 40))).await;
                    if number == 1 {
                        let now = started.elapsed();
                        link.cut_off(now > ms(cut.0) && now < ms(cut.0 + cut.1));
                    }
                }
                calls.join_all().await;
            }));
        }
        sleep(ms(300 + draw(seed, 5, 1500))).await;
        processes.remove(2).abort();
        for process in processes {
            let _ = process.await;
        }
        std::mem::take(&mut *admitted.lock().unwrap())
    })
}

/// The most by which any window of one quota holds more than its rate times the window.
fn excess_of(admitted: &[(Duration, Costs)], dimension: usize, per_second: f64) -> f64 {
    let units = |(time, costs): &(Duration, Costs)| (*time, costs[dimension]);
    excess(admitted.iter().map(units).collect(), per_second)
}

#[test]
fn closed_keeps_each_bound_in_every_window() {
    let mut total = [0; 2];
    for seed in 0..seeds() {
        let admitted = run(seed, Outage::Closed);
        for (dimension, limit) in [20.0, 1000.0].into_iter().enumerate() {
            total[dimension] += admitted
                .iter()
                .map(|(_, costs)| costs[dimension])
                .sum::<u64>();
            let most = excess_of(&admitted, dimension, limit);
            assert!(most <= limit + 1e-6, "seed {seed}, {dimension}: {most}");
        }
    }
    assert!(
        total[0] > seeds() * 15 && total[1] > seeds() * 500,
        "{total:?}"
    );
}

#[test]
fn a_local_share_passes_each_bound_by_its_part() {
    for seed in 0..seeds() / 2 {
        let admitted = run(seed, Outage::Local { share: 0.25 });
        for (dimension, limit) in [20.0, 1000.0].into_iter().enumerate() {
            let limit = limit * 1.75;
            let most = excess_of(&admitted, dimension, limit);
            assert!(most <= limit + 1e-6, "seed {seed}, {dimension}: {most}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_tells_less_than_was_taken() {
    let store = Memory::new();
    let layer = process(&store);
    let half = service_fn(async |costs: Costs| Ok::<_, BoxError>([costs[0], costs[1] / 2]));
    let (service, started, mut answered) = (layer.layer(half), Instant::now(), 0_u32);
    while started.elapsed() < ms(4000) {
        answered += u32::from(service.clone().oneshot([1, 100]).await.is_ok());
        sleep(ms(20)).await;
    }
    // A burst and four seconds, of 50 tokens each, and no more than the requests allow.
    assert!((50..=100).contains(&answered), "{answered}");
}

/// Two processes over a real server: each quota keeps its bound, and gets most of what it may.
#[cfg(feature = "redis-1")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server"]
async fn several_quotas_over_a_real_server() {
    let server = crate::server::Server::start();
    let (admitted, started) = (Admitted::default(), Instant::now());
    let (mut layers, mut offering) = (Vec::new(), Vec::new());
    for number in 0..2 {
        let store = tower_keep::store::Redis::new(server.connection().await).prefix("shop:");
        let layer = builder(&store, dimensions()).build().unwrap();
        layers.push(layer.clone());
        let admitted = admitted.clone();
        offering.push(tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            for place in 0..400 {
                let costs = [draw(number, place, 2), 1 + draw(number, place + 400, 20)];
                let (layer, admitted) = (layer.clone(), admitted.clone());
                calls.spawn(async move {
                    if call(&layer, costs).await.is_ok() {
                        admitted.lock().unwrap().push((started.elapsed(), costs));
                    }
                });
                sleep(ms(10)).await;
            }
            calls.join_all().await;
        }));
    }
    for offering in offering {
        offering.await.unwrap();
    }
    let admitted = std::mem::take(&mut *admitted.lock().unwrap());
    let seconds = started.elapsed().as_secs_f64();
    for (dimension, limit) in [20.0, 1000.0].into_iter().enumerate() {
        // A thread may be late between its spending and its clock.
        let most = excess_of(&admitted, dimension, limit);
        assert!(most <= limit * 1.1, "{dimension}: {most}");
    }
    let tokens: u64 = admitted.iter().map(|(_, costs)| costs[1]).sum();
    let requests: u64 = admitted.iter().map(|(_, costs)| costs[0]).sum();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (tokens, requests) = (tokens as f64, requests as f64);
    assert!(requests > 0.6 * 20.0 * seconds, "{requests} in {seconds} s");
    assert!(tokens > 0.3 * 1000.0 * seconds, "{tokens} in {seconds} s");
    // A debt of one process is the other's too.
    layers[0].handle().settle([0, 0], [0, 5000]);
    sleep(ms(300)).await;
    let error = call(&layers[1], [0, 500]).await.unwrap_err();
    assert_eq!(error.dimension, Some("tokens"));
    assert!(call(&layers[1], [1, 0]).await.is_ok());
    let keys = server.say("KEYS shop:api.*");
    assert!(
        keys.contains("shop:api.requests") && keys.contains("shop:api.tokens"),
        "{keys}"
    );
}
