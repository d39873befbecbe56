//! Closures about a request are called once, and their answers hold until the call is sent or
//! rejected.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
};

use futures::FutureExt;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    Criticality,
    algorithm::{Limit, TokenBucket},
    gate::{Admit, CostOf, DeadlineOf, Read, Shadow},
    keyed::NotKeyed,
    rate_limit::RateLimitBuilder,
    throttle::ThrottleLayer,
};

/// The number of times that each closure was called.
#[derive(Debug, Clone, Default)]
struct Asks(Arc<Mutex<BTreeMap<&'static str, u32>>>);

impl Asks {
    /// Returns a closure with a constant answer.
    fn closure<T: Copy + Send + Sync + 'static>(
        &self,
        what: &'static str,
        says: T,
    ) -> impl Says<T> + use<T> {
        let asks = self.0.clone();
        move |_| {
            *asks.lock().unwrap().entry(what).or_default() += 1;
            says
        }
    }

    /// Returns how often each closure was called since the last take, and how many closures were.
    fn take(&self) -> (Vec<u32>, usize) {
        let asked = std::mem::take(&mut *self.0.lock().unwrap());
        let times: Vec<_> = asked.into_values().collect();
        (times.clone(), times.len())
    }

    fn limit(
        &self,
    ) -> RateLimitBuilder<NotKeyed, Plain, Costed<impl Says<u32>, impl Says<Deadline>>> {
        RateLimitLayer::builder(Rate::per_second(1))
            .burst(1)
            .max_wait(SECOND * 5)
            .max_waiting(1)
            .advertise(true)
            .cost(self.closure("cost", 1))
            .deadline(self.closure("deadline", None))
    }
}

type Deadline = Option<Instant>;
type Costed<C, D> = (((), CostOf<C>), DeadlineOf<D>);

trait Says<T>: Fn(&u32) -> T + Clone + Send + Sync + 'static {}

impl<T, F: Fn(&u32) -> T + Clone + Send + Sync + 'static> Says<T> for F {}

fn one_in_all() -> Arc<TokenBucket> {
    Arc::new(TokenBucket::new(Rate::per_second(1), 1).unwrap())
}

/// Admits one call, queues one, rejects one, and drops one that waits.
async fn each_is_asked_once<G>(asks: &Asks, layer: GateLayer<G, Plain>)
where
    G: Admit<u32> + Read<u32> + Send + Sync + 'static,
    ResponseFuture<tower::util::BoxCloneService<u32, u32, BoxError>, G, Plain, u32>: Send,
{
    let inner = tower::util::BoxCloneService::new(service_fn(async |n: u32| {
        sleep(SECOND / 2).await;
        Ok::<_, BoxError>(n)
    }));
    let mut service = layer.layer(inner);
    let admitted = tokio::spawn(service.ready().await.unwrap().call(1));
    yield_now().await;
    let (times, closures) = asks.take();
    assert!(
        closures > 0 && times.iter().all(|times| *times == 1),
        "{times:?}"
    );

    let waits = tokio::spawn(service.ready().await.unwrap().call(2));
    yield_now().await;
    let rejected = service.ready().await.unwrap().call(3);
    let (times, _) = asks.take();
    // For two calls.
    assert!(times.iter().all(|times| *times <= 2), "{times:?}");
    assert!(rejected.await.is_err());
    admitted.await.unwrap().unwrap();
    waits.await.unwrap().unwrap();
    let gone = service.ready().await.unwrap().call(4).now_or_never();
    assert!(gone.is_none());
    let (times, _) = asks.take();
    assert_eq!(times, vec![1; closures], "a wait asks nothing");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_asks_once() {
    let asks = Asks::default();
    each_is_asked_once(&asks, asks.limit().build().unwrap().protocol(Plain::new())).await;
    let keyed = || {
        let keyed = asks.limit().keyed_by(asks.closure("key", Some(7)));
        keyed.heavy_hitters(|_: &u32| String::new())
    };
    each_is_asked_once(&asks, keyed().build().unwrap()).await;
    each_is_asked_once(&asks, keyed().within(one_in_all()).build().unwrap()).await;
    let per_key = asks.limit().per_key(asks.closure("key", Some(7)), |_| {
        TokenBucket::new(Rate::per_second(1), 1)
    });
    each_is_asked_once(&asks, per_key.within(one_in_all()).build().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_asks_once() {
    let asks = Asks::default();
    let builder = BulkheadLayer::builder(1)
        .max_wait(SECOND * 5)
        .max_waiting(1)
        .deadline(asks.closure("deadline", None))
        .criticality(asks.closure("criticality", Criticality::Critical));
    each_is_asked_once(&asks, builder.clone().build().unwrap()).await;
    let keyed = builder.keyed_by(asks.closure("key", Some(7)));
    each_is_asked_once(&asks, keyed.clone().within(1).build().unwrap()).await;
    each_is_asked_once(&asks, keyed.build().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn each_of_several_gates_asks_once() {
    let asks = Asks::default();
    let breaker = CircuitBreakerLayer::builder().keyed_by(asks.closure("host", Some(1)));
    let throttle = ThrottleLayer::builder().keyed_by(asks.closure("upstream", Some(2)));
    let limit = asks.limit().keyed_by(asks.closure("tenant", Some(3)));
    let bulkhead = BulkheadLayer::builder(1)
        .keyed_by(asks.closure("route", Some(4)))
        .criticality(asks.closure("criticality", Criticality::Critical));
    let gates = (
        breaker.gate().unwrap(),
        throttle.gate().unwrap(),
        limit.gate().unwrap(),
        bulkhead.gate().unwrap(),
    );
    each_is_asked_once(&asks, GateLayer::new(gates).protocol(Plain::new())).await;
}

#[tokio::test(start_paused = true)]
async fn a_candidate_asks_once_beside_the_real_gate() {
    let (asks, tried) = (Asks::default(), Asks::default());
    let candidate = Shadow::new(tried.limit().gate().unwrap(), "candidate");
    let gates = (candidate, asks.limit().gate().unwrap());
    let layer = GateLayer::new(gates).protocol(Plain::new());
    each_is_asked_once(&asks, layer).await;
    // For the four calls.
    assert_eq!(tried.take().0, [4, 4]);
}

/// Returns a cost of 1 at first, and of 100 when asked again.
fn grows() -> impl Fn(&u32) -> u32 + Clone {
    let asked = Arc::new(Mutex::new(0));
    move |_| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        if *asked == 1 { 1 } else { 100 }
    }
}

/// Drops a call that has waited for one unit and received it, before it is sent.
async fn drop_between_turn_and_readiness<G>(layer: &GateLayer<G, Plain>)
where
    G: Admit<u32> + Read<u32> + Send + Sync + 'static,
{
    #[derive(Clone)]
    struct NeverReady;

    impl Service<u32> for NeverReady {
        type Response = u32;
        type Error = BoxError;
        type Future = std::future::Pending<Result<u32, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Pending
        }

        fn call(&mut self, _: u32) -> Self::Future {
            pending()
        }
    }

    let mut call = Box::pin(layer.layer(NeverReady).call(1));
    for _ in 0..2 {
        assert!((&mut call).now_or_never().is_none());
        advance(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_grows_while_it_waits_mints_nothing() {
    let builder = || {
        let limit = RateLimitLayer::builder(Rate::per_second(1)).burst(100);
        limit.max_wait(SECOND * 500)
    };
    let single = builder().cost(grows()).build().unwrap();
    single.handle().charge(100);
    drop_between_turn_and_readiness(&single).await;
    assert_eq!(single.handle().snapshot().available, 2);

    let keyed = builder()
        .cost(grows())
        .keyed_by(|_: &u32| Some(7))
        .build()
        .unwrap();
    keyed.handle().charge(&7, 100);
    drop_between_turn_and_readiness(&keyed).await;
    assert_eq!(keyed.handle().snapshot_of(&7).available, 2);

    let bucket = Arc::new(TokenBucket::new(Rate::per_second(1), 100).unwrap());
    let own = bucket.clone();
    let per_key = builder()
        .cost(grows())
        .per_key(|_: &u32| Some(7), move |_| Ok(own.clone()));
    let per_key = per_key.within(one_in_all()).build().unwrap();
    bucket.charge(100, 0);
    drop_between_turn_and_readiness(&per_key).await;
    let handle = per_key.handle().key(&7).unwrap();
    assert_eq!(handle.snapshot().available, 2);
}
