use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Empty;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{
    ConfigError, Deadline, Rejected, RejectedKind, Timeouts,
    algorithm::{Backoff, Jitter, SlidingLog},
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerBuilder},
    keyed,
    observe::State,
    protocol::{Plain, http},
    rate_limit::{Rate, RateLimitLayer},
};

type Request = ::http::Request<Empty<Bytes>>;

fn to(host: &str) -> Request {
    ::http::Request::get(format!("http://{host}/"))
        .body(Empty::new())
        .unwrap()
}

/// Fails for the host `bad.example`, hangs for `slow.example`.
fn upstreams<B>() -> impl Service<
    ::http::Request<B>,
    Response = ::http::Response<Empty<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
where
    B: Send + 'static,
{
    service_fn(async |request: ::http::Request<B>| {
        let status = match request.uri().host() {
            Some("bad.example") => 500,
            Some("slow.example") => std::future::pending().await,
            _ => 200,
        };
        Ok(::http::Response::builder()
            .status(status)
            .body(Empty::new())?)
    })
}

fn error<T>(built: Result<T, ConfigError>) -> String {
    built.map(drop).unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_failing_host_opens_its_own_circuit_alone() {
    let stack = client().http().name("api").build().unwrap();
    let service = stack.layer(upstreams());
    for _ in 0..8 {
        assert_eq!(
            service
                .clone()
                .oneshot(to("bad.example"))
                .await
                .unwrap()
                .status(),
            500
        );
    }
    let error = service
        .clone()
        .oneshot(to("bad.example"))
        .await
        .unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(
        (rejected.kind, rejected.name),
        (RejectedKind::CircuitOpen, Some("api"))
    );
    assert_eq!(
        service.oneshot(to("good.example")).await.unwrap().status(),
        200
    );
    let circuit = stack
        .handle()
        .circuit_breaker
        .key(&"bad.example".parse().unwrap())
        .unwrap();
    assert_eq!(circuit.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_hung_host_takes_no_place_of_another() {
    let stack = client()
        .http()
        .max_in_flight(2)
        .without_retry()
        .build()
        .unwrap();
    let service = stack.layer(upstreams());
    let hung: Vec<_> = (0..2)
        .map(|_| tokio::spawn(service.clone().oneshot(to("slow.example"))))
        .collect();
    tokio::task::yield_now().await;
    let error = service
        .clone()
        .oneshot(to("slow.example"))
        .await
        .unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::BulkheadFull
    );
    assert!(service.clone().oneshot(to("good.example")).await.is_ok());
    for call in hung {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(
            Rejected::find(&*error).unwrap().kind,
            RejectedKind::TimedOut
        );
    }
    let bulkhead = stack
        .handle()
        .bulkhead
        .key(&"slow.example".parse().unwrap());
    assert_eq!(
        bulkhead.map_or(0, |bulkhead| bulkhead.snapshot().in_flight),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_for_all_hosts_together() {
    let stack = client()
        .http()
        .rate(Rate::per_minute(1))
        .burst(2)
        .build()
        .unwrap();
    let service = stack.layer(upstreams());
    let mut admitted = 0;
    for host in ["a.example", "b.example", "c.example"] {
        admitted += u32::from(service.clone().oneshot(to(host)).await.is_ok());
    }
    assert_eq!(
        (
            admitted,
            stack.handle().rate_limit.unwrap().snapshot().available
        ),
        (2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_left_out_rejects_nothing() {
    let stack = client()
        .plain(Plain::new().idempotent())
        .without_circuit_breaker()
        .without_bulkhead()
        .without_retry()
        .without_total_timeout()
        .without_attempt_timeout()
        .build()
        .unwrap();
    let service = stack.layer(service_fn(async |_: u32| {
        Err::<u32, BoxError>("down".into())
    }));
    for n in 0..300 {
        assert_eq!(
            service.clone().oneshot(n).await.unwrap_err().to_string(),
            "down"
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_rejected() {
    let second = Duration::from_secs(1);
    let stack = || client().http().name("api");
    let total = stack().total_timeout(second).attempt_timeout(2 * second);
    assert!(error(total.build()).starts_with("stack (api): `total_timeout` is 1s: raise it"));
    let window = stack().circuit_breaker(|breaker| breaker.window(5 * second));
    assert!(error(window.build()).starts_with("stack (api): `window` is 5s: raise it to twice"));
    let hint = stack().retry(|retry| retry.max_retry_after(60 * second));
    assert!(error(hint.build()).contains("`max_retry_after` is 60s: lower it"));
    let slow =
        crate::retry::Backoff::new(10 * second, 60 * second, crate::retry::Jitter::default());
    let slow = stack().retry(|retry| retry.backoff(slow.unwrap()));
    assert!(error(slow.build()).starts_with("stack (api): `backoff` is 10s: lower its base"));
    assert!(
        stack()
            .circuit_breaker(|breaker| breaker.window_of_calls(100))
            .build()
            .is_ok()
    );
    let unbounded = error(server().http().build());
    assert!(
        unbounded.starts_with("stack: `max_in_flight` is not set: say how many"),
        "{unbounded}"
    );
    let none = error(client().http().max_in_flight(0).build());
    assert!(none.starts_with("bulkhead: `max_in_flight` is 0"), "{none}");
}

#[test]
fn a_server_derives_its_bound_from_rate_and_timeout() {
    let stack = server()
        .http()
        .rate(Rate::per_second(200))
        .timeout(Duration::from_secs(1));
    let handle = stack.build().unwrap().handle();
    assert_eq!(handle.bulkhead.snapshot().limit, 50);
    let stack = server().http().rate(Rate::per_day(1)).build().unwrap();
    assert_eq!(stack.handle().bulkhead.snapshot().limit, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_answers_what_it_rejects() {
    let stack = server()
        .http()
        .max_in_flight(10)
        .rate(Rate::per_minute(1))
        .build()
        .unwrap();
    let service = stack.layer(upstreams());
    let status = async |request| {
        service
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(
        (status(to("a.example")).await, status(to("a.example")).await),
        (200, 429)
    );
}

#[tokio::test(start_paused = true)]
async fn a_stacks_settings_may_be_made_in_any_order() {
    let rate = Rate::per_day(1);
    let client = client().http().burst(2).rate(rate).name("api").build();
    let limit = client.unwrap().handle().rate_limit.unwrap();
    assert_eq!(limit.snapshot().available, 2);
    let server = server().http().burst(2).max_in_flight(1).rate(rate).build();
    let limit = server.unwrap().handle().rate_limit.unwrap();
    assert_eq!(limit.snapshot().available, 2);
    let burst = server_error(|server| server.max_in_flight(1).burst(2));
    assert!(burst.contains("`burst` is 2: set a `rate` too"), "{burst}");
}

#[tokio::test(start_paused = true)]
async fn parts_may_come_from_builders_of_their_own() {
    let log = SlidingLog::new(Rate::per_minute(3)).unwrap();
    let stack = server()
        .http()
        .name("api")
        .rate_limit(RateLimitLayer::with(log))
        .bulkhead(BulkheadLayer::builder(7))
        .build()
        .unwrap();
    let snapshot = stack.handle().snapshot();
    assert_eq!(
        (
            snapshot.rate_limit.unwrap().available,
            snapshot.bulkhead.limit
        ),
        (3, 7)
    );

    let log = SlidingLog::new(Rate::per_minute(1)).unwrap();
    let stack = client()
        .http()
        .name("api")
        .rate_limit(RateLimitLayer::with(log))
        .bulkhead(BulkheadLayer::builder(1))
        .max_hosts(2)
        .build()
        .unwrap();
    let service = stack.layer(upstreams());
    assert!(service.clone().oneshot(to("a.example")).await.is_ok());
    let error = service.oneshot(to("a.example")).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    let said = (rejected.kind, rejected.name);
    assert_eq!(said, (RejectedKind::RateLimited, Some("api")));

    let log = SlidingLog::new(Rate::per_minute(1)).unwrap();
    let both = client_error(|client| {
        let client = client.rate(Rate::per_second(1));
        client.rate_limit(RateLimitLayer::with(log)).build()
    });
    assert!(both.contains("`rate` is"), "{both}");
}

/// Regression: one of the two was dropped silently: in a client's stack the one that was set first.
#[test]
fn a_limit_and_a_bulkhead_together_are_an_error() {
    let bulkhead = || BulkheadLayer::builder(7);
    let routes = || bulkhead().keyed_by(|request: &Request| request.uri().host().map(str::len));
    for error in [
        client_error(|client| client.max_in_flight(5).bulkhead(bulkhead()).build()),
        client_error(|client| client.bulkhead(bulkhead()).max_in_flight(5).build()),
        error(
            client()
                .http()
                .one_peer()
                .max_in_flight(5)
                .bulkhead(bulkhead())
                .build(),
        ),
        error(
            server()
                .http()
                .max_in_flight(5)
                .bulkhead(bulkhead())
                .build(),
        ),
        error(
            server()
                .http()
                .bulkhead(bulkhead())
                .max_in_flight(5)
                .build(),
        ),
        error(server().http().max_in_flight(5).bulkhead(routes()).build()),
        error(
            server()
                .http()
                .bulkhead(Some(bulkhead()))
                .max_in_flight(5)
                .build(),
        ),
    ] {
        let told = "stack: `max_in_flight` is 5: leave it";
        assert!(error.starts_with(told), "{error}");
    }
    // A part that is left out has no limit that could contradict another.
    let left_out = client().http().max_in_flight(5).without_bulkhead();
    left_out.bulkhead(bulkhead()).build().unwrap();
}

/// Regression: a client's `burst` overwrote the one of the limit's own builder.
#[test]
fn a_burst_beside_a_rate_limit_is_an_error() {
    let limit = || RateLimitLayer::builder(Rate::per_second(9)).burst(2);
    for error in [
        client_error(|client| client.burst(5).rate_limit(limit()).build()),
        client_error(|client| client.rate_limit(limit()).burst(5).build()),
        server_error(|server| server.burst(5)),
        error(
            server()
                .http()
                .max_in_flight(1)
                .burst(5)
                .rate_limit(limit())
                .build(),
        ),
        error(
            server()
                .http()
                .max_in_flight(1)
                .rate_limit(limit())
                .burst(5)
                .build(),
        ),
    ] {
        assert!(error.starts_with("stack: `burst` is 5: "), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_beyond_max_hosts_share() {
    let stack = client().http().max_hosts(1).max_in_flight(5);
    let stack = stack.build().unwrap();
    let (service, handle) = (stack.layer(upstreams()), stack.handle());
    for host in ["a.example", "b.example", "c.example"] {
        let answer = service.clone().oneshot(to(host)).await;
        assert!(answer.is_ok(), "{host}: {answer:?}");
    }
    assert_eq!(handle.circuit_breaker.keys().len(), 1);
    assert_eq!(handle.bulkhead.keys().len(), 1);
    // A budget is made by a failure.
    let fails = stack.layer(service_fn(async |_: ::http::Request<_>| {
        Err::<::http::Response<Empty<Bytes>>, _>(BoxError::from("down"))
    }));
    for host in ["a.example", "b.example", "c.example"] {
        assert!(fails.clone().oneshot(to(host)).await.is_err());
    }
    assert_eq!(handle.snapshot().retry_budgets.len(), 1);
    assert!(client().http().max_hosts(0).build().is_err());
}

/// Regression: the `Retry-After` of one host closed the limit for all hosts.
#[tokio::test(start_paused = true)]
async fn a_limit_for_all_hosts_honors_no_hint() {
    let limit = || {
        let limit = RateLimitLayer::builder(Rate::per_second(100));
        limit.honor_retry_after(Duration::from_secs(60))
    };
    let told = client_error(|client| client.rate_limit(limit()).build());
    let expected = "stack: `honor_retry_after` is 60s: leave it";
    assert!(told.starts_with(expected), "{told}");
    assert!(told.contains("`one_peer`"), "{told}");

    let off = limit().enabled(false);
    client().http().rate_limit(off).build().unwrap();
    for stack in [
        client().http().one_peer().rate_limit(limit()).build(),
        client().http().rate_limit(limit()).one_peer().build(),
    ] {
        let stack = stack.unwrap();
        let service = stack.layer(service_fn(async |_: ::http::Request<_>| {
            let response = ::http::Response::builder().status(429);
            let response = response.header("retry-after", "30");
            Ok::<_, BoxError>(response.body(Empty::<Bytes>::new())?)
        }));
        let first = service.clone().oneshot(to("a.example")).await.unwrap();
        assert_eq!(first.status(), 429);
        let second = service.oneshot(to("a.example")).await.unwrap_err();
        let rejected = Rejected::find(&*second).unwrap();
        assert_eq!(rejected.kind, RejectedKind::RateLimited);
    }
    let plain = client().plain(Plain::new()).rate_limit(limit());
    plain.build().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_tells_tenants_and_routes_apart() {
    let tenants = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(2)
        .keyed_by(|request: &Request| keyed::header("x-tenant")(request))
        .within(SlidingLog::new(Rate::per_minute(3)).unwrap());
    let routes = BulkheadLayer::builder(1)
        .keyed_by(|request: &Request| request.uri().host().map(str::to_owned));
    let stack = server().http().bulkhead(routes).rate_limit(tenants);
    let stack = stack.build().unwrap();
    let service = stack.layer(upstreams());
    let status = async |tenant, host| {
        let mut request = to(host);
        let tenant = ::http::HeaderValue::from_static(tenant);
        request.headers_mut().insert("x-tenant", tenant);
        service.clone().oneshot(request).await.unwrap().status()
    };
    for (tenant, expected) in [("a", 200), ("a", 200), ("a", 429), ("b", 200), ("b", 429)] {
        assert_eq!(status(tenant, "good.example").await, expected, "{tenant}");
    }

    let handle = stack.handle();
    assert_eq!(
        handle.snapshot().bulkhead.len(),
        2,
        "one route, and the shared one"
    );
    let changes = Changes::new().rate(Rate::per_second(9), 9).max_in_flight(4);
    handle.update(changes).unwrap();
    assert_eq!(
        handle
            .rate_limit
            .snapshot_of(&::http::HeaderValue::from_static("c").into())
            .burst,
        3,
        "the total stays"
    );
    assert!(
        handle
            .snapshot()
            .bulkhead
            .iter()
            .all(|(_, bulkhead)| bulkhead.limit == 4)
    );
}

#[tokio::test(start_paused = true)]
async fn each_customer_has_its_own_limit_in_a_servers_stack() {
    let plans = RateLimitLayer::builder(Rate::per_minute(1)).per_key(
        |request: &Request| request.uri().host().map(str::to_owned),
        |host: &String| SlidingLog::new(Rate::per_minute(if host == "paid" { 2 } else { 1 })),
    );
    let stack = server().http().rate_limit(plans).max_in_flight(10).build();
    let stack = stack.unwrap();
    let service = stack.layer(upstreams());
    let status = async |host| service.clone().oneshot(to(host)).await.unwrap().status();
    for (host, expected) in [
        ("paid", 200),
        ("paid", 200),
        ("paid", 429),
        ("free", 200),
        ("free", 429),
    ] {
        assert_eq!(status(host).await, expected, "{host}");
    }
    let handle = stack.handle();
    assert_eq!(handle.snapshot().rate_limit.len(), 3);
    let error = handle
        .update(Changes::new().rate(Rate::per_second(1), 1))
        .unwrap_err();
    assert_eq!(error.field, "rate");
}

#[tokio::test(start_paused = true)]
async fn one_handle_changes_all_parts() {
    let second = Duration::from_secs(1);
    let stack = client().http().rate(Rate::per_second(5)).build().unwrap();
    let service = stack.layer(upstreams());
    assert!(service.oneshot(to("a.example")).await.is_ok());
    let handle = stack.handle();
    let mut config = handle.circuit_breaker.shared().config();
    config.consecutive_failures = Some(2);
    let changes = Changes::new()
        .total_timeout(9 * second)
        .attempt_timeout(2 * second)
        .rate(Rate::per_second(7), 7)
        .max_in_flight(3)
        .retry(retry_config(&handle, |config| {
            config.attempts = 1;
            config.max_retry_after = second;
        }))
        .circuit_breaker(config);
    handle.update(changes).unwrap();
    let snapshot = handle.snapshot();
    let durations = (
        snapshot.total_timeout.duration,
        snapshot.attempt_timeout.duration,
    );
    assert_eq!(durations, (9 * second, 2 * second));
    assert!(
        snapshot
            .bulkheads
            .iter()
            .all(|(_, bulkhead)| bulkhead.limit == 3)
    );
    assert_eq!((snapshot.circuits.len(), snapshot.bulkheads.len()), (2, 2));
    assert_eq!(handle.retry.config().attempts, 1);
    let circuit = handle.circuit_breaker.key(&"a.example".parse().unwrap());
    assert_eq!(circuit.unwrap().config().consecutive_failures, Some(2));

    let rejected = |changes| handle.update(changes).unwrap_err().to_string();
    let total = rejected(Changes::new().total_timeout(second));
    assert!(total.contains("`total_timeout` is 1s: raise it"), "{total}");
    let hint = rejected(Changes::new().retry(retry_config(&handle, |config| {
        config.max_retry_after = 60 * second;
    })));
    assert!(
        hint.contains("`max_retry_after` is 60s: lower it"),
        "{hint}"
    );
    let window = Changes::new()
        .total_timeout(30 * second)
        .attempt_timeout(6 * second);
    assert!(rejected(window).contains("`window` is 10s: raise it to twice"));
    let slow = crate::retry::Backoff::new(9 * second, 60 * second, crate::retry::Jitter::default());
    let config = retry_config(&handle, |config| {
        config.attempts = 2;
        config.backoff = slow.unwrap();
    });
    let slow = rejected(Changes::new().retry(config));
    assert!(slow.contains("`backoff` is 9s: lower its base"), "{slow}");
    assert_eq!(handle.snapshot().total_timeout.duration, 9 * second);
}

fn retry_config(
    handle: &ClientHandle,
    change: impl FnOnce(&mut crate::retry::RetryConfig),
) -> crate::retry::RetryConfig {
    let mut config = handle.retry.config();
    change(&mut config);
    config
}

#[tokio::test(start_paused = true)]
async fn an_update_tells_what_it_has_changed() {
    let second = Duration::from_secs(1);
    let stack = client().http().rate(Rate::per_second(5)).build().unwrap();
    let handle = stack.handle();
    let changes = Changes::new()
        .rate(Rate::per_second(5), 9)
        .total_timeout(10 * second)
        .attempt_timeout(2 * second)
        .max_in_flight(6);
    let changed = handle.update(changes).unwrap();
    let expected = "rate_limit: `burst` from 5 to 9, bulkhead: `max_in_flight` from 7 to 6, \
                    timeout: `attempt_timeout` from 3s to 2s";
    assert_eq!(changed.to_string(), expected);
    assert!(handle.update(changes).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_bounds_what_is_in_flight_only_by_its_rate() {
    let all_at_once = async |stack: ClientStack<_>| {
        let service = stack.layer(service_fn(async |_: ::http::Request<_>| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, BoxError>(::http::Response::new(Empty::<Bytes>::new()))
        }));
        let calls = (0..500).map(|_| service.clone().oneshot(to("a.example")));
        let answers = futures::future::join_all(calls).await;
        answers.iter().filter(|answer| answer.is_ok()).count()
    };
    let unbounded = client().http().build().unwrap();
    assert_eq!(all_at_once(unbounded.clone()).await, 500);
    let changes = Changes::new().max_in_flight(20);
    let changed = unbounded.handle().update(changes).unwrap().to_string();
    assert_eq!(changed, "bulkhead: `max_in_flight` from any number to 20");
    assert_eq!(all_at_once(unbounded).await, 20);
    let without = client().http().without_bulkhead().build().unwrap();
    let error = without.handle().update(changes).unwrap_err();
    assert_eq!(error.field, "max_in_flight");

    let rated = client().http().rate(Rate::per_second(500));
    let derived = rated
        .attempt_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let limit = |stack: &ClientStack<_>| stack.handle().bulkhead.shared().snapshot().limit;
    assert_eq!(limit(&derived), 250);
    // A whole burst of the rate, in two rounds.
    assert_eq!(all_at_once(derived).await, 500);
    let rated = || client().http().rate(Rate::per_second(500));
    assert_eq!(limit(&rated().max_in_flight(3).build().unwrap()), 3);
    for unbounded in [
        rated().without_bulkhead(),
        rated().without_attempt_timeout(),
    ] {
        assert_eq!(limit(&unbounded.build().unwrap()), usize::MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_of_one_peer_has_backpressure_unless_told() {
    let ready = async |builder: ClientBuilder<http::Client, AnyHost>| {
        let stack = builder.build().unwrap();
        stack.handle().circuit_breaker.shared().force_open();
        let mut service = stack.layer(upstreams());
        let ready = ServiceExt::<Request>::ready(&mut service);
        futures::poll!(ready).is_ready()
    };
    let one = || client().http().one_peer();
    assert!(!ready(one()).await);
    assert!(!ready(one().circuit_breaker(|breaker| breaker.min_calls(3))).await);
    assert!(ready(one().circuit_breaker(CircuitBreakerBuilder::without_backpressure)).await);
    assert!(ready(one().without_circuit_breaker()).await);
    // A plain client also has one upstream, but no balancer is above it.
    let stack = client().plain(Plain::new().idempotent()).build().unwrap();
    stack.handle().circuit_breaker.shared().force_open();
    let mut service = stack.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    assert!(futures::poll!(service.ready()).is_ready());
}

/// Regression: the parts before the one that rejected had changed.
#[tokio::test(start_paused = true)]
async fn an_update_that_one_part_rejects_changes_nothing() {
    let second = Duration::from_secs(1);
    let stack = client().http().rate(Rate::per_second(5)).build().unwrap();
    let handle = stack.handle();
    let before = (handle.snapshot(), handle.retry.config());
    let mut config = handle.circuit_breaker.shared().config();
    let good = Changes::new()
        .total_timeout(20 * second)
        .attempt_timeout(2 * second)
        .rate(Rate::per_second(7), 7)
        .max_in_flight(3)
        .retry(retry_config(&handle, |config| config.attempts = 2));
    config.probes = 0;
    let no_attempts = retry_config(&handle, |config| config.attempts = 0);
    for (bad, field) in [
        (good.total_timeout(Duration::ZERO), "total_timeout"),
        (good.attempt_timeout(Duration::ZERO), "attempt_timeout"),
        (good.rate(Rate::per_second(7), 0), "burst"),
        (good.max_in_flight(0), "max_in_flight"),
        (good.retry(no_attempts), "attempts"),
        (good.circuit_breaker(config), "probes"),
    ] {
        assert_eq!(handle.update(bad).unwrap_err().field, field);
        let after = (handle.snapshot(), handle.retry.config());
        assert_eq!(after, before, "{field}");
    }
    assert!(handle.update(good).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_servers_update_changes_all_or_nothing() {
    let limited = server().http().rate(Rate::per_second(5));
    let handle = limited.build().unwrap().handle();
    let good = Changes::new()
        .rate(Rate::per_second(7), 7)
        .total_timeout(Duration::from_secs(1))
        .max_in_flight(4);
    let before = handle.snapshot();
    for bad in [
        good.rate(Rate::per_second(0), 7),
        good.total_timeout(Duration::ZERO),
        good.max_in_flight(0),
    ] {
        assert!(handle.update(bad).is_err());
        assert_eq!(handle.snapshot(), before);
    }
    let changed = handle.update(good).unwrap();
    let fields: Vec<_> = changed.iter().map(|change| change.field).collect();
    assert_eq!(fields, ["rate", "burst", "max_in_flight", "timeout"]);
}

#[tokio::test(start_paused = true)]
async fn a_servers_handle_changes_its_parts() {
    let second = Duration::from_secs(1);
    let handle = server().http().max_in_flight(9).build().unwrap().handle();
    let changes = Changes::new().total_timeout(second).max_in_flight(4);
    handle.update(changes).unwrap();
    let snapshot = handle.snapshot();
    assert_eq!(
        (snapshot.timeout.duration, snapshot.bulkhead.limit),
        (second, 4)
    );
    handle
        .update(Changes::new().rate(Rate::per_second(1), 1))
        .unwrap();
    let rejected = |changes| handle.update(changes).unwrap_err().field;
    assert_eq!(
        rejected(Changes::new().attempt_timeout(second)),
        "attempt_timeout"
    );
}

fn client_error<S>(
    build: impl FnOnce(ClientBuilder<http::Client>) -> Result<S, ConfigError>,
) -> String {
    error(build(client().http()))
}

fn server_error(
    set: impl FnOnce(ServerBuilder<http::Server>) -> ServerBuilder<http::Server>,
) -> String {
    error(set(server().http()).build())
}

/// Retries once, `base` milliseconds after the first attempt.
fn backoff(base: u64) -> Backoff {
    let base = Duration::from_millis(base);
    Backoff::new(base, base * 4, Jitter::PlusMinus(1e-12)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_retry_sleeps_into_the_total_timeout() {
    let fails = service_fn(async |_: u32| Err::<u32, _>(std::io::Error::other("unavailable")));
    let stack = client()
        .plain(Plain::new().idempotent())
        .retry(|retry| retry.backoff(backoff(900)))
        .total_timeout(Duration::from_secs(1))
        .attempt_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let start = Deadline::after(Duration::from_secs(10));
    // The third attempt would come 2.7 s after the start.
    let error = stack.layer(fails).oneshot(1).await.unwrap_err();
    assert_eq!(error.to_string(), "unavailable");
    assert_eq!(start.remaining(), Duration::from_millis(9_100));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_bring_a_total_timeout() {
    let stack = client().http().without_retry().build().unwrap();
    let within = |timeouts: Timeouts| {
        let mut request = to("slow.example");
        request.extensions_mut().insert(timeouts);
        let call = stack.layer(upstreams()).oneshot(request);
        async move {
            let start = Deadline::after(Duration::from_secs(10));
            assert!(call.await.is_err());
            Duration::from_secs(10) - start.remaining()
        }
    };
    let total = Timeouts::new().total(Duration::from_millis(700));
    assert_eq!(within(total).await, Duration::from_millis(700));
    let attempt = Timeouts::new().attempt(Duration::from_millis(300));
    assert_eq!(within(attempt).await, Duration::from_millis(300));
    let both = total.attempt(Duration::from_secs(5));
    assert_eq!(within(both).await, Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_gets_ready_is_given_up() {
    #[derive(Clone)]
    struct NeverReady;

    impl Service<u32> for NeverReady {
        type Response = u32;
        type Error = BoxError;
        type Future = std::future::Ready<Result<u32, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Pending
        }

        fn call(&mut self, _: u32) -> Self::Future {
            unreachable!("it never gets ready")
        }
    }

    let stack = client().plain(Plain::new().idempotent()).build().unwrap();
    let start = Deadline::after(Duration::from_secs(60));
    let error = stack.layer(NeverReady).oneshot(1).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.kind, RejectedKind::DeadlineExceeded);
    assert_eq!(start.remaining(), Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn both_timeouts_have_a_scope_of_their_own() {
    let registry = crate::observe::Registry::new();
    let stack = registry.with(|| client().http().name("api").build().unwrap());
    let service = stack.layer(upstreams());
    for _ in 0..3 {
        assert!(service.clone().oneshot(to("good.example")).await.is_ok());
    }
    let timeouts = registry.snapshot().into_iter();
    let scopes: Vec<_> = timeouts
        .filter(|instance| instance.layer == "timeout")
        .map(|instance| (instance.state, instance.histograms[0].labels))
        .collect();
    assert_eq!(
        scopes,
        [
            (State::Timeout { total: true }, &["total", "success"][..]),
            (State::Timeout { total: false }, &["attempt", "success"][..]),
        ]
    );
}
