//! Several named quotas on each call.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, advance};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    observe::Registry,
    rate_limit::{Dimension, Missing, Rate, RateLimitLayer},
    store::Memory,
};

#[derive(Clone, Copy)]
struct Prompt {
    tenant: u32,
    costs: [u64; 3],
    uses: Option<[u64; 3]>,
}

type Answer = Option<[u64; 3]>;

const SECOND: Duration = Duration::from_secs(1);

fn prompt(costs: [u64; 3]) -> Prompt {
    Prompt {
        tenant: 1,
        costs,
        uses: None,
    }
}

fn quotas() -> [Dimension; 3] {
    [
        Dimension::new("requests", Rate::per_second(1)).burst(5),
        Dimension::new("input", Rate::per_second(100)).burst(1000),
        Dimension::new("output", Rate::per_second(10)).burst(50),
    ]
}

async fn model(prompt: Prompt) -> Result<Answer, BoxError> {
    Ok(prompt.uses)
}

async fn ask<S>(service: &S, prompt: Prompt) -> Result<(), Rejected>
where
    S: Service<Prompt, Response = Answer, Error = BoxError> + Clone,
{
    let answer = service.clone().oneshot(prompt).await;
    answer
        .map(|_| ())
        .map_err(|error| Rejected::find(&*error).expect("a rejection").clone())
}

#[tokio::test(start_paused = true)]
async fn a_rejection_names_its_dimension_and_what_is_left() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .name("llm")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    ask(&service, prompt([1, 600, 20])).await.unwrap();
    let rejected = ask(&service, prompt([1, 600, 20])).await.unwrap_err();
    assert_eq!(rejected.dimension, Some("input"));
    assert_eq!(rejected.kind, RejectedKind::RateLimited);
    assert_eq!(rejected.retry_after, Some(2 * SECOND));
    let left: Vec<_> = rejected
        .left()
        .iter()
        .map(|left| (left.dimension, left.available))
        .collect();
    assert_eq!(left, [("requests", 4), ("input", 400), ("output", 30)]);
    assert!(rejected.to_string().contains("llm: input"), "{rejected}");
    assert_eq!(rejected.clone(), rejected);
    // Waiting exactly the hint is enough, and nothing was charged meanwhile.
    advance(2 * SECOND).await;
    ask(&service, prompt([1, 600, 20])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cost_above_the_burst_names_its_dimension() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .max_wait(3600 * SECOND)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    let rejected = ask(&service, prompt([1, 1, 51])).await.unwrap_err();
    assert_eq!(rejected.kind, RejectedKind::CostTooHigh);
    assert_eq!(rejected.dimension, Some("output"));
    assert_eq!(layer.handle().snapshot().dimensions[1].available, 1000);
}

#[tokio::test(start_paused = true)]
async fn each_dimension_is_settled_by_itself() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .settle(|answer: &Answer| *answer)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    let handle = layer.handle();
    let available = || {
        handle
            .snapshot()
            .dimensions
            .map(|dimension| dimension.available)
    };
    let uses = Some([1, 20, 70]);
    ask(
        &service,
        Prompt {
            uses,
            ..prompt([1, 500, 50])
        },
    )
    .await
    .unwrap();
    // Refunded, and in debt: 20 more than there were take two seconds, and one unit a tenth.
    assert_eq!(available(), [4, 980, 0]);
    assert_eq!(
        handle.snapshot().dimensions[2].next_unit,
        Duration::from_millis(2100)
    );
    // A response that says nothing leaves what was taken.
    ask(&service, prompt([1, 100, 0])).await.unwrap();
    assert_eq!(available(), [3, 880, 0]);
    handle.settle([1, 100, 0], [0, 0, 0]);
    assert_eq!(available(), [4, 980, 0]);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order_and_wake_with_a_refund() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .max_wait(60 * SECOND)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    ask(&service, prompt([1, 0, 50])).await.unwrap();
    let order = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let waiter = |place: usize, costs| {
        let (service, order) = (service.clone(), order.clone());
        tokio::spawn(async move {
            ask(&service, prompt(costs)).await.unwrap();
            assert_eq!(order.fetch_add(1, Ordering::SeqCst), place);
            start.elapsed()
        })
    };
    // The second one would fit at once, but does not overtake.
    let first = waiter(0, [1, 1, 50]);
    tokio::task::yield_now().await;
    let second = waiter(1, [1, 1, 0]);
    tokio::task::yield_now().await;
    assert_eq!(layer.handle().snapshot().waiting, 2);
    advance(SECOND).await;
    // The stream before them has used nothing of its 50.
    layer.handle().settle([1, 0, 50], [1, 0, 0]);
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(
        first < 2 * SECOND && second < 2 * SECOND,
        "{first:?} {second:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_is_rejected_at_once() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .max_wait(4 * SECOND)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    ask(&service, prompt([1, 0, 50])).await.unwrap();
    let start = Instant::now();
    let rejected = ask(&service, prompt([1, 0, 41])).await.unwrap_err();
    assert_eq!(rejected.dimension, Some("output"));
    assert_eq!(start.elapsed(), Duration::ZERO);
    ask(&service, prompt([1, 0, 40])).await.unwrap();
    assert!(start.elapsed() >= 4 * SECOND);
}

/// A call needs a request now, and input after a waiter. The hint and the name are of one quota.
#[tokio::test(start_paused = true)]
async fn a_rejection_behind_a_waiter_names_its_quota() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .max_wait(2 * SECOND)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    ask(&service, prompt([5, 1000, 0])).await.unwrap();
    let mut waiter = std::pin::pin!(ask(&service, prompt([0, 200, 0])));
    assert!(futures::poll!(waiter.as_mut()).is_pending());
    let rejected = ask(&service, prompt([1, 1, 0])).await.unwrap_err();
    let wait = rejected.retry_after.unwrap();
    assert_eq!(
        (rejected.dimension, wait),
        (Some("input"), 2010 * SECOND / 1000)
    );
    waiter.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_takes_nothing() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .max_wait(60 * SECOND)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    ask(&service, prompt([1, 0, 50])).await.unwrap();
    let call = ask(&service, prompt([1, 900, 50]));
    assert!(tokio::time::timeout(SECOND, call).await.is_err());
    assert_eq!(layer.handle().snapshot().waiting, 0);
    assert_eq!(layer.handle().snapshot().dimensions[1].available, 1000);
}

#[tokio::test(start_paused = true)]
async fn keys_have_their_own_within_a_total() {
    let total = quotas().map(|quota| quota.burst(60));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(move |prompt: &Prompt| {
            counted.fetch_add(1, Ordering::Relaxed);
            prompt.costs
        })
        .keyed_by(|prompt: &Prompt| Some(prompt.tenant))
        .within(total)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    let of = |tenant, costs| Prompt {
        tenant,
        ..prompt(costs)
    };
    ask(&service, of(1, [1, 10, 40])).await.unwrap();
    let rejected = ask(&service, of(1, [1, 10, 40])).await.unwrap_err();
    assert!(!rejected.left()[2].is_total);
    assert_eq!(
        (rejected.dimension, rejected.left().len()),
        (Some("output"), 6)
    );
    // Another key has 50, and all together 20.
    let rejected = ask(&service, of(2, [1, 10, 40])).await.unwrap_err();
    assert_eq!(rejected.dimension, Some("output"));
    assert_eq!(rejected.left()[5].available, 20);
    assert!(rejected.left()[5].is_total);
    ask(&service, of(2, [1, 10, 20])).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 4, "once for each call");
    let own = layer.handle().key(&2).unwrap().snapshot();
    assert_eq!(
        own.dimensions.map(|dimension| dimension.available),
        [4, 990, 30]
    );
}

/// The provider's quotas are short, and each tenant may have them all.
#[tokio::test(start_paused = true)]
async fn a_greedy_tenant_leaves_the_others_their_shares() {
    let roomy = quotas().map(|quota| quota.burst(1000));
    let provider = [
        Dimension::new("requests", Rate::per_second(1000)),
        Dimension::new("input", Rate::per_second(100)).burst(400),
        Dimension::new("output", Rate::per_second(1000)),
    ];
    let layer = RateLimitLayer::dimensions(roomy)
        .cost(|prompt: &Prompt| prompt.costs)
        .per_key(
            |prompt: &Prompt| Some(prompt.tenant),
            |_| {
                Ok(["requests", "input", "output"]
                    .map(|name| Dimension::new(name, Rate::per_second(1000))))
            },
        )
        .within(provider)
        .shares(|tenant| *tenant)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    let of = |tenant, input| Prompt {
        tenant,
        ..prompt([1, input, 1])
    };
    ask(&service, of(3, 7)).await.unwrap();
    let mut greedy = 0;
    let mut rejected = None;
    for _ in 0..300 {
        advance(SECOND / 10).await;
        for _ in 0..10 {
            match ask(&service, of(1, 10)).await {
                Ok(()) => greedy += 10,
                Err(error) => rejected = Some(error),
            }
        }
        // A little less than its share of 75 a second.
        ask(&service, of(3, 7)).await.unwrap();
    }
    let rejected = rejected.unwrap();
    assert_eq!(rejected.dimension, Some("input"));
    assert!(rejected.retry_after.unwrap() > Duration::ZERO);
    // What is left, and the burst.
    assert!((800..1_350).contains(&greedy), "{greedy}");
    let handle = layer.handle();
    assert_eq!(handle.key(&3).unwrap().share(), Some(0.75));
    // Alone, it gets all.
    advance(20 * SECOND).await;
    ask(&service, of(1, 1)).await.unwrap();
    assert_eq!(handle.key(&1).unwrap().share(), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_its_share_waits_until_there_is_room() {
    let tokens = |rate, burst| [Dimension::new("tokens", Rate::per_second(rate)).burst(burst)];
    let layer = RateLimitLayer::dimensions(tokens(1000, 1000))
        .cost(|prompt: &Prompt| [prompt.costs[0]])
        .keyed_by(|prompt: &Prompt| Some(prompt.tenant))
        .within(tokens(10, 40))
        .shares(|_| 1)
        .max_wait(10 * SECOND)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    let of = |tenant, tokens| Prompt {
        tenant,
        ..prompt([tokens, 0, 0])
    };
    ask(&service, of(1, 1)).await.unwrap();
    // 20 are the reserve.
    ask(&service, of(2, 19)).await.unwrap();
    let begun = Instant::now();
    ask(&service, of(2, 5)).await.unwrap();
    assert_eq!(begun.elapsed(), SECOND / 2);
    // Its own share is unused, so this one does not wait.
    ask(&service, of(1, 4)).await.unwrap();
    assert_eq!(begun.elapsed(), SECOND / 2);
}

#[tokio::test(start_paused = true)]
async fn each_key_may_have_quotas_of_its_own() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .per_key(
            |prompt: &Prompt| (prompt.tenant > 0).then_some(prompt.tenant),
            |tenant| Ok(quotas().map(|quota| quota.burst(10 * u64::from(*tenant)))),
        )
        .missing(Missing::Reject)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    let of = |tenant, costs| Prompt {
        tenant,
        ..prompt(costs)
    };
    assert!(ask(&service, of(1, [11, 0, 0])).await.is_err());
    assert!(ask(&service, of(2, [11, 0, 0])).await.is_ok());
    let rejected = ask(&service, of(0, [1, 0, 0])).await.unwrap_err();
    assert_eq!(rejected.kind, RejectedKind::MissingKey);
    assert_eq!(layer.handle().keys().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn money_is_counted_in_64_bits() {
    let layer = RateLimitLayer::dimensions([
        Dimension::new("requests", Rate::per_second(1_000)),
        Dimension::new("micro_dollars", Rate::per_day(50_000_000_000)),
    ])
    .cost(|cost: &u64| [1, *cost])
    .settle(|used: &u64| Some([1, *used]))
    .build()
    .unwrap();
    let service = layer.layer(service_fn(async |cost: u64| Ok::<_, BoxError>(cost / 2)));
    service.clone().oneshot(50_000_000_000).await.unwrap();
    let left = layer.handle().left();
    assert_eq!(left[1].available, 25_000_000_000);
    let error = service.oneshot(25_000_000_001).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().dimension,
        Some("micro_dollars")
    );
}

#[test]
fn each_dimension_has_its_own_metrics() {
    let registry = Registry::new();
    registry.with(|| {
        let layer = RateLimitLayer::dimensions(quotas())
            .cost(|prompt: &Prompt| prompt.costs)
            .name("llm")
            .build()
            .unwrap();
        let service = layer.layer(service_fn(model));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            ask(&service, prompt([1, 1, 1])).await.unwrap();
            ask(&service, prompt([1, 2000, 1])).await.unwrap_err();
        });
        let seen = registry.snapshot();
        let of = |name: &str| {
            let instance = seen.iter().find(|one| one.name == name).unwrap();
            (instance.totals.admitted, instance.totals.rejected.local())
        };
        assert_eq!(of("llm"), (1, 1));
        assert_eq!((of("llm.requests"), of("llm.input")), ((0, 0), (0, 1)));
        let output = seen.iter().find(|one| one.name == "llm.output").unwrap();
        assert_eq!(output.config, [("rate", 10.0), ("burst", 50.0)]);
    });
}

#[tokio::test(start_paused = true)]
async fn an_update_changes_one_dimension() {
    let layer = RateLimitLayer::dimensions(quotas())
        .cost(|prompt: &Prompt| prompt.costs)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(model));
    let handle = layer.handle();
    handle
        .update("output", Rate::per_second(1000), 5000)
        .unwrap();
    ask(&service, prompt([1, 0, 5000])).await.unwrap();
    let error = handle
        .update("outputs", Rate::per_second(1), 1)
        .unwrap_err();
    assert_eq!(error.field, "dimension");
    handle.reset();
    assert_eq!(handle.snapshot().dimensions[2].available, 5000);
    handle.close_for(5 * SECOND);
    assert!(ask(&service, prompt([1, 0, 0])).await.is_err());
    // Nothing is asked of it: nothing stops it.
    ask(&service, prompt([0, 0, 0])).await.unwrap();
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let field = |quotas: [Dimension; 2]| {
        let built = RateLimitLayer::dimensions(quotas).build();
        built.err().map(|error| error.field)
    };
    let one = Dimension::new("one", Rate::per_second(1));
    let two = Dimension::new("two", Rate::per_second(1));
    assert_eq!(field([one, two]), None);
    assert_eq!(field([one, one]), Some("dimensions"));
    assert_eq!(field([one, two.burst(0)]), Some("burst"));
    assert_eq!(field([one, two.burst(u64::MAX)]), Some("burst"));
    assert_eq!(
        field([one, Dimension::new("two", Rate::per_second(0))]),
        Some("rate")
    );
    let none: [Dimension; 0] = [];
    assert!(RateLimitLayer::dimensions(none).build().is_err());
    let shares = || RateLimitLayer::dimensions([one, two]).keyed_by(|_: &Prompt| Some(1));
    assert_eq!(shares().shares(|_| 1).build().unwrap_err().field, "shares");
    let of_total = shares().within([one, two]).shares(|_| 1);
    assert!(of_total.build().is_ok());
    let fleet = shares().within([one, two]).shares(|_| 1);
    let fleet = fleet.fleet(&Memory::new(), "plans").build();
    assert_eq!(fleet.unwrap_err().field, "shares");
    let waiting = RateLimitLayer::dimensions([one, two]).max_waiting(3);
    assert_eq!(waiting.build().unwrap_err().field, "max_waiting");
}

#[tokio::test]
async fn threads_never_exceed_any_dimension() {
    let layer = RateLimitLayer::dimensions([
        Dimension::new("calls", Rate::per_day(1)).burst(300),
        Dimension::new("units", Rate::per_day(1)).burst(350),
    ])
    .cost(|units: &u64| [1, *units])
    .build()
    .unwrap();
    let service = layer.layer(service_fn(async |units: u64| Ok::<_, BoxError>(units)));
    let mut taken = [0, 0];
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let service = service.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let mut taken = [0, 0];
                    for units in (0..300).map(|call| call % 3) {
                        if service.clone().oneshot(units).await.is_ok() {
                            taken = [taken[0] + 1, taken[1] + units];
                        }
                    }
                    taken
                })
            })
        })
        .collect();
    for thread in threads {
        let more = thread.join().unwrap();
        taken = [taken[0] + more[0], taken[1] + more[1]];
    }
    let left = layer
        .handle()
        .snapshot()
        .dimensions
        .map(|dimension| dimension.available);
    assert_eq!(left, [300 - taken[0], 350 - taken[1]]);
}
