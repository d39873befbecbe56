//! The parts of stacks that have types of their own.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{Empty, combinators::UnsyncBoxBody};
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Rejected, RejectedKind,
    algorithm::TokenBucket,
    bulkhead::BulkheadLayer,
    fallback::{FallbackLayer, PrimaryError},
    gate::Shadow,
    keyed::{ByHost, Host, NotKeyed},
    protocol::Plain,
    rate_limit::{CostsOf, Dimension, DimensionsBuilder, Rate, RateLimitLayer},
    stack::{self, Changes},
};

type Body = Empty<Bytes>;

const SECOND: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn to(host: &str) -> Request<Body> {
    Request::get(format!("http://{host}/"))
        .body(Body::new())
        .unwrap()
}

/// Answers at once, but hangs at every other call to a host named `slow`, and fails at `bad`.
fn upstream<B: Send + 'static>(
    calls: &Arc<AtomicUsize>,
) -> impl Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ use<B> {
    let calls = calls.clone();
    service_fn(move |request: Request<B>| {
        let number = calls.fetch_add(1, SeqCst);
        async move {
            let host = request.uri().host().unwrap_or_default();
            if host.starts_with("slow") && number % 2 == 0 {
                std::future::pending::<()>().await;
            }
            let status = match host {
                "bad" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            };
            let mut response = Response::new(Body::new());
            *response.status_mut() = status;
            if host == "bad" {
                let fields = response.headers_mut();
                fields.insert("retry-after", HeaderValue::from_static("30"));
            }
            Ok(response)
        }
    })
}

fn kind<T>(result: Result<T, BoxError>) -> Option<RejectedKind> {
    let error = result.err()?;
    Rejected::find(&*error).map(|rejected| rejected.kind)
}

/// Neither `Clone` nor `Unpin`, nor of any size that is known.
type Upload = UnsyncBoxBody<Bytes, BoxError>;

#[tokio::test(start_paused = true)]
async fn without_retry_a_request_is_passed_on_as_it_is() {
    let stack = stack::client().http().without_retry().build().unwrap();
    // The inner service takes the very body, which a retry would wrap.
    let service = stack.layer(service_fn(async |request: Request<Upload>| {
        Ok::<_, BoxError>(Response::new(request.into_body()))
    }));
    let request = Request::post("http://host/").body(Upload::default());
    assert!(service.oneshot(request.unwrap()).await.is_ok());
    assert_eq!(stack.handle().retry.snapshot().first_try, 0);
}

#[tokio::test(start_paused = true)]
async fn without_retry_a_request_need_not_be_clone() {
    struct Order(u32);

    let stack = stack::client().plain(Plain::new()).without_retry();
    let stack = stack.max_in_flight(1).build().unwrap();
    let service = stack.layer(service_fn(async |order: Order| {
        sleep(SECOND).await;
        Ok::<_, io::Error>(order.0)
    }));
    let first = tokio::spawn(service.clone().oneshot(Order(1)));
    tokio::task::yield_now().await;
    let second = service.clone().oneshot(Order(2)).await;
    assert_eq!(kind(second), Some(RejectedKind::BulkheadFull));
    assert_eq!(first.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_overtakes_a_slow_call() {
    let calls = Arc::default();
    let stack = stack::client().http().hedge(|hedge| hedge.delay(ms(50)));
    let stack = stack.build().unwrap();
    let service = stack.layer(upstream(&calls));
    let answer = service.clone().oneshot(to("slow")).await.unwrap();
    assert_eq!((answer.status(), calls.load(SeqCst)), (StatusCode::OK, 2));
    assert_eq!(stack.handle().hedge.unwrap().snapshot().won_by_hedge, 1);
}

/// One host's slow calls would use up what pays for the hedges of all.
#[tokio::test(start_paused = true)]
async fn each_host_pays_for_its_own_hedges() {
    let calls = Arc::default();
    let stack = stack::client().http().attempt_timeout(SECOND);
    let stack = stack.hedge(|hedge| hedge.delay(ms(50))).build().unwrap();
    let service = stack.layer(upstream(&calls));
    for (host, is_hedged) in [("slow-1", true), ("slow-1", false), ("slow-2", true)] {
        calls.store(0, SeqCst);
        let answer = service.clone().oneshot(to(host)).await;
        assert_eq!(answer.is_ok(), is_hedged, "{host}");
    }
    let budgets = stack.handle().snapshot().retry_budgets;
    assert_eq!(budgets.len(), 2);
    assert!(budgets.iter().all(|(_, left)| *left == 0), "{budgets:?}");
}

#[tokio::test(start_paused = true)]
async fn a_functions_stack_hedges_and_sends_once() {
    let calls = Cell::new(0);
    let query = async || {
        calls.set(calls.get() + 1);
        if calls.get() == 1 {
            std::future::pending::<()>().await;
        }
        Ok::<_, io::Error>(calls.get())
    };
    let plain = || stack::client().plain(Plain::new().idempotent());
    let hedging = plain().hedge(|hedge| hedge.delay(ms(50))).build().unwrap();
    assert_eq!(hedging.run(query).await.unwrap(), 2);
    let once = plain().without_retry().build().unwrap();
    assert_eq!(once.run(query).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn each_host_has_a_throttle() {
    let calls = Arc::default();
    let stack = stack::client()
        .http()
        .without_retry()
        .without_circuit_breaker();
    let stack = stack
        .throttle(|throttle| throttle.min_calls(5))
        .build()
        .unwrap();
    let service = stack.layer(upstream(&calls));
    let mut throttled = 0;
    for _ in 0..200 {
        let bad = service.clone().oneshot(to("bad")).await;
        throttled += usize::from(kind(bad) == Some(RejectedKind::Throttled));
        assert!(service.clone().oneshot(to("good")).await.is_ok());
    }
    assert!(throttled > 100, "{throttled}");
    let snapshot = stack.handle().snapshot();
    let of = |host: &str| {
        let host: Host = host.parse().unwrap();
        let found = snapshot.throttles.iter();
        found
            .clone()
            .find(|(one, _)| *one == Some(host.clone()))
            .unwrap()
            .1
    };
    assert!(of("bad").probability > 0.5);
    assert_eq!(of("good").failures, 0);
}

#[tokio::test(start_paused = true)]
async fn each_host_has_a_rate_and_honors_its_own_hint() {
    let limit = RateLimitLayer::builder(Rate::per_second(2))
        .burst(2)
        .per_host();
    let stack = stack::client().http().without_retry();
    let stack = stack
        .rate_limit(limit.honor_retry_after(60 * SECOND))
        .build()
        .unwrap();
    let service = stack.layer(upstream(&Arc::default()));
    let ask = async |host| kind(service.clone().oneshot(to(host)).await);
    for (host, expected) in [
        ("one", None),
        ("one", None),
        ("one", Some(RejectedKind::RateLimited)),
        ("two", None),
        ("bad", None),
        // Closed by its `Retry-After`.
        ("bad", Some(RejectedKind::RateLimited)),
        ("two", None),
    ] {
        assert_eq!(ask(host).await, expected, "{host}");
    }
    sleep(SECOND).await;
    assert_eq!(ask("one").await, None);
    assert_eq!(
        ask("bad").await,
        Some(RejectedKind::RateLimited),
        "for 30 s"
    );

    // While it runs, for all hosts.
    let changes = Changes::new().rate(Rate::per_second(100), 100);
    stack.handle().update(changes).unwrap();
    for _ in 0..50 {
        assert_eq!(ask("three").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closure_gives_hosts_rates_and_places() {
    let by_host =
        |request: &Request<Body>| -> Option<String> { request.uri().host().map(str::to_owned) };
    let rates = RateLimitLayer::builder(Rate::per_second(1)).per_key(by_host, |host: &String| {
        let (rate, burst) = if host == "fast" { (50, 50) } else { (1, 1) };
        TokenBucket::new(Rate::per_second(rate), burst)
    });
    let places = BulkheadLayer::builder(1).keyed_by(by_host);
    let places = places.limit_for(|host| (host == "slow-wide").then_some(2));
    let stack = stack::client().http().without_retry();
    let stack = stack.rate_limit(rates).bulkhead(places).build().unwrap();
    let service = stack.layer(upstream(&Arc::default()));
    let ask = async |host| kind(service.clone().oneshot(to(host)).await);
    for _ in 0..20 {
        assert_eq!(ask("fast").await, None);
    }
    assert_eq!(ask("other").await, None);
    assert_eq!(ask("other").await, Some(RejectedKind::RateLimited));

    let handle = stack.handle();
    let shared = handle.rate_limit.keys();
    assert_eq!(shared.len(), 2, "each host has one");
    let narrow = handle.bulkhead.key("fast").unwrap();
    assert_eq!(narrow.snapshot().limit, 1);
}

#[tokio::test(start_paused = true)]
async fn a_trial_counts_what_it_would_reject() {
    let limit = RateLimitLayer::builder(Rate::per_second(1)).burst(1);
    let candidate = Shadow::new(limit.gate().unwrap(), "one a second");
    let trial = candidate.handle();
    let stack = stack::client()
        .http()
        .rate(Rate::per_second(5))
        .shadow(candidate);
    let stack = stack.build().unwrap();
    let service = stack.layer(upstream(&Arc::default()));
    let mut admitted = 0;
    for _ in 0..8 {
        admitted += usize::from(service.clone().oneshot(to("host")).await.is_ok());
    }
    // What the stack's own limit rejects is not the candidate's to judge.
    let seen = trial.snapshot();
    assert_eq!((admitted, seen.calls), (5, 5));
    assert_eq!(seen.would_reject.of(RejectedKind::RateLimited), 4);
    // The bulkhead's handle is found behind it.
    assert_eq!(stack.handle().bulkhead.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_for_the_whole_stack() {
    let answer = FallbackLayer::value(Response::new(Body::new()));
    let stack = stack::client().http().fallback(answer).build().unwrap();
    let service = stack.layer(upstream(&Arc::default()));
    let answer = service.clone().oneshot(to("bad")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let primary: &PrimaryError = answer.extensions().get().unwrap();
    assert!(primary.to_string().contains("503"), "{primary}");
    let host = "bad".parse().unwrap();
    stack
        .handle()
        .circuit_breaker
        .make(&host)
        .unwrap()
        .force_open();
    assert!(service.oneshot(to("bad")).await.is_ok());
    let answered = stack.handle().snapshot().fallback.unwrap();
    assert_eq!((answered.answered, answered.rejections), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_servers_fallback_answers_what_its_gates_reject() {
    let mut busy = Response::new(String::from("later"));
    *busy.status_mut() = StatusCode::ACCEPTED;
    let stack = stack::server()
        .http()
        .max_in_flight(1)
        .fallback(FallbackLayer::value(busy));
    let stack = stack.build().unwrap();
    let service = stack.layer(service_fn(async |_: Request<Body>| {
        sleep(SECOND).await;
        Ok::<_, io::Error>(Response::new(String::from("done")))
    }));
    let first = tokio::spawn(service.clone().oneshot(to("host")));
    tokio::task::yield_now().await;
    let second = service.oneshot(to("host")).await.unwrap();
    assert_eq!(second.into_body(), "later");
    assert_eq!(first.await.unwrap().unwrap().into_body(), "done");
    assert_eq!(stack.handle().snapshot().fallback.unwrap().rejections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_and_a_throttle_change_while_they_run() {
    let stack = stack::client().http().name("api").attempt_timeout(SECOND);
    let stack = stack
        .hedge(|hedge| hedge.delay(ms(50)))
        .throttle(|throttle| throttle);
    let stack = stack.build().unwrap();
    let handle = stack.handle();
    let (hedge, throttle) = (
        handle.hedge.clone().unwrap(),
        handle.throttle.clone().unwrap(),
    );
    let to_delay = |delay| {
        let mut config = hedge.config();
        config.delay = delay;
        config
    };
    let sooner = to_delay(ms(20));
    let mut config = throttle.shared().config();
    config.multiplier = 1.5;
    let changed = handle
        .update(Changes::new().hedge(sooner).throttle(config))
        .unwrap();
    let expected = "hedge: `delay` from 50ms to 20ms, throttle: `multiplier` from 2.0 to 1.5";
    assert_eq!(changed.to_string(), expected);

    let late = Changes::new().hedge(to_delay(2 * SECOND));
    let error = handle.update(late.throttle(config)).unwrap_err();
    assert_eq!((error.field, hedge.config().delay), ("delay", ms(20)));
    let short = handle
        .update(Changes::new().attempt_timeout(ms(10)))
        .unwrap_err();
    assert_eq!(short.field, "delay");
    config.multiplier = 0.5;
    let error = handle.update(Changes::new().hedge(to_delay(ms(30))).throttle(config));
    assert_eq!(error.unwrap_err().field, "multiplier");
    assert_eq!(hedge.config().delay, ms(20), "nothing has changed");

    let plain = stack::client().http().build().unwrap().handle();
    let absent = |changes| plain.update(changes).unwrap_err().field;
    assert_eq!(absent(Changes::new().hedge(sooner)), "hedge");
    config.multiplier = 1.5;
    assert_eq!(absent(Changes::new().throttle(config)), "throttle");
}

#[test]
fn a_hedge_that_is_never_due_is_an_error() {
    let stack = stack::client().http().attempt_timeout(SECOND);
    let error = stack
        .hedge(|hedge| hedge.delay(SECOND))
        .build()
        .unwrap_err();
    let expected = "stack: `delay` is 1s: lower it below `attempt_timeout` and `total_timeout`";
    assert!(error.to_string().starts_with(expected), "{error}");
}

/// The alias names the types that the builder makes.
#[test]
fn the_types_of_stacks_can_be_named() {
    type Inner = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;
    struct Holds {
        once: stack::ClientService<Inner, tower_keep::protocol::http::Client, ByHost, stack::Once>,
        stack: stack::ClientStack<tower_keep::protocol::http::Client>,
    }
    let inner = Inner::new(upstream(&Arc::default()));
    let once = stack::client().http().without_retry().build().unwrap();
    let holds = Holds {
        once: once.layer(inner),
        stack: stack::client().http().build().unwrap(),
    };
    drop((holds.once, holds.stack));
}

type Costs = fn(&Request<Body>) -> [u64; 2];

/// A cost of `x-tokens`, and quotas of a request and so many tokens.
fn quotas() -> DimensionsBuilder<2, NotKeyed, Plain, CostsOf<Costs>> {
    let cost: Costs = |request| {
        let tokens = request.headers().get("x-tokens");
        let tokens = tokens.and_then(|tokens| tokens.to_str().ok()?.parse().ok());
        [1, tokens.unwrap_or(0)]
    };
    let quotas = [("requests", 10), ("tokens", 100)];
    let quotas = quotas.map(|(name, burst)| Dimension::new(name, Rate::per_minute(1)).burst(burst));
    RateLimitLayer::dimensions(quotas).cost(cost)
}

fn costly(tokens: u64) -> Request<Body> {
    let mut request = to("good");
    request.headers_mut().insert("x-tokens", tokens.into());
    request
}

#[tokio::test(start_paused = true)]
async fn a_server_may_have_several_quotas() {
    let server = stack::server().http().max_in_flight(10).name("llm");
    let stack = server.rate_limit(quotas()).build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let service = stack.layer(upstream::<Body>(&calls));
    let status = async |tokens| {
        let response = service.clone().oneshot(costly(tokens)).await.unwrap();
        response.status()
    };
    assert_eq!(status(60).await, StatusCode::OK);
    assert_eq!(status(60).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(status(40).await, StatusCode::OK);
    let snapshot = stack.handle().snapshot().rate_limit;
    let left = snapshot.dimensions.map(|dimension| dimension.available);
    assert_eq!((left, calls.load(SeqCst)), ([8, 0], 2));
    // One rate is not all of them, so it cannot change, nor be given beside them.
    let error = stack
        .handle()
        .update(Changes::new().rate(Rate::per_second(1), 1));
    assert_eq!(error.unwrap_err().field, "rate");
    let quotas_now = stack.handle().rate_limit;
    let changed = quotas_now.update("tokens", Rate::per_minute(1), 200);
    assert!(
        changed
            .unwrap()
            .to_string()
            .contains("`burst` from 100 to 200")
    );
    assert_eq!(status(100).await, StatusCode::OK);
    assert_eq!(status(1).await, StatusCode::TOO_MANY_REQUESTS);
    let both = stack::server()
        .http()
        .max_in_flight(10)
        .rate(Rate::per_second(1));
    assert_eq!(both.rate_limit(quotas()).build().unwrap_err().field, "rate");
}

#[tokio::test(start_paused = true)]
async fn a_client_may_have_several_quotas_for_each_host() {
    let keyed =
        quotas().keyed_by(|request: &Request<Body>| request.uri().host().map(str::to_owned));
    let stack = stack::client()
        .http()
        .without_retry()
        .rate_limit(keyed)
        .build()
        .unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let service = stack.layer(upstream::<Body>(&calls));
    let ask = async |tokens| service.clone().oneshot(costly(tokens)).await;
    assert!(ask(60).await.is_ok());
    let error = ask(60).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.kind, RejectedKind::RateLimited);
    assert_eq!(rejected.dimension, Some("tokens"));
    let limits = stack.handle().snapshot().rate_limit;
    let left = limits[0].1.dimensions.map(|dimension| dimension.available);
    assert_eq!((limits[0].0.as_deref(), left), (Some("good"), [9, 40]));
    // Hints of one host do not close all.
    let honoring = quotas().honor_retry_after(SECOND);
    let all_hosts = stack::client().http().without_retry().rate_limit(honoring);
    assert!(all_hosts.build().is_err());
}
