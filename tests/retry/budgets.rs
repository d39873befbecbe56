//! A budget for each key.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

use tower_keep::{
    algorithm::{Budget, RetryBudget, RetryThrottle, WindowedBudget},
    budget::KeyedBudgets,
    hedge::HedgeLayer,
    keyed::{ByHost, Host},
    protocol::{
        Plain,
        http::{Client, ReplayBody},
    },
    retry::{Backoff, Jitter, RetryLayer},
    stack,
};

const MILLISECOND: Duration = Duration::from_millis(1);

fn quick() -> Backoff {
    Backoff::new(MILLISECOND, 2 * MILLISECOND, Jitter::Full).unwrap()
}

fn host(name: &str) -> Host {
    name.parse().unwrap()
}

type Upstream =
    BoxCloneService<Request<ReplayBody<Empty<Bytes>>>, Response<Empty<Bytes>>, Infallible>;

/// The host `dead` is down; any other fails each third time. Counts what reaches the dead one.
fn hosts() -> (Arc<AtomicUsize>, Upstream) {
    let (dead, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = dead.clone();
    let service = service_fn(move |request: Request<ReplayBody<Empty<Bytes>>>| {
        let fails = match request.uri().host() {
            Some("dead") => {
                counting.fetch_add(1, Ordering::Relaxed);
                true
            }
            _ => calls.fetch_add(1, Ordering::Relaxed) % 3 == 0,
        };
        let status = if fails {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        async move {
            let response = Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Empty::new()).unwrap())
        }
    });
    (dead, BoxCloneService::new(service))
}

/// Sends so many calls to a host; how many succeed.
async fn send<S>(service: &S, host: &str, calls: usize) -> usize
where
    S: Service<Request<Empty<Bytes>>, Response = Response<Empty<Bytes>>, Error: std::fmt::Debug>
        + Clone,
{
    let mut good = 0;
    for _ in 0..calls {
        let request = Request::get(format!("http://{host}/"));
        let request = request.body(Empty::new()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        good += usize::from(response.status().is_success());
    }
    good
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_takes_no_retries_of_another() {
    let stack = stack::client()
        .http()
        .without_circuit_breaker()
        .build()
        .unwrap();
    let (dead, service) = hosts();
    let service = stack.layer(service);
    assert_eq!(send(&service, "dead", 100).await, 0);
    assert_eq!(dead.load(Ordering::Relaxed), 110, "calls and a budget");
    assert_eq!(send(&service, "well", 20).await, 20);
    let now = stack.handle().snapshot();
    let mut budgets = now.retry_budgets;
    budgets.sort_by_key(|(host, _)| host.to_string());
    assert_eq!(budgets[0], (host("dead"), 0));
    assert!(budgets[1].0 == host("well") && budgets[1].1 < 5);
    let handle = stack.handle().retry_budgets;
    assert_eq!(handle.key(&host("DEAD")), Some(0));
    assert_eq!(
        (handle.key(&host("new")), handle.shared()),
        (None, Some(10))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stack_has_one_budget_where_that_is_said() {
    let one = |stack: stack::ClientStack<Client>| stack;
    let given = one(stack::client()
        .http()
        .without_circuit_breaker()
        .retry(|retry| retry.budget(RetryBudget::new(5, 0.1).unwrap()))
        .build()
        .unwrap());
    let (dead, service) = hosts();
    assert_eq!(send(&given.layer(service), "dead", 100).await, 0);
    assert_eq!(dead.load(Ordering::Relaxed), 105);
    assert!(given.handle().snapshot().retry_budgets.is_empty());
    assert_eq!(given.handle().retry.snapshot().budget, Some(0));

    let peer = stack::client().http().one_peer().without_circuit_breaker();
    let peer = peer.build().unwrap();
    let (_, service) = hosts();
    send(&peer.layer(service), "dead", 100).await;
    assert_eq!(peer.handle().retry.snapshot().budget, Some(0));
    assert_eq!(peer.handle().retry_budgets.shared(), None);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_and_a_retry_share_the_budgets() {
    let budgets = KeyedBudgets::builder(ByHost).build().unwrap();
    let retry = RetryLayer::builder()
        .protocol(Client::new())
        .backoff(quick())
        .budget_per(budgets.clone())
        .build()
        .unwrap();
    let hedge = HedgeLayer::builder()
        .budget_per(budgets.clone())
        .protocol(Client::new())
        .delay(MILLISECOND)
        .build()
        .unwrap();
    let (_, service) = hosts();
    let slow = service_fn(async |_: Request<ReplayBody<Empty<Bytes>>>| {
        sleep(10 * MILLISECOND).await;
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    send(&hedge.layer(slow), "dead", 4).await;
    let left = |name| budgets.handle().key(&host(name));
    assert_eq!((hedge.handle().snapshot().sent, left("dead")), (4, Some(6)));
    send(&retry.layer(service), "dead", 10).await;
    assert_eq!(retry.handle().snapshot().retries, 6);
    assert_eq!(left("dead"), Some(0));
    assert_eq!(left("other"), None);
}

/// Sends calls with these keys, which all fail; how many retries that made.
async fn retries_of<const N: usize>(
    budgets: &KeyedBudgets<u32, fn(&u32) -> Option<u32>>,
    keys: [u32; N],
) -> u64 {
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .attempts(2)
        .backoff(quick())
        .budget_per(budgets.clone())
        .build()
        .unwrap();
    let fails = service_fn(async |_: u32| Err::<(), _>(io::Error::other("down")));
    for key in keys {
        let _ = layer.layer(fails).oneshot(key).await;
    }
    layer.handle().snapshot().retries
}

fn odd(key: &u32) -> Option<u32> {
    (key % 2 == 1).then_some(*key)
}

#[tokio::test(start_paused = true)]
async fn keys_are_evicted_a_minute_after_their_last_retry() {
    let key: fn(&u32) -> Option<u32> = odd;
    let budgets = KeyedBudgets::builder(key)
        .max_keys(2)
        .each(|| RetryBudget::new(1, 0.1).unwrap())
        .build()
        .unwrap();
    assert_eq!(retries_of(&budgets, [1, 1, 3, 3]).await, 2);
    // There is no place for 5: it shares a budget with requests without a key.
    assert_eq!(retries_of(&budgets, [5, 2, 4]).await, 1);
    assert_eq!(budgets.handle().keys().len(), 2);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(retries_of(&budgets, [7]).await, 0);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(retries_of(&budgets, [7, 7]).await, 1);
    assert_eq!(budgets.handle().key(&7), Some(0));
    assert_eq!(budgets.handle().keys().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn budgets_of_keys_may_be_of_any_kind() {
    let key: fn(&u32) -> Option<u32> = odd;
    let windowed = || WindowedBudget::new(Duration::from_secs(10), 0.2, 0).unwrap();
    let throttle = || RetryThrottle::new(4, 0.1).unwrap();
    let budgets = KeyedBudgets::builder(key).each(windowed).build().unwrap();
    assert_eq!(retries_of(&budgets, [1; 20]).await, 4);
    assert_eq!(retries_of(&budgets, [3; 10]).await, 2);
    let budgets = KeyedBudgets::builder(key).each(throttle).build().unwrap();
    assert_eq!(retries_of(&budgets, [1; 20]).await, 1);
    assert_eq!(retries_of(&budgets, [3; 20]).await, 1);
}

#[test]
fn two_kinds_of_budgets_are_one_too_many() {
    let key: fn(&u32) -> Option<u32> = odd;
    let builder = KeyedBudgets::<u32, _>::builder(key);
    let error = builder.max_keys(0).build().unwrap_err();
    assert_eq!((error.field, error.value.as_str()), ("max_keys", "0"));
    let budgets = KeyedBudgets::<u32, _>::builder(key).build().unwrap();
    let plain = || Plain::new().idempotent();
    let retry = RetryLayer::builder().name("search").protocol(plain());
    let error = retry
        .budget(RetryBudget::default())
        .budget_per(budgets.clone())
        .build()
        .unwrap_err();
    assert!(error.to_string().starts_with("retry (search): `budget` is"));
    let hedge = HedgeLayer::builder().name("search").protocol(plain());
    let error = hedge
        .budget_per(budgets)
        .without_budget()
        .build()
        .unwrap_err();
    assert!(error.to_string().starts_with("hedge (search): `budget` is"));
}

/// Retries that pay with a default budget for each key.
fn expiring() -> KeyedBudgets<u32, fn(&u32) -> Option<u32>> {
    KeyedBudgets::builder(odd as fn(&u32) -> Option<u32>)
        .build()
        .unwrap()
}

/// Sends so many calls of a key that succeed.
async fn succeed(budgets: &KeyedBudgets<u32, fn(&u32) -> Option<u32>>, key: u32, calls: usize) {
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .budget_per(budgets.clone())
        .build()
        .unwrap();
    let good = layer.layer(service_fn(async |_: u32| Ok::<_, io::Error>(())));
    for _ in 0..calls {
        good.clone().oneshot(key).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_keys_budget_begins_with_the_key() {
    let budgets = expiring();
    for key in [1, 3, 5] {
        assert_eq!(retries_of(&budgets, [key; 20]).await, 10, "{key}");
        sleep(Duration::from_secs(3600)).await;
    }
    let stack = stack::client().http().without_circuit_breaker();
    let stack = stack.build().unwrap();
    let (dead, service) = hosts();
    sleep(Duration::from_secs(3600)).await;
    send(&stack.layer(service), "dead", 100).await;
    assert_eq!(dead.load(Ordering::Relaxed), 110);
}

#[tokio::test(start_paused = true)]
async fn a_keys_old_tokens_expire_but_for_one() {
    let budgets = expiring();
    succeed(&budgets, 1, 1).await;
    sleep(Duration::from_secs(9)).await;
    assert_eq!(retries_of(&budgets, [1]).await, 1);
    assert_eq!(budgets.handle().key(&1), Some(9), "not in the first 10 s");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(retries_of(&budgets, [1; 5]).await, 1);
    // Those without a key share one, of which the same is true.
    sleep(Duration::from_secs(100)).await;
    assert_eq!(retries_of(&budgets, [2; 5]).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_keys_successes_keep_its_tokens() {
    let budgets = expiring();
    succeed(&budgets, 1, 1).await;
    sleep(Duration::from_secs(20)).await;
    // A mean of 40 in ten seconds, which pay for 4.
    succeed(&budgets, 1, 79).await;
    assert_eq!(retries_of(&budgets, [1; 20]).await, 4);
    // Whichever layer sees them, also for calls without a key.
    sleep(Duration::from_secs(20)).await;
    let hedge = HedgeLayer::builder()
        .budget_per(budgets.clone())
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let good = hedge.layer(service_fn(async |_: u32| Ok::<_, io::Error>(())));
    for _ in 0..90 {
        good.clone().oneshot(2).await.unwrap();
    }
    assert_eq!(retries_of(&budgets, [2; 20]).await, 2);
}

/// A call fails in all of two attempts; how many there were.
async fn attempts_of(budget: &Arc<Budget>) -> u64 {
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .attempts(2)
        .backoff(quick())
        .budget(budget.clone())
        .build()
        .unwrap();
    let fails = service_fn(async |_: u32| Err::<(), _>(io::Error::other("down")));
    let _ = layer.layer(fails).oneshot(1).await;
    1 + layer.handle().snapshot().retries
}

#[tokio::test(start_paused = true)]
async fn a_shared_budget_has_one_time_for_all_layers() {
    let windowed = WindowedBudget::new(Duration::from_secs(10), 0.001, 1).unwrap();
    let budget: Arc<Budget> = windowed.into();
    let old = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .attempts(100)
        .backoff(quick())
        .budget(budget.clone())
        .build()
        .unwrap();
    let fails = service_fn(async |_: u32| Err::<(), _>(io::Error::other("down")));
    sleep(Duration::from_secs(3600)).await;
    let _ = old.layer(fails).oneshot(1).await;
    assert_eq!(old.handle().snapshot().budget, Some(0));
    // A layer that is an hour younger gets what ten seconds bring.
    sleep(Duration::from_secs(11)).await;
    for _ in 0..10 {
        assert_eq!(attempts_of(&budget).await, 2);
    }
    assert_eq!(attempts_of(&budget).await, 1);
}
