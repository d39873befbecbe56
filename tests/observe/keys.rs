//! Keys as labels, series that are there from the start, and thresholds among the metrics.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    hedge::HedgeLayer,
    observe::{KeyState, Registry},
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    stack,
    throttle::ThrottleLayer,
};

/// All that a registry publishes, by its series.
fn published(registry: &Registry) -> BTreeMap<String, f64> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || registry.publish());
    let text = handle.render();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

async fn answer(call: u32) -> Result<u32, BoxError> {
    match call {
        0 => Err("as told".into()),
        _ => Ok(call),
    }
}

fn to(host: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{host}/"))
        .body(Empty::new())
        .unwrap()
}

async fn hangs(_: Request<Empty<Bytes>>) -> Result<Response<Empty<Bytes>>, Infallible> {
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(Response::default())
}

async fn fails(request: Request<Empty<Bytes>>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::default();
    if request.uri().host() == Some("sick.example") {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

/// Ten hosts of ten places each, of which one is full: the sum of all says nothing.
#[tokio::test(start_paused = true)]
async fn a_full_host_shows_without_labels() {
    let registry = Registry::new();
    let stack = stack::client().http().name("search").max_in_flight(10);
    let stack = registry.with(|| stack.without_retry().build()).unwrap();
    let service = stack.layer(service_fn(hangs));
    let mut calls = Vec::new();
    for number in 0..10 {
        calls.push(tokio::spawn(
            service.clone().oneshot(to(&format!("{number}.example"))),
        ));
    }
    for _ in 0..9 {
        calls.push(tokio::spawn(service.clone().oneshot(to("0.example"))));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let seen = published(&registry);
    let of = |what: &str| seen[&format!("tower_keep_bulkhead_{what}{{name=\"search\"}}")];
    assert_eq!(
        (of("in_flight"), of("limit"), of("used_ratio")),
        (19.0, 10.0, 1.0)
    );
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_few_are_labels() {
    let registry = Registry::new();
    let stack = stack::client().http().name("search").max_in_flight(10);
    let stack = stack.show_keys(ToString::to_string).label_keys(2);
    let stack = registry.with(|| stack.without_retry().build()).unwrap();
    let service = stack.layer(service_fn(hangs));
    let mut calls = Vec::new();
    for (host, count) in [
        ("a.example", 3),
        ("b.example", 1),
        ("c.example", 2),
        ("d.example", 5),
    ] {
        for _ in 0..count {
            calls.push(tokio::spawn(service.clone().oneshot(to(host))));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        published(&registry);
    }
    let seen = published(&registry);
    let of = |what: &str, key: &str| {
        seen[&format!("tower_keep_bulkhead_{what}{{name=\"search\",key=\"{key}\"}}")]
    };
    for (key, in_flight) in [("a.example", 3.0), ("b.example", 1.0), ("other", 5.0)] {
        assert_eq!(
            (of("in_flight", key), of("limit", key)),
            (in_flight, 10.0),
            "{key}"
        );
        assert!((of("used_ratio", key) - in_flight / 10.0).abs() < 1e-9);
    }
    // What adds up has no line for all beside these.
    assert!(!seen.contains_key("tower_keep_bulkhead_in_flight{name=\"search\"}"));
    let circuits = seen
        .keys()
        .filter(|series| series.contains("circuit_breaker_state"));
    assert!(circuits.clone().all(|series| series.contains("key=\"")));
    assert_eq!(circuits.count(), 3 * 6);
    assert!(!format!("{seen:?}").contains("c.example"));
}

#[tokio::test(start_paused = true)]
async fn labels_are_redacted_unless_keys_are_shown() {
    let registry = Registry::new();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .name("keys");
    let breaker = breaker
        .keyed_by(|call: &u32| Some(format!("tenant-{call}")))
        .label_keys(5);
    let breaker = registry.with(|| breaker.build()).unwrap();
    breaker.layer(service_fn(answer)).oneshot(7).await.unwrap();
    let seen = published(&registry);
    assert!(
        seen.keys().any(|series| series.contains("key=\"#")),
        "{seen:?}"
    );
    assert!(!format!("{seen:?}{:?}", registry.snapshot()).contains("tenant-7"));
}

#[test]
fn labels_are_few() {
    let builder = BulkheadLayer::builder(1).name("keys");
    let builder = builder.keyed_by(|call: &u32| Some(*call));
    for max in [0, 257, usize::MAX] {
        let keyed = builder.clone().label_keys(max);
        let error = keyed.build().unwrap_err().to_string();
        assert!(
            error.contains("label_keys") && error.contains("1 to 256"),
            "{error}"
        );
    }
    assert!(stack::client().http().label_keys(0).build().is_err());
}

/// A rate of a series that appears at 1 is 0: the first rejection would be missed.
#[tokio::test(start_paused = true)]
async fn rejections_and_transitions_begin_at_zero() {
    let registry = Registry::new();
    let rate = Rate::per_second(10);
    let stack = stack::client()
        .http()
        .name("s")
        .rate(rate)
        .throttle(|throttle| throttle);
    let _stack = registry.with(|| stack.build()).unwrap();
    let seen = published(&registry);
    for (layer, kind) in [
        ("circuit_breaker", "circuit_open"),
        ("bulkhead", "bulkhead_full"),
        ("rate_limit", "rate_limited"),
        ("throttle", "throttled"),
        ("timeout", "timed_out"),
        ("drain", "draining"),
    ] {
        let series =
            format!("tower_keep_rejections_total{{name=\"s\",layer=\"{layer}\",kind=\"{kind}\"}}");
        assert_eq!(seen.get(&series), Some(&0.0), "{series}");
    }
    for (from, to, reason) in [
        ("closed", "open", "failure_rate"),
        ("closed", "open", "no_answer"),
        ("open", "half_open", "open_elapsed"),
        ("half_open", "open", "probes_failed"),
        ("half_open", "closed", "probes_succeeded"),
    ] {
        let labels = format!("from=\"{from}\",to=\"{to}\",reason=\"{reason}\"");
        let series = format!("tower_keep_circuit_breaker_transitions_total{{name=\"s\",{labels}}}");
        assert_eq!(seen.get(&series), Some(&0.0), "{series}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_threshold_is_among_the_metrics() {
    let registry = Registry::new();
    let second = Duration::from_secs(1);
    let _kept = registry.with(|| {
        let stack = stack::client()
            .http()
            .name("s")
            .rate(Rate::per_second(10))
            .throttle(|throttle| throttle)
            .circuit_breaker(|breaker| breaker.slow_calls(second, 0.7))
            .build()
            .unwrap();
        let bulkhead = BulkheadLayer::builder(9)
            .keyed_by(|call: &u32| Some(*call))
            .within(20);
        let bulkhead = bulkhead.max_wait(second).name("b").build().unwrap();
        let limit = RateLimitLayer::builder(Rate::per_second(3)).max_wait(second);
        let limit = limit.honor_retry_after(second).name("r").build().unwrap();
        let idempotent = || Plain::new().idempotent();
        let retry = RetryLayer::builder()
            .protocol(idempotent())
            .name("t")
            .build()
            .unwrap();
        let hedge = HedgeLayer::builder()
            .protocol(idempotent())
            .delay(second)
            .name("h");
        let throttle = ThrottleLayer::builder().protocol(Plain::new()).name("t");
        (
            stack,
            bulkhead,
            limit,
            retry,
            hedge.build().unwrap(),
            throttle.build().unwrap(),
        )
    });
    let seen = published(&registry);
    for (name, layer, param, value) in [
        ("s", "circuit_breaker", "min_calls", 8.0),
        ("s", "circuit_breaker", "failure_rate", 0.5),
        ("s", "circuit_breaker", "consecutive_failures", 10.0),
        ("s", "circuit_breaker", "probes", 1.0),
        ("s", "circuit_breaker", "slow_rate", 0.7),
        ("s", "circuit_breaker", "slow_after", 1.0),
        ("s", "circuit_breaker", "open_for", 0.5),
        ("s", "circuit_breaker", "max_open", 1.0),
        ("s", "timeout", "duration", 3.0),
        ("s", "timeout", "total_duration", 10.0),
        ("s", "bulkhead", "limit", 15.0),
        ("s", "bulkhead", "max_wait", 0.9),
        ("s", "bulkhead", "max_waiting", 15.0),
        ("s", "rate_limit", "rate", 10.0),
        ("s", "rate_limit", "burst", 10.0),
        ("s", "throttle", "multiplier", 2.0),
        ("s", "throttle", "max_rejection", 0.95),
        ("s", "retry", "attempts", 3.0),
        ("s", "retry", "max_retry_after", 10.0),
        ("b", "bulkhead", "within", 20.0),
        ("b", "bulkhead", "max_wait", 1.0),
        ("r", "rate_limit", "max_wait", 1.0),
        ("r", "rate_limit", "honor_retry_after", 1.0),
        ("t", "retry", "backoff_base", 0.1),
        ("t", "retry", "backoff_max", 10.0),
        ("t", "retry", "budget_tokens", 10.0),
        ("t", "retry", "budget_ratio", 0.1),
        ("h", "hedge", "delay", 1.0),
        ("h", "hedge", "max_hedges", 1.0),
    ] {
        let labels = format!("name=\"{name}\",layer=\"{layer}\",param=\"{param}\"");
        let found = seen.get(&format!("tower_keep_config{{{labels}}}"));
        assert!(
            found.is_some_and(|found| (found - value).abs() < 1e-9),
            "{labels}: {found:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_the_hosts_that_fail_most() {
    let registry = Registry::new();
    let stack = stack::client()
        .http()
        .name("s")
        .show_keys(ToString::to_string);
    let stack = registry.with(|| stack.without_retry().build()).unwrap();
    let service = stack.layer(service_fn(fails));
    for number in 0..30 {
        let host = if number % 3 == 0 {
            "sick.example"
        } else {
            "well.example"
        };
        let _ = service.clone().oneshot(to(host)).await;
    }
    for number in 0..20 {
        service
            .clone()
            .oneshot(to(&format!("{number}.example")))
            .await
            .unwrap();
    }
    let instances = registry.snapshot();
    let circuits = instances
        .iter()
        .find(|one| one.layer == "circuit_breaker")
        .unwrap();
    assert_eq!(
        (circuits.keys.len(), &*circuits.keys[0].key),
        (10, "sick.example")
    );
    let state = circuits.keys[0].state;
    assert!(
        matches!(state, KeyState::Circuit { state, .. } if state.as_str() == "open"),
        "{state:?}"
    );
    let tower_keep::observe::State::CircuitBreaker(of_all) = &circuits.state else {
        panic!("{circuits:?}");
    };
    let last = of_all.recent.last().unwrap();
    assert_eq!(last.key.as_deref(), Some("sick.example"));
    assert_eq!(
        last.threshold.as_deref(),
        Some("failure_rate 0.5 of at least 8 calls")
    );
    let _: Arc<Registry> = registry;
}

/// Probes would soon have replaced it.
#[tokio::test(start_paused = true)]
async fn the_opening_stays_among_the_last_transitions() {
    let registry = Registry::new();
    let breaker = CircuitBreakerLayer::builder().protocol(Plain::new());
    let breaker = breaker
        .consecutive_failures(2)
        .open_for(Duration::from_secs(1));
    let layer = registry.with(|| breaker.name("search").build().unwrap());
    let down = async |_: u32| Err::<u32, BoxError>("down".into());
    let service = layer.layer(service_fn(down));
    for _ in 0..40 {
        let _ = service.clone().oneshot(1).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let instances = registry.snapshot();
    let tower_keep::observe::State::CircuitBreaker(circuits) = &instances[0].state else {
        panic!("{instances:?}");
    };
    let opened = circuits.recent[0].transition;
    assert_eq!(
        (opened.from.as_str(), opened.to.as_str()),
        ("closed", "open")
    );
    assert!(circuits.recent.len() <= 3, "{:?}", circuits.recent);
}

/// The host is told by the stack's handle, whichever part rejected.
#[tokio::test(start_paused = true)]
async fn the_stack_tells_which_host_rejected() {
    use tower_keep::Rejected;

    let stack = stack::client()
        .http()
        .max_in_flight(1)
        .without_retry()
        .build()
        .unwrap();
    let service = stack.layer(service_fn(hangs));
    let first = tokio::spawn(service.clone().oneshot(to("a.example")));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let error = service.clone().oneshot(to("a.example")).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(rejected.layer, "bulkhead");
    assert_eq!(
        stack.handle().key_of(rejected).unwrap().to_string(),
        "a.example"
    );
    assert!(!format!("{rejected:?} {rejected}").contains("a.example"));
    first.abort();
}
