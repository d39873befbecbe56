//! Regressions that no file of a single pattern holds: what use has found, layer by layer. The
//! whole list is `docs/faults.md`.

use std::{
    convert::Infallible,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use futures::FutureExt;
use tokio::time::{Instant, advance};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_keep::{
    Rejected, RejectedKind,
    algorithm::{SlidingLog, TokenBucket},
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerLayer, KeyedCircuitBreakerHandle},
    protocol::Plain,
    rate_limit::{Missing, Overflow, Rate, RateLimitLayer},
};

const SECOND: Duration = Duration::from_secs(1);

type Boxed = BoxCloneService<u32, u32, BoxError>;

fn echo()
-> impl Service<u32, Response = u32, Error = Infallible, Future: Send> + Clone + Send + Sync {
    service_fn(async |n: u32| Ok::<_, Infallible>(n))
}

fn over<L, S>(layer: &L, inner: S) -> Boxed
where
    L: Layer<S>,
    L::Service:
        Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    BoxCloneService::new(layer.layer(inner))
}

fn kind(result: &Result<u32, BoxError>) -> Option<RejectedKind> {
    Some(Rejected::find(&**result.as_ref().err()?)?.kind)
}

/// Ends within some seconds of real time: what hangs fails, and does not hang the test.
fn ends(run: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        run();
        let _ = done.send(());
    });
    let minute = Duration::from_secs(60);
    ended.recv_timeout(minute).expect("a deadlock, or a panic");
}

/// 14: with room, and without any wait.
#[tokio::test(start_paused = true)]
async fn a_passed_deadline_is_rejected_though_there_is_room() {
    #[expect(clippy::disallowed_methods, reason = "a deadline of tokio's clock")]
    let now = Instant::now();
    let at = move |late: &u32| Some(if *late > 0 { now } else { now + SECOND });
    let limit = || RateLimitLayer::builder(Rate::per_second(10)).deadline(at);
    let own = |(): &()| TokenBucket::new(Rate::per_second(10), 10);
    let waiting = limit().max_wait(SECOND).build().unwrap();
    let keyed = limit().keyed_by(|_: &u32| Some(())).build().unwrap();
    let per_key = limit().per_key(|_: &u32| Some(()), own).build().unwrap();
    let cases = [
        ("rate limit", over(&limit().build().unwrap(), echo())),
        ("rate limit with a wait", over(&waiting, echo())),
        ("keyed", over(&keyed, echo())),
        ("per key", over(&per_key, echo())),
    ];
    for (layer, service) in cases {
        let late = service.clone().oneshot(1).await;
        assert_eq!(kind(&late), Some(RejectedKind::DeadlineExceeded), "{layer}");
        assert!(service.oneshot(0).await.is_ok(), "{layer}");
    }
}

/// 25: not even while others wait, or the limit is in debt.
#[tokio::test(start_paused = true)]
async fn a_call_of_cost_0_passes_all_that_wait() {
    let limit = || {
        RateLimitLayer::builder(Rate::per_second(1))
            .burst(1)
            .max_wait(60 * SECOND)
            .cost(|cost: &u32| *cost)
    };
    let own = |(): &()| TokenBucket::new(Rate::per_second(1), 1);
    let total = TokenBucket::new(Rate::per_second(1), 1).unwrap();
    let keyed = limit().keyed_by(|_: &u32| Some(()));
    let keyed = keyed.within(total).build().unwrap();
    let per_key = limit().per_key(|_: &u32| Some(()), own).build().unwrap();
    let cases = [
        ("rate limit", over(&limit().build().unwrap(), echo())),
        ("keyed, within a total", over(&keyed, echo())),
        ("per key", over(&per_key, echo())),
    ];
    for (layer, service) in cases {
        let waits = [1, 1, 1].map(|cost| tokio::spawn(service.clone().oneshot(cost)));
        tokio::task::yield_now().await;
        let free = service.oneshot(0).now_or_never();
        assert_eq!(free.map(|call| call.is_ok()), Some(true), "{layer}");
        waits.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// 18: hosts that died and were never called again.
#[tokio::test(start_paused = true)]
async fn dead_hosts_leave_their_places_to_new_ones() {
    const KEYS: u32 = 64;
    let open_for = 30 * SECOND;
    let layer = CircuitBreakerLayer::builder()
        .min_calls(1)
        .open_for(open_for)
        .protocol(Plain::new())
        .keyed_by(|host: &u32| Some(*host))
        .max_keys(KEYS as usize)
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |host: u32| match host {
        0..1000 => Err("down".into()),
        _ => Ok::<u32, BoxError>(host),
    }));
    for host in 0..KEYS {
        let _ = service.clone().oneshot(host).await;
    }
    let newcomers = async |from: u32| {
        let mut admitted = 0;
        for host in from..from + KEYS {
            admitted += usize::from(service.clone().oneshot(host).await.is_ok());
        }
        admitted
    };
    assert_eq!(newcomers(1000).await, 0);
    // The open time, the tenth of its jitter, and a window of 10 s.
    advance(open_for + open_for / 10 + 10 * SECOND).await;
    assert_eq!(newcomers(2000).await, KEYS as usize);
}

/// 21: without a setting.
#[tokio::test(start_paused = true)]
async fn waiting_is_bounded_by_default() {
    let limit = || {
        RateLimitLayer::builder(Rate::per_day(1))
            .burst(1)
            .max_wait(Duration::from_secs(100 * 86_400 * 365))
    };
    let full = async |service: Boxed, bound: usize, key: fn(usize) -> u32| {
        let mut waits = Vec::new();
        for n in 0..=bound {
            let mut call = Box::pin(service.clone().oneshot(key(n)));
            if futures::poll!(&mut call).is_pending() {
                waits.push(call);
            }
        }
        assert_eq!(waits.len(), bound);
        let one_more = service.oneshot(key(bound + 1)).await;
        assert_eq!(kind(&one_more), Some(RejectedKind::RateLimited));
    };
    full(over(&limit().build().unwrap(), echo()), 1024, |_| 0).await;
    // 1024 of each key, and 16 times that of all together: the first call of each is admitted.
    let keyed = limit().keyed_by(|key: &u32| Some(*key)).build().unwrap();
    let service = over(&keyed, echo());
    for key in 0..17 {
        service.clone().oneshot(key).await.unwrap();
    }
    full(service, 16 * 1024, |n| u32::try_from(n % 17).unwrap_or(0)).await;
}

/// 23: what is done through a handle is done to the circuit that calls find.
#[test]
fn a_forced_circuit_is_never_a_forgotten_one() {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .keyed_by(|key: &u32| Some(*key))
        .max_keys(2)
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    let call = |key| layer.layer(echo()).oneshot(key).now_or_never().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _entered = runtime.enter();
            for key in (1000..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let _ = call(key);
            }
        });
        let _entered = runtime.enter();
        for key in 0..2000 {
            let _ = call(key);
            if let Some(circuit) = layer.handle().key(&key) {
                circuit.force_open();
                drop(circuit);
                assert_eq!(kind(&call(key)), Some(RejectedKind::CircuitOpen), "{key}");
                if let Some(circuit) = layer.handle().key(&key) {
                    circuit.reset();
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// 24: a waker that asks the layer that wakes it.
#[test]
fn a_waker_may_ask_the_layer_that_wakes_it() {
    struct Asks<F>(F, AtomicUsize);

    impl<F: Fn() + Send + Sync> Wake for Asks<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    ends(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let breaker = CircuitBreakerLayer::builder().backpressure();
        let breaker = breaker.protocol(Plain::new()).build().unwrap();
        let circuit = breaker.handle();
        let asked = circuit.clone();
        let asks = Arc::new(Asks(
            move || {
                let _ = (asked.snapshot(), asked.transitions(), asked.config());
            },
            AtomicUsize::new(0),
        ));
        let waker = Waker::from(asks.clone());
        let mut cx = Context::from_waker(&waker);
        // One that subscribes, and one that is pending until the circuit closes.
        let mut transitions = circuit.transitions();
        let mut next = Box::pin(transitions.next());
        assert!(next.poll_unpin(&mut cx).is_pending());
        circuit.force_open();
        assert_eq!(asks.1.load(Ordering::Relaxed), 1);
        let mut service = breaker.layer(echo());
        assert!(service.poll_ready(&mut cx).is_pending());
        circuit.close();
        assert_eq!(asks.1.load(Ordering::Relaxed), 2);

        let limit = RateLimitLayer::builder(Rate::per_day(1)).burst(1);
        let limit = limit.max_wait(100 * 86_400 * SECOND).build().unwrap();
        let handle = limit.handle();
        let service = limit.layer(echo());
        assert!(service.clone().oneshot(0).now_or_never().is_some());
        let asked = handle.clone();
        let asks = Arc::new(Asks(
            move || {
                asked.refund(0);
                let _ = asked.snapshot();
            },
            AtomicUsize::new(0),
        ));
        let waker = Waker::from(asks.clone());
        let mut cx = Context::from_waker(&waker);
        let mut waits = Box::pin(service.oneshot(1));
        assert!(waits.poll_unpin(&mut cx).is_pending());
        handle.refund(1);
        assert!(asks.1.load(Ordering::Relaxed) > 0);
        assert!(matches!(waits.poll_unpin(&mut cx), Poll::Ready(Ok(1))));
    });
}

/// 24: keys whose own code asks the map that keeps them.
#[test]
fn a_key_may_ask_the_layer_that_keeps_it() {
    static CIRCUITS: OnceLock<KeyedCircuitBreakerHandle<Curious>> = OnceLock::new();
    thread_local!(static ASKING: AtomicBool = const { AtomicBool::new(false) });

    struct Curious(u32);

    impl Curious {
        fn ask() {
            ASKING.with(|asking| {
                if !asking.swap(true, Ordering::Relaxed) {
                    let circuits = CIRCUITS.get();
                    drop(circuits.map(KeyedCircuitBreakerHandle::keys));
                    asking.store(false, Ordering::Relaxed);
                }
            });
        }
    }

    impl Hash for Curious {
        fn hash<H: Hasher>(&self, state: &mut H) {
            Self::ask();
            self.0.hash(state);
        }
    }

    impl PartialEq for Curious {
        fn eq(&self, other: &Self) -> bool {
            Self::ask();
            self.0 == other.0
        }
    }

    impl Eq for Curious {}

    impl Clone for Curious {
        fn clone(&self) -> Self {
            Self::ask();
            Self(self.0)
        }
    }

    impl Drop for Curious {
        fn drop(&mut self) {
            Self::ask();
        }
    }

    ends(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        let _entered = runtime.enter();
        let layer = CircuitBreakerLayer::builder()
            .protocol(Plain::new())
            .keyed_by(|key: &u32| Some(Curious(*key)))
            .max_keys(3)
            .build()
            .unwrap();
        assert!(CIRCUITS.set(layer.handle()).is_ok());
        for key in 0..100 {
            let call = layer.layer(echo()).oneshot(key).now_or_never();
            assert_eq!(call.unwrap().unwrap(), key);
        }
        assert_eq!(layer.handle().keys().len(), 3);
    });
}

/// 27: whatever is set first.
#[tokio::test(start_paused = true)]
async fn settings_may_be_made_in_any_order() {
    let name = "orders";
    let own = |_: &u32| SlidingLog::new(Rate::per_day(1));
    let limit = || RateLimitLayer::builder(Rate::per_day(1)).burst(1);
    let key = |key: &u32| (*key < 9).then_some(*key);
    let keyed = limit()
        .keyed_by(key)
        .protocol(Plain::new())
        .cost(|_: &u32| 1)
        .missing(Missing::Reject)
        .max_keys(10)
        .advertise(true)
        .name(name);
    let per_key = limit()
        .per_key(key, own)
        .enabled(true)
        .max_keys(10)
        .protocol(Plain::new())
        .missing(Missing::Reject)
        .name(name);
    let bulkhead = BulkheadLayer::builder(1)
        .keyed_by(key)
        .missing(Missing::Reject)
        .name(name)
        .protocol(Plain::new());
    let breaker = CircuitBreakerLayer::builder()
        .keyed_by(key)
        .missing(Missing::Reject)
        .name(name)
        .protocol(Plain::new())
        .min_calls(1);
    let services = [
        over(&keyed.build().unwrap(), echo()),
        over(&per_key.build().unwrap(), echo()),
        over(&bulkhead.build().unwrap(), echo()),
        over(&breaker.build().unwrap(), echo()),
    ];
    for (place, service) in services.into_iter().enumerate() {
        let error = service.clone().oneshot(9).await.unwrap_err();
        let rejected = Rejected::find(&*error).unwrap();
        let said = (rejected.kind, rejected.name);
        assert_eq!(said, (RejectedKind::MissingKey, Some(name)), "{place}");
        assert!(service.oneshot(0).await.is_ok(), "{place}");
    }
}

/// 28: off is off, keyed or not, until it is built anew.
#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_off_stays_off() {
    let off = || CircuitBreakerLayer::builder().min_calls(1).enabled(false);
    let fails = || service_fn(async |_: u32| Err::<u32, _>(BoxError::from("down")));
    let alone = off().protocol(Plain::new()).build().unwrap();
    let keyed = off()
        .protocol(Plain::new())
        .keyed_by(|key: &u32| Some(*key));
    let keyed = keyed.build().unwrap();
    for service in [over(&alone, fails()), over(&keyed, fails())] {
        for _ in 0..3 {
            alone.handle().reset();
            keyed.handle().shared().reset();
            let error = service.clone().oneshot(1).await.unwrap_err();
            assert_eq!(error.to_string(), "down");
        }
    }
    assert_eq!(alone.handle().state(), BreakerState::Closed);
}

/// Mutant: `update` without waking those that wait for a probe.
#[tokio::test(start_paused = true)]
async fn more_probes_wake_a_pending_caller() {
    let breaker = CircuitBreakerLayer::builder()
        .min_calls(1)
        .probes(1)
        .open_for(SECOND)
        .lease(1000 * SECOND)
        .backpressure()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let service = breaker.layer(service_fn(move |hangs: u32| {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            match hangs {
                _ if first => Err(BoxError::from("down")),
                0 => Ok(0),
                _ => std::future::pending().await,
            }
        }
    }));
    service.clone().oneshot(0).await.unwrap_err();
    advance(2 * SECOND).await;
    let probe = tokio::spawn(service.clone().oneshot(1));
    tokio::task::yield_now().await;
    let caller = tokio::spawn(service.oneshot(0));
    tokio::task::yield_now().await;
    assert!(!caller.is_finished());
    let mut config = breaker.handle().config();
    config.probes = 2;
    breaker.handle().update(config).unwrap();
    assert!(tokio::time::timeout(SECOND, caller).await.is_ok());
    probe.abort();
}

/// 24: closures that users give are asked outside of all locks.
#[test]
fn a_limits_maker_may_ask_the_layer_it_is_for() {
    type Handle = tower_keep::rate_limit::PerKeyRateLimitHandle<u32>;
    ends(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        let _entered = runtime.enter();
        let handle: Arc<Mutex<Option<Handle>>> = Arc::default();
        let asked = handle.clone();
        let layer = RateLimitLayer::builder(Rate::per_second(1))
            .per_key(
                |key: &u32| Some(*key),
                move |_: &u32| {
                    let handle = asked.lock().unwrap().clone();
                    drop(handle.map(|handle| (handle.keys(), handle.heavy_hitters(1).len())));
                    TokenBucket::new(Rate::per_second(1), 1)
                },
            )
            .max_keys(2)
            .build()
            .unwrap();
        *handle.lock().unwrap() = Some(layer.handle());
        for key in 0..10 {
            let call = layer.layer(echo()).oneshot(key % 3).now_or_never();
            assert!(call.is_some());
        }
    });
}
