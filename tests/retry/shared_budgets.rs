//! A budget that layers share, one beneath the other: each event counts once.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::sleep;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_keep::{
    algorithm::{Backoff, Budget, Jitter, RetryBudget, RetryThrottle, WindowedBudget},
    budget::KeyedBudgets,
    hedge::{HedgeBuilder, HedgeLayer},
    protocol::{Always, Chosen, ErrIsFailure, Plain},
    retry::{RetryBuilder, RetryLayer},
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Retry,
    Hedge,
    /// Tower's: it calls its inner service in a task of its own, and polls the answer here.
    Buffer,
}

/// What an attempt does, after `takes` milliseconds.
#[derive(Debug, Clone, Copy)]
struct Step {
    takes: u64,
    fails: bool,
}

type Idempotent = Plain<ErrIsFailure, Always>;
type Service = BoxCloneSyncService<u32, u32, BoxError>;

/// Attempts that came, failed and succeeded.
#[derive(Debug, Default)]
struct Upstream {
    steps: Mutex<Vec<Step>>,
    came: AtomicU32,
    failed: AtomicU32,
    succeeded: AtomicU32,
}

impl Upstream {
    fn service(self: &Arc<Self>) -> Service {
        let upstream = self.clone();
        let service = service_fn(move |call: u32| {
            let upstream = upstream.clone();
            upstream.came.fetch_add(1, Ordering::Relaxed);
            let step = upstream.steps.lock().unwrap().pop();
            async move {
                let good = Step {
                    takes: 1,
                    fails: false,
                };
                let step = step.unwrap_or(good);
                sleep(Duration::from_millis(step.takes)).await;
                if step.fails {
                    upstream.failed.fetch_add(1, Ordering::Relaxed);
                    return Err(io::Error::other("down"));
                }
                upstream.succeeded.fetch_add(1, Ordering::Relaxed);
                Ok(call)
            }
        });
        BoxCloneSyncService::new(service.map_err(BoxError::from))
    }

    fn counts(&self) -> [u32; 3] {
        [&self.came, &self.failed, &self.succeeded].map(|count| count.load(Ordering::Relaxed))
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

fn retry() -> RetryBuilder<Chosen<Idempotent>> {
    RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .attempts(2)
        .backoff(Backoff::new(MILLISECOND, 2 * MILLISECOND, Jitter::Full).unwrap())
}

fn hedge() -> HedgeBuilder<Chosen<Idempotent>> {
    HedgeLayer::builder()
        .protocol(Plain::new().idempotent())
        .delay(5 * MILLISECOND)
        .max_hedges(2)
}

/// Tells the attempts beyond the first that a layer has sent.
type Extra = Box<dyn Fn() -> u64>;

/// The parts, from the outside in, over an upstream; all share a budget.
fn stack(parts: &[Part], budget: &Arc<Budget>, upstream: &Arc<Upstream>) -> (Service, Vec<Extra>) {
    let (mut service, mut extra) = (upstream.service(), Vec::<Extra>::new());
    for part in parts.iter().rev() {
        service = match part {
            Part::Retry => {
                let layer = retry().budget(budget.clone()).build().unwrap();
                let handle = layer.handle();
                extra.push(Box::new(move || handle.snapshot().retries));
                BoxCloneSyncService::new(layer.layer(service))
            }
            Part::Hedge => {
                let layer = hedge().budget(budget.clone()).build().unwrap();
                let handle = layer.handle();
                extra.push(Box::new(move || handle.snapshot().sent));
                BoxCloneSyncService::new(layer.layer(service))
            }
            Part::Buffer => {
                BoxCloneSyncService::new(ServiceBuilder::new().buffer(10).service(service))
            }
        };
    }
    (service, extra)
}

/// How many calls of each script succeed.
async fn send(service: &Service, upstream: &Upstream, calls: &[Vec<Step>]) -> u32 {
    let mut good = 0;
    for steps in calls {
        *upstream.steps.lock().unwrap() = steps.clone();
        good += u32::from(service.clone().oneshot(1).await.is_ok());
    }
    good
}

fn follows(parts: &[Part], calls: &[Vec<Step>]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let sent = u32::try_from(calls.len()).unwrap();
        // Successes pay whole tokens; neither end of the scale is reached.
        let funded: Arc<Budget> = RetryBudget::new(2000, 1.0).unwrap().into();
        (0..1000).for_each(|_| assert!(funded.withdraw(0)));
        let upstream = Arc::default();
        let (service, extra) = stack(parts, &funded, &upstream);
        let good = send(&service, &upstream, calls).await;
        let extra = sum(&extra);
        prop_assert_eq!(funded.available(0), 1000 + good - extra, "funded");

        let throttle: Arc<Budget> = RetryThrottle::new(4000, 1.0).unwrap().into();
        (0..1000).for_each(|_| throttle.failed());
        let upstream = Arc::default();
        let (service, _) = stack(parts, &throttle, &upstream);
        let good = send(&service, &upstream, calls).await;
        let failed = upstream.counts()[1];
        prop_assert_eq!(throttle.available(0), 999 + good - failed, "throttle");

        let hour = Duration::from_secs(3600);
        let windowed: Arc<Budget> = WindowedBudget::new(hour, 1.0, 1).unwrap().into();
        let upstream = Arc::default();
        let (service, extra) = stack(parts, &windowed, &upstream);
        send(&service, &upstream, calls).await;
        let left = 3600 + sent - sum(&extra);
        let watching = retry().budget(windowed).build().unwrap();
        let available = watching.handle().snapshot().budget.unwrap();
        // A little of what is above the reserve has faded.
        prop_assert!(
            (left - 1..=left).contains(&available),
            "windowed: {available} not {left}"
        );
        Ok(())
    })
}

fn sum(extra: &[Extra]) -> u32 {
    u32::try_from(extra.iter().map(|extra| extra()).sum::<u64>()).unwrap()
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let layer = prop_oneof![Just(Part::Retry), Just(Part::Hedge)];
    let buffered = (layer, any::<bool>()).prop_map(|(layer, buffered)| match buffered {
        true => vec![layer, Part::Buffer],
        false => vec![layer],
    });
    prop::collection::vec(buffered, 1..4).prop_map(|parts| parts.concat())
}

fn calls() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (1u64..20, any::<bool>()).prop_map(|(takes, fails)| Step { takes, fails });
    prop::collection::vec(prop::collection::vec(step, 0..12), 1..8)
}

proptest! {
    #[test]
    fn each_event_counts_once_however_layers_nest(parts in parts(), calls in calls()) {
        follows(&parts, &calls)?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_pays_once_through_two_layers() {
    for parts in [[Part::Retry, Part::Hedge], [Part::Hedge, Part::Retry]] {
        let budget: Arc<Budget> = RetryBudget::new(10, 0.1).unwrap().into();
        while budget.withdraw(0) {}
        let upstream = Arc::default();
        let (service, _) = stack(&parts, &budget, &upstream);
        let good = vec![Vec::new(); 25];
        assert_eq!(send(&service, &upstream, &good).await, 25);
        assert_eq!(budget.available(0), 2, "{parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_pays_its_key_once_through_two_layers() {
    let budgets = KeyedBudgets::builder(|key: &u32| Some(*key))
        .each(|| RetryBudget::new(10, 1.0).unwrap())
        .build()
        .unwrap();
    let upstream = Arc::<Upstream>::default();
    let hedge = hedge().budget_per(budgets.clone()).build().unwrap();
    let retry = retry().budget_per(budgets.clone()).build().unwrap();
    let service = retry.layer(hedge.layer(upstream.service()));
    let fails = Step {
        takes: 1,
        fails: true,
    };
    // Two hedges and a retry, with its two hedges: five of ten tokens.
    *upstream.steps.lock().unwrap() = vec![fails; 6];
    assert!(service.clone().oneshot(7).await.is_err());
    assert_eq!(budgets.handle().key(&7), Some(5));
    service.oneshot(7).await.unwrap();
    assert_eq!(budgets.handle().key(&7), Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_failure_costs_a_throttle_one_token() {
    let budget: Arc<Budget> = RetryThrottle::new(100, 0.1).unwrap().into();
    let layer = hedge().budget(budget.clone()).build().unwrap();
    let upstream = Arc::<Upstream>::default();
    let fails = Step {
        takes: 1,
        fails: true,
    };
    *upstream.steps.lock().unwrap() = vec![fails; 3];
    let service = layer.layer(upstream.service());
    assert!(service.clone().oneshot(1).await.is_err());
    assert_eq!((upstream.counts()[1], budget.available(0)), (3, 46));
    // A hedge that is sent because of the time costs none.
    let slow = Step {
        takes: 30,
        fails: false,
    };
    *upstream.steps.lock().unwrap() = vec![slow; 3];
    service.oneshot(1).await.unwrap();
    assert_eq!((upstream.counts()[0], budget.available(0)), (6, 47));
}

#[tokio::test(start_paused = true)]
async fn layers_that_do_not_nest_count_apart() {
    let budget: Arc<Budget> = RetryBudget::new(10, 1.0).unwrap().into();
    while budget.withdraw(0) {}
    let upstream = Arc::default();
    let (reads, _) = stack(&[Part::Hedge], &budget, &upstream);
    let (writes, _) = stack(&[Part::Retry], &budget, &upstream);
    let both = futures::future::join(reads.oneshot(1), writes.oneshot(1)).await;
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(budget.available(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_leaves_no_note_of_a_budget() {
    let budget: Arc<Budget> = RetryBudget::new(10, 1.0).unwrap().into();
    while budget.withdraw(0) {}
    let panics = service_fn(async |_: u32| -> Result<u32, BoxError> { panic!("on purpose") });
    let layer = retry().budget(budget.clone()).build().unwrap();
    let call = std::panic::AssertUnwindSafe(layer.layer(panics).oneshot(1));
    assert!(futures::FutureExt::catch_unwind(call).await.is_err());
    let (service, _) = stack(&[Part::Hedge], &budget, &Arc::default());
    service.oneshot(1).await.unwrap();
    assert_eq!(budget.available(0), 1);
}
