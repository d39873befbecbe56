//! What every layer owes, whatever its protocol: section "Every layer" of the semantics, as one
//! table.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{Empty, Full};
use tokio::time::advance;
use tower::{Service, ServiceExt, service_fn, util::MapResponseLayer};

use crate::support::{Answer, Ask, Probe, ProbeError, Wrapped, ask, client, plain, server};
use tower_keep::{
    RejectedKind,
    algorithm::{RetryBudget, TokenBucket, Vegas},
    bulkhead::{BulkheadBuilder, BulkheadLayer},
    circuit_breaker::{
        BreakerState, CircuitBreakerBuilder, CircuitBreakerHandle, CircuitBreakerLayer,
        KeyedCircuitBreakerHandle,
    },
    fallback::{FallbackLayer, SpilloverLayer},
    gate::GateLayer,
    hedge::HedgeLayer,
    protocol::{
        Plain,
        http::{
            self,
            usage::{MeterLayer, UsageReport, openai},
        },
    },
    rate_limit::{Dimension, Rate, RateLimitBuilder, RateLimitLayer},
    retry::{RetryBuilder, RetryHandle, RetryLayer},
    throttle::{ThrottleBuilder, ThrottleLayer},
    timeout::{TimeoutBuilder, TimeoutLayer},
};

const BURST: u32 = 3;
const LIMIT: usize = 2;
const MIN_CALLS: u32 = 2;
const OPEN: Duration = Duration::from_secs(30);

/// One layer in one protocol, and how to see from outside what calls hold of it.
struct Case {
    name: &'static str,
    apply: Box<dyn Fn(Probe) -> Wrapped>,
    /// How many permits, probes or tokens are out.
    held: Box<dyn Fn() -> usize>,
    pattern: Pattern,
}

enum Pattern {
    RateLimit,
    Bulkhead,
    Throttle,
    Breaker(CircuitBreakerHandle),
    KeyedBreaker(KeyedCircuitBreakerHandle<&'static str>),
    Retry(RetryHandle),
    /// Nothing is shared that could run out.
    Unlimited,
}

impl Case {
    fn new(
        name: &'static str,
        apply: impl Fn(Probe) -> Wrapped + 'static,
        held: impl Fn() -> usize + 'static,
        pattern: Pattern,
    ) -> Self {
        Self {
            name,
            apply: Box::new(apply),
            held: Box::new(held),
            pattern,
        }
    }

    fn service(&self) -> (Wrapped, Probe) {
        let probe = Probe::new();
        ((self.apply)(probe.clone()), probe)
    }
}

/// All layers in all protocols that they stand in.
fn cases() -> Vec<Case> {
    cases_with(true)
}

fn cases_with(enabled: bool) -> Vec<Case> {
    let mut cases = Vec::new();

    let limit = |name, apply| Case::new(name, apply, || 0, Pattern::RateLimit);
    let builder = || -> RateLimitBuilder {
        RateLimitLayer::builder(Rate::per_minute(1))
            .burst(BURST)
            .enabled(enabled)
    };
    cases.push(limit(
        "rate limit, plain",
        boxed(plain(builder().protocol(Plain::new()).build().unwrap())),
    ));
    cases.push(limit(
        "rate limit, client",
        boxed(client(
            builder().protocol(http::Client::new()).build().unwrap(),
        )),
    ));
    cases.push(limit(
        "rate limit, server",
        boxed(server(
            builder().protocol(http::Server::new()).build().unwrap(),
        )),
    ));

    let over_plain = plain(builder().keyed_by(|_: &Ask| Some("key")).build().unwrap());
    let over_client = client(
        builder()
            .protocol(http::Client::new())
            .keyed_by(one_key)
            .build()
            .unwrap(),
    );
    let over_server = server(
        builder()
            .protocol(http::Server::new())
            .keyed_by(one_key)
            .build()
            .unwrap(),
    );
    cases.push(limit("keyed rate limit, plain", boxed(over_plain)));
    cases.push(limit("keyed rate limit, client", boxed(over_client)));
    cases.push(limit("keyed rate limit, server", boxed(over_server)));

    cases.extend(dimensions(enabled));

    let own = |_: &&'static str| TokenBucket::new(Rate::per_minute(1), BURST);
    let over_plain = plain(
        builder()
            .per_key(|_: &Ask| Some("key"), own)
            .build()
            .unwrap(),
    );
    let over_client = client(
        builder()
            .protocol(http::Client::new())
            .per_key(one_key, own)
            .build()
            .unwrap(),
    );
    let over_server = server(
        builder()
            .protocol(http::Server::new())
            .per_key(one_key, own)
            .build()
            .unwrap(),
    );
    cases.push(limit("per-key rate limit, plain", boxed(over_plain)));
    cases.push(limit("per-key rate limit, client", boxed(over_client)));
    cases.push(limit("per-key rate limit, server", boxed(over_server)));

    let builder = || -> BulkheadBuilder { BulkheadLayer::builder(LIMIT).enabled(enabled) };
    let layer = builder().build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "bulkhead, plain",
        plain(layer),
        move || handle.snapshot().in_flight,
        Pattern::Bulkhead,
    ));
    let layer = builder().protocol(http::Client::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "bulkhead, client",
        client(layer),
        move || handle.snapshot().in_flight,
        Pattern::Bulkhead,
    ));
    let layer = builder().protocol(http::Server::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "bulkhead, server",
        server(layer),
        move || handle.snapshot().in_flight,
        Pattern::Bulkhead,
    ));

    let builder = || {
        BulkheadLayer::builder(LIMIT)
            .adaptive(Vegas::default())
            .enabled(enabled)
    };
    let layer = builder().build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "adaptive bulkhead, plain",
        plain(layer),
        move || handle.snapshot().in_flight,
        Pattern::Bulkhead,
    ));
    let layer = builder().protocol(http::Client::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "adaptive bulkhead, client",
        client(layer),
        move || handle.snapshot().in_flight,
        Pattern::Bulkhead,
    ));
    let layer = builder().protocol(http::Server::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "adaptive bulkhead, server",
        server(layer),
        move || handle.snapshot().in_flight,
        Pattern::Bulkhead,
    ));

    let builder =
        || -> ThrottleBuilder { ThrottleLayer::builder().max_rejection(1.0).enabled(enabled) };
    let throttle = |name, apply| Case::new(name, apply, || 0, Pattern::Throttle);
    cases.push(throttle(
        "throttle, plain",
        boxed(plain(builder().protocol(Plain::new()).build().unwrap())),
    ));
    cases.push(throttle(
        "throttle, client",
        boxed(client(
            builder().protocol(http::Client::new()).build().unwrap(),
        )),
    ));
    cases.push(throttle(
        "throttle, server",
        boxed(server(
            builder().protocol(http::Server::new()).build().unwrap(),
        )),
    ));

    let by_key = builder()
        .protocol(Plain::new())
        .keyed_by(|_: &Ask| Some("key"));
    cases.push(throttle(
        "keyed throttle, plain",
        boxed(plain(by_key.build().unwrap())),
    ));
    let by_key = builder().protocol(http::Client::new()).keyed_by(one_key);
    cases.push(throttle(
        "keyed throttle, client",
        boxed(client(by_key.build().unwrap())),
    ));

    let builder = || -> CircuitBreakerBuilder {
        CircuitBreakerLayer::builder()
            .min_calls(MIN_CALLS)
            .failure_rate(1.0)
            .probes(1)
            .open_for(OPEN)
            .jitter(false)
            .enabled(enabled)
    };
    let layer = builder().protocol(Plain::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "circuit breaker, plain",
        plain(layer),
        || 0,
        Pattern::Breaker(handle),
    ));
    let layer = builder().protocol(http::Client::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "circuit breaker, client",
        client(layer),
        || 0,
        Pattern::Breaker(handle),
    ));
    let layer = builder().protocol(http::Server::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "circuit breaker, server",
        server(layer),
        || 0,
        Pattern::Breaker(handle),
    ));

    let circuits = || {
        CircuitBreakerLayer::builder()
            .min_calls(MIN_CALLS)
            .failure_rate(1.0)
            .probes(1)
            .open_for(OPEN)
            .jitter(false)
            .enabled(enabled)
    };
    let keyed = circuits()
        .protocol(Plain::new())
        .keyed_by(|_: &Ask| Some("key"))
        .build()
        .unwrap();
    let circuits_by_key = Pattern::KeyedBreaker(keyed.handle());
    cases.push(Case::new(
        "keyed circuit breaker, plain",
        plain(keyed),
        || 0,
        circuits_by_key,
    ));
    let keyed = circuits()
        .protocol(http::Client::new())
        .keyed_by(one_key)
        .build()
        .unwrap();
    let circuits_by_key = Pattern::KeyedBreaker(keyed.handle());
    cases.push(Case::new(
        "keyed circuit breaker, client",
        client(keyed),
        || 0,
        circuits_by_key,
    ));

    let gates = || {
        let breaker = CircuitBreakerLayer::builder()
            .enabled(enabled)
            .gate()
            .unwrap();
        let rate = Rate::per_second(1000);
        let limit = RateLimitLayer::builder(rate)
            .enabled(enabled)
            .gate()
            .unwrap();
        let bulkhead = BulkheadLayer::builder(LIMIT)
            .enabled(enabled)
            .gate()
            .unwrap();
        let handle = bulkhead.handle();
        (GateLayer::new((breaker, limit, bulkhead)), move || {
            handle.snapshot().in_flight
        })
    };
    let (layer, held) = gates();
    cases.push(Case::new(
        "three gates, plain",
        plain(layer.protocol(Plain::new())),
        held,
        Pattern::Bulkhead,
    ));
    let (layer, held) = gates();
    let layer = layer.protocol(http::Client::new());
    cases.push(Case::new(
        "three gates, client",
        client(layer),
        held,
        Pattern::Bulkhead,
    ));
    let (layer, held) = gates();
    let layer = layer.protocol(http::Server::new());
    cases.push(Case::new(
        "three gates, server",
        server(layer),
        held,
        Pattern::Bulkhead,
    ));

    let builder = || -> RetryBuilder {
        RetryLayer::builder()
            .attempts(3)
            .budget(RetryBudget::new(4, 0.001).unwrap())
            .enabled(enabled)
    };
    let layer = builder()
        .protocol(Plain::new().idempotent())
        .build()
        .unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "retry, plain",
        plain(layer),
        unpaid(&handle),
        Pattern::Retry(handle),
    ));
    let layer = builder().protocol(http::Client::new()).build().unwrap();
    let handle = layer.handle();
    cases.push(Case::new(
        "retry, client",
        client(layer),
        unpaid(&handle),
        Pattern::Retry(handle),
    ));

    let builder =
        || -> TimeoutBuilder { TimeoutLayer::builder(Duration::from_secs(1)).enabled(enabled) };
    let timeout = |name, apply| Case::new(name, apply, || 0, Pattern::Unlimited);
    cases.push(timeout(
        "timeout, plain",
        boxed(plain(builder().protocol(Plain::new()).build().unwrap())),
    ));
    cases.push(timeout(
        "timeout, client",
        boxed(client(
            builder().protocol(http::Client::new()).build().unwrap(),
        )),
    ));
    cases.push(timeout(
        "timeout, server",
        boxed(server(
            builder().protocol(http::Server::new()).build().unwrap(),
        )),
    ));
    cases.extend(hedges_and_fallbacks(enabled));
    cases.push(meters());
    cases.extend(faults(enabled));
    cases.extend(recorders());
    cases
}

/// Layers whose faults hit every call, and change nothing of what it comes to.
fn faults(enabled: bool) -> Vec<Case> {
    use ::http::Response;
    use http_body_util::Full;
    use tower::ServiceBuilder;
    use tower_keep::fault::{Fault, FaultBody, FaultHandle, FaultLayer};

    let case = |name, apply, handle: FaultHandle| {
        handle.start_for(Duration::from_secs(24 * 3600));
        let held = move || handle.snapshot().active;
        Case::new(name, apply, held, Pattern::Unlimited)
    };
    let builder = || FaultLayer::builder("the contract").enabled(enabled);
    let no_delay = || Fault::delay(Duration::ZERO);
    let over_plain = builder().protocol(Plain::new()).fault(no_delay());
    let over_plain = over_plain.build().unwrap();
    let over_client = builder().protocol(http::Client::new());
    let over_client = over_client
        .fault(Fault::cut_body(u64::MAX))
        .build()
        .unwrap();
    let over_server = builder().protocol(http::Server::new()).fault(no_delay());
    let over_server = over_server.build().unwrap();
    let read = |response: Response<FaultBody<Full<Bytes>>>| response.map(|_| Full::default());
    let reading = ServiceBuilder::new().map_response(read);
    let (of_plain, of_client, of_server) = (
        over_plain.handle(),
        over_client.handle(),
        over_server.handle(),
    );
    vec![
        case("faults, plain", boxed(plain(over_plain)), of_plain),
        case(
            "faults, client",
            boxed(client(reading.clone().layer(over_client))),
            of_client,
        ),
        case(
            "faults, server",
            boxed(server(reading.layer(over_server))),
            of_server,
        ),
    ]
}

/// Recorders have nothing to switch off.
fn recorders() -> Vec<Case> {
    use tower_keep::replay::RecorderBuilder;

    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let builder = || {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        RecorderBuilder::new(folder.join(format!("contract-{number}.keep")))
    };
    let over_plain = plain(builder().protocol(Plain::new()).build().unwrap());
    let over_client = client(builder().protocol(http::Client::new()).build().unwrap());
    let over_server = server(builder().protocol(http::Server::new()).build().unwrap());
    let case = |name, apply| Case::new(name, apply, || 0, Pattern::Unlimited);
    vec![
        case("recorder, plain", boxed(over_plain)),
        case("recorder, client", boxed(over_client)),
        case("recorder, server", boxed(over_server)),
    ]
}

/// Several quotas, of which the second runs out first.
fn dimensions(enabled: bool) -> Vec<Case> {
    let limit = |name, apply| Case::new(name, apply, || 0, Pattern::RateLimit);
    let builder = || {
        let quotas = [("tokens", 2 * BURST), ("requests", BURST)];
        let quotas = quotas
            .map(|(name, burst)| Dimension::new(name, Rate::per_minute(1)).burst(u64::from(burst)));
        RateLimitLayer::dimensions(quotas).enabled(enabled)
    };
    let over_plain = plain(builder().build().unwrap());
    let over_client = client(builder().protocol(http::Client::new()).build().unwrap());
    let over_server = server(builder().protocol(http::Server::new()).build().unwrap());
    let keyed_plain = plain(builder().keyed_by(|_: &Ask| Some("key")).build().unwrap());
    let keyed_server = builder().keyed_by(one_key).protocol(http::Server::new());
    let shares = builder()
        .keyed_by(|_: &Ask| Some("key"))
        .within(["tokens", "requests"].map(|name| Dimension::new(name, Rate::per_minute(1000))))
        .shares(|_| 1);
    vec![
        limit("dimensions, plain", boxed(over_plain)),
        limit("dimensions, client", boxed(over_client)),
        limit("dimensions, server", boxed(over_server)),
        limit("keyed dimensions, plain", boxed(keyed_plain)),
        limit(
            "keyed dimensions, server",
            boxed(server(keyed_server.build().unwrap())),
        ),
        limit(
            "dimensions with shares, plain",
            boxed(plain(shares.build().unwrap())),
        ),
    ]
}

/// A meter has nothing to switch off. It holds the calls that it has not settled.
fn meters() -> Case {
    let unsettled = Arc::new(AtomicUsize::new(0));
    let (begun, held) = (unsettled.clone(), unsettled);
    let meter = MeterLayer::new(openai(), move |_: &Request<Empty<Bytes>>| {
        begun.fetch_add(1, Ordering::Relaxed);
        let ended = begun.clone();
        move |_: UsageReport| {
            ended.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let layer = (MapResponseLayer::new(without_body), meter);
    let held = move || held.load(Ordering::Relaxed);
    Case::new("meter, server", server(layer), held, Pattern::Unlimited)
}

fn without_body<B>(response: Response<B>) -> Response<Full<Bytes>> {
    response.map(|_| Full::default())
}

fn hedges_and_fallbacks(enabled: bool) -> Vec<Case> {
    let case = |name, apply| Case::new(name, apply, || 0, Pattern::Unlimited);
    let hedge = || HedgeLayer::builder().enabled(enabled);
    let over_plain = hedge().protocol(Plain::new().idempotent()).build().unwrap();
    let over_client = hedge().protocol(http::Client::new()).build().unwrap();
    let pass = FallbackLayer::builder(|_: &Ask| (), async |(), failure| failure);
    let pass_http = FallbackLayer::builder(|_: &Request<_>| (), async |(), failure| failure);
    let backup = || service_fn(async |_: Ask| Err::<(), _>(ProbeError));
    let service = FallbackLayer::service(backup()).enabled(enabled);
    let service = service.protocol(Plain::new().idempotent()).build().unwrap();
    let roomy = BulkheadLayer::builder(1000).enabled(enabled);
    let roomy = roomy.build().unwrap();
    let in_flight = roomy.handle();
    let spillover = Case::new(
        "spillover, plain",
        plain(SpilloverLayer::builder(roomy, backup()).build().unwrap()),
        move || in_flight.snapshot().in_flight,
        Pattern::Unlimited,
    );
    vec![
        spillover,
        case("fallback by service, plain", boxed(plain(service))),
        case("hedge, plain", boxed(plain(over_plain))),
        case("hedge, client", boxed(client(over_client))),
        case(
            "fallback, plain",
            boxed(plain(
                pass.enabled(enabled)
                    .protocol(Plain::new())
                    .build()
                    .unwrap(),
            )),
        ),
        case(
            "fallback, server",
            boxed(server(
                pass_http.protocol(http::Server::new()).build().unwrap(),
            )),
        ),
    ]
}

fn one_key(_: &Request<Empty<Bytes>>) -> Option<&'static str> {
    Some("key")
}

fn boxed(apply: impl Fn(Probe) -> Wrapped + 'static) -> Box<dyn Fn(Probe) -> Wrapped> {
    Box::new(apply)
}

/// Tokens that are neither in the budget nor spent on a retry that was sent.
fn unpaid(handle: &RetryHandle) -> impl Fn() -> usize + 'static {
    let handle = handle.clone();
    move || {
        let snapshot = handle.snapshot();
        4 - snapshot.budget.unwrap() as usize - usize::try_from(snapshot.retries).unwrap()
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn every_inner_call_follows_that_values_own_readiness() {
    for case in cases() {
        let (mut service, probe) = case.service();
        for _ in 0..2 {
            ask(&mut service, Ask::Succeed).await;
            ask(&mut service.clone(), Ask::Yield(2)).await;
            ask(&mut service, Ask::Fail).await;
        }
        assert!(probe.calls() >= BURST as usize, "{}", case.name);
        assert_eq!(probe.unready_calls(), 0, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn an_inner_error_arrives_unchanged() {
    for case in cases() {
        let (mut service, _) = case.service();
        assert_eq!(
            ask(&mut service, Ask::Fail).await,
            Answer::Failed,
            "{}",
            case.name
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_breaks_down_is_passed_on() {
    for case in cases() {
        let (mut service, probe) = case.service();
        probe.break_down();
        let error = service.ready().await.map(drop).unwrap_err();
        assert!(error.is::<ProbeError>(), "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn two_applications_of_a_layer_share_one_limit() {
    for case in cases() {
        let ((mut first, probe), (mut second, _)) = (case.service(), case.service());
        let rejection = match &case.pattern {
            Pattern::RateLimit => {
                for _ in 0..BURST {
                    assert_eq!(ask(&mut first, Ask::Succeed).await, Answer::Succeeded);
                }
                ask(&mut second, Ask::Succeed).await
            }
            Pattern::Bulkhead => {
                let mut held = Vec::new();
                for _ in 0..LIMIT {
                    held.push(first.ready().await.unwrap().call(Ask::Hang));
                }
                ask(&mut second, Ask::Succeed).await
            }
            Pattern::Breaker(_) | Pattern::KeyedBreaker(_) => {
                for _ in 0..MIN_CALLS {
                    ask(&mut first, Ask::Fail).await;
                }
                ask(&mut second, Ask::Succeed).await
            }
            Pattern::Retry(handle) => {
                for _ in 0..3 {
                    ask(&mut first, Ask::Fail).await;
                }
                // Two retries a call, but four in all.
                assert_eq!(
                    (probe.calls(), handle.snapshot().budget),
                    (3 + 4, Some(0)),
                    "{}",
                    case.name
                );
                ask(&mut second, Ask::Fail).await;
                assert_eq!(handle.snapshot().retries, 4, "{}", case.name);
                continue;
            }
            Pattern::Throttle => {
                for _ in 0..100 {
                    ask(&mut first, Ask::Fail).await;
                }
                // By chance, with a probability above 99 %.
                let mut answer = Answer::Failed;
                for _ in 0..20 {
                    if answer == Answer::Failed {
                        answer = ask(&mut second, Ask::Fail).await;
                    }
                }
                answer
            }
            Pattern::Unlimited => continue,
        };
        assert!(
            matches!(rejection, Answer::Rejected(_)),
            "{}: {rejection:?}",
            case.name
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_between_readiness_and_call() {
    for case in cases() {
        let (mut service, _) = case.service();
        let mut idle: Vec<_> = (0..100).map(|_| service.clone()).collect();
        for clone in &mut idle {
            clone.ready().await.unwrap();
        }
        assert_eq!((case.held)(), 0, "{}", case.name);
        assert_eq!(
            ask(&mut service, Ask::Succeed).await,
            Answer::Succeeded,
            "{}",
            case.name
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_at_any_point_leaks_nothing() {
    for polls in 0..6 {
        for case in cases() {
            let (mut service, probe) = case.service();
            // With retry: fails, waits, and hangs in the second attempt.
            probe.script(
                [Ask::Fail, Ask::Hang]
                    .into_iter()
                    .skip(usize::from(!matches!(case.pattern, Pattern::Retry(_)))),
            );
            {
                let mut call = pin!(service.ready().await.unwrap().call(Ask::Hang));
                for _ in 0..polls {
                    if poll(call.as_mut()).is_ready() {
                        break;
                    }
                    advance(Duration::from_millis(150)).await;
                }
            }
            probe.script([]);
            assert_eq!(
                (probe.running(), (case.held)()),
                (0, 0),
                "{} after {polls} polls",
                case.name
            );
            assert_eq!(
                ask(&mut service, Ask::Succeed).await,
                Answer::Succeeded,
                "{} after {polls} polls",
                case.name
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_frees_what_the_call_held() {
    for panic in [Ask::PanicInCall, Ask::PanicInFuture] {
        for case in cases() {
            for _ in 0..BURST - 1 {
                let (mut service, _) = case.service();
                service.ready().await.unwrap();
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let mut call = pin!(service.call(panic));
                    poll(call.as_mut()).is_ready()
                }));
                assert!(outcome.is_err(), "{}", case.name);
                assert_eq!((case.held)(), 0, "{}", case.name);
            }
            let opened = match &case.pattern {
                Pattern::Breaker(handle) => Some(handle.clone()),
                Pattern::KeyedBreaker(handle) => handle.key(&"key"),
                _ => None,
            };
            if let Some(handle) = opened {
                assert_eq!(
                    handle.state(),
                    BreakerState::Open,
                    "{}: a panic is a failure",
                    case.name
                );
                continue;
            }
            let (mut service, _) = case.service();
            assert_eq!(
                ask(&mut service, Ask::Succeed).await,
                Answer::Succeeded,
                "{}",
                case.name
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_slot_is_freed_however_its_call_ends() {
    for end in [Ask::Hang, Ask::PanicInCall, Ask::PanicInFuture] {
        for case in cases() {
            let Pattern::Breaker(handle) = &case.pattern else {
                continue;
            };
            let (mut service, _) = case.service();
            for _ in 0..MIN_CALLS {
                ask(&mut service, Ask::Fail).await;
            }
            advance(OPEN).await;
            service.ready().await.unwrap();
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let mut call = pin!(service.call(end));
                let _ = poll(call.as_mut());
            }));
            let expected = if end == Ask::Hang {
                BreakerState::HalfOpen
            } else {
                BreakerState::Open
            };
            assert_eq!(handle.state(), expected, "{}: {end:?}", case.name);
            advance(OPEN).await;
            assert_eq!(
                ask(&mut service, Ask::Succeed).await,
                Answer::Succeeded,
                "{}: {end:?}",
                case.name
            );
            assert_eq!(
                handle.state(),
                BreakerState::Closed,
                "{}: {end:?}",
                case.name
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_disabled_layer_admits_every_call() {
    for case in cases_with(false) {
        let (mut service, probe) = case.service();
        let mut held = Vec::new();
        for _ in 0..LIMIT + 1 {
            held.push(service.ready().await.unwrap().call(Ask::Hang));
        }
        for _ in 0..BURST + MIN_CALLS {
            assert_eq!(
                ask(&mut service, Ask::Fail).await,
                Answer::Failed,
                "{}",
                case.name
            );
        }
        assert_eq!(
            probe.calls(),
            LIMIT + 1 + (BURST + MIN_CALLS) as usize,
            "{}",
            case.name
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_ready_over_a_hanging_service() {
    for case in cases() {
        let Pattern::Breaker(handle) = &case.pattern else {
            continue;
        };
        let (mut service, probe) = case.service();
        handle.force_open();
        probe.hang_readiness(true);
        let Answer::Rejected(rejected) = ask(&mut service, Ask::Succeed).await else {
            panic!("{}", case.name)
        };
        assert_eq!(rejected.kind, RejectedKind::CircuitOpen);
        assert_eq!(probe.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_closed_after_readiness_polls_the_service() {
    for case in cases() {
        let Pattern::Breaker(handle) = &case.pattern else {
            continue;
        };
        let (mut service, probe) = case.service();
        handle.force_open();
        service.ready().await.unwrap();
        handle.close();
        probe.hang_readiness(true);
        let mut call = pin!(service.call(Ask::Succeed));
        assert!(poll(call.as_mut()).is_pending(), "{}", case.name);
        probe.hang_readiness(false);
        assert_eq!(call.await.unwrap(), Answer::Succeeded, "{}", case.name);
        assert_eq!(probe.unready_calls(), 0, "{}", case.name);
    }
}
