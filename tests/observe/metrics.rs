//! What a recorder of the `metrics` facade gets.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    ConfigError,
    algorithm::{Limit, OverLimit, TokenBucket, Vegas},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    fallback::{Backend, FallbackLayer, Spill},
    gate::GateLayer,
    hedge::HedgeLayer,
    observe::{BUCKETS, METRICS, MetricKind, Registry, State},
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    store::Memory,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

/// What is rendered of the instances of one name, by series.
fn published(name: &str) -> BTreeMap<String, f64> {
    published_by(Registry::global(), name)
}

fn published_by(registry: &Registry, name: &str) -> BTreeMap<String, f64> {
    let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS);
    let recorder = recorder.unwrap().build_recorder();
    metrics::with_local_recorder(&recorder, || registry.publish());
    rendered(&recorder.handle(), name)
}

/// The series of one name, and their values.
fn rendered(handle: &PrometheusHandle, name: &str) -> BTreeMap<String, f64> {
    let own = format!("name=\"{name}\"");
    let rendered = handle.render();
    let lines = rendered.lines().filter(|line| line.contains(&own));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let series = series.replace(&format!("{own},"), "").replace(&own, "");
            (series.replace("{}", ""), value.parse().unwrap())
        })
        .collect()
}

async fn answer(call: u32) -> Result<u32, BoxError> {
    if call == 0 {
        Err("as told".into())
    } else {
        Ok(call)
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_recorder_has_missed_nothing() {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(4)
        .name("late")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(answer));
    for call in [1, 1, 0, 0, 1] {
        let _ = service.clone().oneshot(call).await;
    }
    let seen = published("late");
    let calls = |outcome: &str| {
        seen[&format!("tower_keep_calls_total{{layer=\"circuit_breaker\",outcome=\"{outcome}\"}}")]
    };
    assert_eq!(
        (calls("success"), calls("failure"), calls("rejected")),
        (2.0, 2.0, 1.0)
    );
    let state =
        |state: &str| seen[&format!("tower_keep_circuit_breaker_state{{state=\"{state}\"}}")];
    assert_eq!((state("open"), state("closed")), (1.0, 0.0));
    let opened = "tower_keep_circuit_breaker_transitions_total\
                  {from=\"closed\",to=\"open\",reason=\"failure_rate\"}";
    assert_eq!(seen[opened], 1.0);
    let rejected = "tower_keep_rejections_total{layer=\"circuit_breaker\",kind=\"circuit_open\"}";
    assert_eq!(seen[rejected], 1.0);
    let threshold = "tower_keep_config{layer=\"circuit_breaker\",param=\"failure_rate\"}";
    assert_eq!(seen[threshold], 0.5);
}

#[tokio::test(start_paused = true)]
async fn what_is_emitted_is_what_the_docs_say() {
    let name = "table";
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .keyed_by(|_: &u32| Some(1))
        .name(name)
        .build()
        .unwrap();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .name(name)
        .build()
        .unwrap();
    let bulkhead = BulkheadLayer::builder(1).name(name).build().unwrap();
    let timeout = TimeoutLayer::builder(Duration::from_secs(1))
        .name(name)
        .build()
        .unwrap();
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .name(name)
        .build()
        .unwrap();
    let hedge = HedgeLayer::builder()
        .protocol(Plain::new().idempotent())
        .delay(Duration::from_secs(1))
        .name(name)
        .build()
        .unwrap();
    let fallback = FallbackLayer::builder(|_: &u32| (), async |(), _| Ok(1))
        .protocol(Plain::new())
        .name(name)
        .build()
        .unwrap();
    let spill = Spill::builder(Plain::new().idempotent())
        .backend(Backend::new("one", service_fn(answer)))
        .name(name)
        .build()
        .unwrap();
    let throttle = ThrottleLayer::builder()
        .protocol(Plain::new())
        .name(name)
        .build()
        .unwrap();
    let shadow = RateLimitLayer::builder(Rate::per_minute(1))
        .build()
        .unwrap();
    let shadow = shadow.shadow(name);
    let inner = || service_fn(answer);
    for _ in 0..2 {
        assert!(shadow.layer(inner()).oneshot(1).await.is_ok());
    }
    assert!(spill.clone().oneshot(1).await.is_ok());
    assert!(throttle.layer(inner()).oneshot(1).await.is_ok());
    assert!(fallback.layer(inner()).oneshot(0).await.is_ok());
    assert!(hedge.layer(inner()).oneshot(1).await.is_ok());
    for _ in 0..2 {
        let _ = limit.layer(inner()).oneshot(1).await;
    }
    assert!(breaker.layer(inner()).oneshot(1).await.is_ok());
    breaker.handle().force_open();
    assert!(bulkhead.layer(inner()).oneshot(1).await.is_ok());
    assert!(timeout.layer(inner()).oneshot(1).await.is_ok());
    assert!(retry.layer(inner()).oneshot(1).await.is_ok());

    let learns = BulkheadLayer::builder(100)
        .adaptive(Vegas::default())
        .name(name);
    let learns = learns.build().unwrap().layer(service_fn(slow));
    for _ in 0..100 {
        let (one, two) = (learns.clone().oneshot(1), learns.clone().oneshot(1));
        assert!(futures::future::join(one, two).await.0.is_ok());
    }
    // One of two waits in each.
    let waiting = BulkheadLayer::builder(1).max_wait(Duration::from_secs(9));
    let busy = waiting.name(name).build().unwrap().layer(service_fn(slow));
    let (one, two) = (busy.clone().oneshot(1), busy.clone().oneshot(1));
    assert!(futures::future::join(one, two).await.0.is_ok());
    let holds = BulkheadLayer::builder(1).reclaim_after(Duration::from_nanos(1));
    let holds = holds.name(name).build().unwrap().layer(service_fn(slow));
    let mut first = Box::pin(holds.clone().oneshot(1));
    assert!(futures::poll!(first.as_mut()).is_pending());
    tokio::time::advance(Duration::from_nanos(1)).await;
    assert!(holds.oneshot(1).await.is_ok());
    let waiting = RateLimitLayer::builder(Rate::per_second(1)).max_wait(Duration::from_secs(9));
    let waiting = waiting.name(name).build().unwrap().layer(inner());
    for _ in 0..2 {
        assert!(waiting.clone().oneshot(1).await.is_ok());
    }
    assert!(retry.layer(inner()).oneshot(0).await.is_err());
    let store = Memory::new();
    let fleet = RateLimitLayer::builder(Rate::per_second(100)).burst(100);
    let fleet = fleet.fleet(&store.link(), name).name(name).build().unwrap();
    assert!(fleet.layer(inner()).oneshot(1).await.is_ok());

    let seen = published(name);
    #[cfg(feature = "watch")]
    let seen = {
        let mut seen = seen;
        seen.extend(of_a_watch());
        seen
    };
    #[cfg(feature = "fault")]
    let seen = {
        let mut seen = seen;
        seen.extend(of_faults());
        seen
    };
    #[cfg(feature = "http")]
    let seen = {
        let mut seen = seen;
        seen.extend(of_a_stack());
        seen
    };
    let metric = |series: &str| {
        let name = series.split('{').next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].into_iter();
        let mut base = of_histogram.filter_map(|suffix| name.strip_suffix(suffix));
        let known = |name: &&str| METRICS.iter().any(|metric| metric.name == *name);
        base.find(known).unwrap_or(name).to_owned()
    };
    let mut emitted: Vec<_> = seen.keys().map(|series| metric(series)).collect();
    emitted.dedup();
    let docs = include_str!("../../src/observe/mod.rs");
    for metric in METRICS {
        assert!(
            emitted.iter().any(|name| name == metric.name),
            "{} is not emitted",
            metric.name
        );
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            _ => "histogram",
        };
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let row = format!("//! | `{}` | {kind} | {}", metric.name, labels.join(", "));
        assert!(docs.contains(row.trim_end()), "no row: {row}");
    }
    for name in emitted {
        assert!(
            METRICS.iter().any(|metric| metric.name == name),
            "{name} is unknown"
        );
    }
}

/// What is rendered of a stack, by which it is drained.
#[cfg(feature = "http")]
fn of_a_stack() -> BTreeMap<String, f64> {
    let own = Registry::new();
    let build = || {
        let stack = tower_keep::stack::client().plain(Plain::new());
        stack.name("drained").build().unwrap()
    };
    let _stack = own.with(build);
    published_by(&own, "drained")
}

/// What is rendered of a layer of faults, injected and in shadow mode.
#[cfg(feature = "fault")]
fn of_faults() -> BTreeMap<String, f64> {
    use futures::FutureExt;
    use tower_keep::fault::{Fault, FaultLayer};

    let own = Registry::new();
    let build = || {
        let builder = FaultLayer::builder("game day").protocol(Plain::new());
        let fault = Fault::error(|_: &u32| "injected").name("rude");
        let builder = builder.fault(fault).fault(Fault::hang().share(0.0));
        builder.name("payments").build().unwrap()
    };
    let faults = own.with(build);
    faults.handle().start_for(Duration::from_secs(60));
    let service = faults.layer(service_fn(answer));
    let ask = || service.clone().oneshot(1).now_or_never().unwrap();
    ask().unwrap_err();
    let mut policy = faults.handle().policy();
    policy.shadow = true;
    faults.handle().update(policy).unwrap();
    ask().unwrap();
    let seen = published_by(&own, "payments");
    let metric = |series: &str| seen[&format!("tower_keep_faults_{series}")];
    assert_eq!(metric("injected_total{fault=\"rude\"}"), 1.0);
    assert_eq!(metric("injected_total{fault=\"hang\"}"), 0.0);
    assert_eq!(metric("would_inject_total{fault=\"rude\"}"), 1.0);
    assert_eq!(metric("running{reason=\"game day\"}"), 1.0);
    assert_eq!((metric("active"), metric("spared_total")), (0.0, 0.0));
    faults.handle().stop();
    let stopped = published_by(&own, "payments");
    assert_eq!(
        stopped["tower_keep_faults_running{reason=\"game day\"}"],
        0.0
    );
    seen
}

/// What is rendered of a file that is followed.
#[cfg(feature = "watch")]
fn of_a_watch() -> BTreeMap<String, f64> {
    use tower_keep::settings::{self, Reload, TimeoutSettings};

    let name = format!("tower-keep-watched-{}.toml", std::process::id());
    let file = std::env::temp_dir().join(&name);
    std::fs::write(&file, "duration = '1s'").unwrap();
    let read = |text: &str| Ok(settings::read(toml::Deserializer::parse(text)?)?);
    let settings: TimeoutSettings = read("duration = '2s'").unwrap();
    let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let own = Registry::new();
    let reload = Reload::new(layer.handle(), settings);
    let report = move |result| {
        let _ = tell.send(result);
    };
    let watch = own.with(|| settings::watch(&file, read, reload, report).unwrap());
    told.recv_timeout(Duration::from_secs(9)).unwrap().unwrap();
    let seen = published_by(&own, &name);
    assert_eq!(seen["tower_keep_settings_watch_alive"], 1.0);
    assert_eq!(seen["tower_keep_settings_watch_failing"], 0.0);
    assert_eq!(
        seen["tower_keep_settings_texts_total{result=\"applied\"}"],
        1.0
    );
    drop(watch);
    std::fs::remove_file(file).unwrap();
    seen
}

async fn slow(call: u32) -> Result<u32, BoxError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    answer(call).await
}

#[tokio::test(start_paused = true)]
async fn waits_are_recorded_by_how_they_end() {
    let layer = BulkheadLayer::builder(1).max_wait(Duration::from_millis(300));
    let layer = layer.name("waits").build().unwrap();
    let service = layer.layer(service_fn(slow));
    let call = || service.clone().oneshot(1);
    // One runs, the next waits 200 ms, the third is rejected after 300 ms; another is given up
    // after 50 ms.
    let given_up = tokio::time::timeout(Duration::from_millis(50), call());
    let calls = futures::future::join_all([call(), call(), call()]);
    let (calls, given_up) = futures::future::join(calls, given_up).await;
    let answered = calls.into_iter().map(|call| call.is_ok());
    assert_eq!(answered.collect::<Vec<_>>(), [true, true, false]);
    assert!(given_up.is_err());

    let seen = published("waits");
    let waited = |result: &str| {
        let of = |part: &str| {
            seen[&format!("tower_keep_bulkhead_wait_seconds_{part}{{result=\"{result}\"}}")]
        };
        (of("count"), (of("sum") * 100.0).round() * 10.0)
    };
    assert_eq!(waited("admitted"), (1.0, 200.0));
    assert_eq!(waited("rejected"), (1.0, 300.0));
    assert_eq!(waited("cancelled"), (1.0, 50.0));
    let bucket = "tower_keep_bulkhead_wait_seconds_bucket{result=\"admitted\",le=\"0.1\"}";
    assert_eq!(seen[bucket], 0.0);
    assert_eq!(seen[&bucket.replace("0.1", "0.25")], 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_histogram_is_told_once_to_each_recorder() {
    let layer = RateLimitLayer::builder(Rate::per_second(10)).burst(1);
    let layer = layer
        .max_wait(Duration::from_secs(9))
        .name("told")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(answer));
    let count = "tower_keep_rate_limit_wait_seconds_count";
    let recorder = || {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS);
        Box::new(builder.unwrap().build_recorder())
    };
    let (early, late) = (recorder(), recorder());
    for calls in [3.0, 6.0] {
        for _ in 0..3 {
            service.clone().oneshot(1).await.unwrap();
        }
        metrics::with_local_recorder(&*early, || Registry::global().publish());
        metrics::with_local_recorder(&*early, || Registry::global().publish());
        assert_eq!(rendered(&early.handle(), "told")[count], calls - 1.0);
    }
    metrics::with_local_recorder(&*late, || Registry::global().publish());
    assert_eq!(rendered(&late.handle(), "told")[count], 5.0);
}

#[tokio::test(start_paused = true)]
async fn calls_are_timed_by_how_they_end() {
    let layer = TimeoutLayer::builder(Duration::from_millis(300))
        .name("timed")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(async |millis: u64| {
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        answer(u32::from(millis != 20)).await
    }));
    for millis in [0, 200, 20, 1000] {
        let _ = service.clone().oneshot(millis).await;
    }
    let given_up = service.clone().oneshot(1000);
    assert!(
        tokio::time::timeout(Duration::from_millis(70), given_up)
            .await
            .is_err()
    );
    // Never polled, so never sent.
    drop(service.oneshot(1000));

    let seen = published("timed");
    let timed = |outcome: &str| {
        let of = |part: &str| {
            seen[&format!(
                "tower_keep_call_duration_seconds_{part}{{scope=\"attempt\",outcome=\"{outcome}\"}}"
            )]
        };
        (of("count"), (of("sum") * 100.0).round() * 10.0)
    };
    assert_eq!(timed("success"), (2.0, 200.0));
    assert_eq!(timed("failure"), (1.0, 20.0));
    assert_eq!(timed("timeout"), (1.0, 300.0));
    assert_eq!(timed("cancelled"), (1.0, 70.0));
}

#[tokio::test(start_paused = true)]
async fn retries_are_counted_by_cause() {
    let layer = RetryLayer::builder().protocol(Plain::new().idempotent());
    let layer = layer.name("causes").build().unwrap();
    assert!(layer.layer(service_fn(answer)).oneshot(0).await.is_err());
    let seen = published("causes");
    assert_eq!(
        seen["tower_keep_retry_attempts_total{cause=\"failure\"}"],
        2.0
    );
    assert_eq!(
        seen["tower_keep_retry_attempts_total{cause=\"not_sent\"}"],
        0.0
    );
    assert_eq!(seen["tower_keep_retry_backoff_seconds_count"], 2.0);
    let waited = seen["tower_keep_retry_backoff_seconds_sum"];
    assert!((0.3..=0.6).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn keys_do_not_become_labels() {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .keyed_by(|key: &u32| Some(*key))
        .max_keys(20_000)
        .name("keys")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(answer));
    for key in 1..=10_000 {
        service.clone().oneshot(key).await.unwrap();
    }
    let seen = published("keys");
    assert!(seen.len() < 30, "{seen:?}");
    assert!(seen["tower_keep_circuit_breaker_state{state=\"closed\"}"] >= 10_000.0);
}

#[tokio::test(start_paused = true)]
async fn of_keyed_circuits_the_one_that_fails_most_is_shown() {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .keyed_by(|call: &u32| Some(*call))
        .min_calls(4)
        .name("worst")
        .build()
        .unwrap();
    // Key 0 fails, and has too few calls to be judged; key 1 is well.
    let service = layer.layer(service_fn(answer));
    let shown = || {
        let seen = published("worst");
        let of = |what: &str| seen[&format!("tower_keep_circuit_breaker_{what}")];
        (of("failure_ratio"), of("window_calls"))
    };
    for call in [0, 1, 1, 1, 1] {
        let _ = service.clone().oneshot(call).await;
    }
    assert_eq!(shown(), (0.0, 4.0));
    for _ in 0..2 {
        let _ = service.clone().oneshot(0).await;
    }
    assert_eq!(shown(), (0.0, 4.0));
    layer.handle().key(&0).unwrap().metrics_only();
    for _ in 0..4 {
        let _ = service.clone().oneshot(0).await;
    }
    assert_eq!(shown(), (1.0, 4.0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_layer_disappears_and_its_counts_stay() {
    // One of its own: another test that publishes the global one holds each layer for a moment.
    let own = Registry::new();
    let build = || own.with(|| BulkheadLayer::builder(2).name("reloaded").build().unwrap());
    let calls = "tower_keep_calls_total{layer=\"bulkhead\",outcome=\"success\"}";
    let first = build();
    assert!(first.layer(service_fn(answer)).oneshot(1).await.is_ok());
    let running = first.layer(service_fn(|_: u32| {
        std::future::pending::<Result<u32, BoxError>>()
    }));
    let running = Box::pin(running.oneshot(1));
    assert!(futures::FutureExt::now_or_never(running).is_none());
    assert_eq!(published_by(&own, "reloaded")[calls], 1.0);
    drop(first);
    let living = || own.snapshot().len();
    assert_eq!(living(), 0);
    let second = build();
    assert!(second.layer(service_fn(answer)).oneshot(1).await.is_ok());
    assert_eq!((published_by(&own, "reloaded")[calls], living()), (2.0, 1));
}

/// It stayed at its last value in every recorder, as a line in a graph that nothing holds to.
#[tokio::test(start_paused = true)]
async fn a_threshold_that_is_turned_off_is_no_number() {
    let own = Registry::new();
    let build = |name: &'static str| {
        let layer = CircuitBreakerLayer::builder().protocol(Plain::new());
        let layer = layer.consecutive_failures(5).name(name);
        own.with(|| layer.build().unwrap())
    };
    let (one, two, gone) = (build("one"), [build("two"), build("two")], build("gone"));
    let recorders = [(); 2].map(|()| PrometheusBuilder::new().build_recorder());
    let shown = |recorder: usize, name: &str| {
        let recorder = &recorders[recorder];
        metrics::with_local_recorder(recorder, || own.publish());
        let series = "tower_keep_config{layer=\"circuit_breaker\",param=\"failure_rate\"}";
        rendered(&recorder.handle(), name)[series]
    };
    let rate = |handle: tower_keep::circuit_breaker::CircuitBreakerHandle, rate| {
        let mut config = handle.config();
        config.failure_rate = rate;
        handle.update(config).unwrap();
    };
    for recorder in 0..2 {
        let all = ["one", "two", "gone"].map(|name| shown(recorder, name));
        assert_eq!(all, [0.5; 3]);
    }
    rate(one.handle(), None);
    rate(two[0].handle(), None);
    drop(gone);
    // Whichever recorder is told first.
    assert!(shown(0, "one").is_nan() && shown(1, "one").is_nan());
    assert_eq!(shown(0, "two"), 0.5, "another of the name has it");
    assert!(shown(0, "gone").is_nan());

    rate(one.handle(), Some(0.25));
    rate(two[1].handle(), None);
    assert_eq!(shown(0, "one"), 0.25);
    assert!(shown(0, "two").is_nan());
    drop((one, two));
    assert!(shown(0, "one").is_nan());
}

/// The circuit for hosts that find no place was one more closed circuit than there were hosts.
#[tokio::test(start_paused = true)]
async fn a_shared_circuit_counts_once_it_is_used() {
    let own = Registry::new();
    let layer = CircuitBreakerLayer::builder().protocol(Plain::new());
    let layer = layer.keyed_by(|key: &u32| (*key < 9).then_some(*key));
    let layer = own.with(|| layer.name("shared").build().unwrap());
    let service = layer.layer(service_fn(answer));
    let states = || {
        let seen = published_by(&own, "shared");
        ["closed", "forced_open"]
            .map(|state| seen[&format!("tower_keep_circuit_breaker_state{{state=\"{state}\"}}")])
    };
    assert_eq!(states(), [0.0, 0.0]);
    for key in [1, 2, 3] {
        service.clone().oneshot(key).await.unwrap();
    }
    assert_eq!(states(), [3.0, 0.0]);
    layer.handle().shared().force_open();
    assert_eq!(states(), [3.0, 1.0]);
    layer.handle().shared().reset();
    assert_eq!(states(), [3.0, 0.0]);
    service.oneshot(9).await.unwrap();
    assert_eq!(states(), [4.0, 0.0]);

    let peer = tower_keep::stack::client().http().one_peer().name("peer");
    let _peer = own.with(|| peer.build().unwrap());
    let seen = published_by(&own, "peer");
    assert_eq!(
        seen["tower_keep_circuit_breaker_state{state=\"closed\"}"],
        1.0
    );
}

/// A publication that had looked before a layer was built took it for gone if it came second, and
/// its calls were counted twice from then on.
#[test]
fn publications_at_once_count_nothing_twice() {
    let own = Registry::new();
    let publish = || {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || own.publish());
        recorder.handle().render()
    };
    let mut layers = Vec::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    publish();
                }
            });
        }
        for number in 0..300 {
            let name: &str = format!("at once {number}").leak();
            let layer = own.with(|| BulkheadLayer::builder(1).name(name).build().unwrap());
            let call = layer.layer(service_fn(answer)).oneshot(1);
            let answered = futures::FutureExt::now_or_never(call);
            assert!(matches!(answered, Some(Ok(1))));
            layers.push(layer);
            thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    let rendered = publish();
    let calls = rendered.lines().filter(|line| {
        line.starts_with("tower_keep_calls_total") && line.contains("outcome=\"success\"")
    });
    let counts: Vec<_> = calls.map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(counts, vec![Some("1"); layers.len()]);
}

#[tokio::test(start_paused = true)]
async fn what_a_later_gate_rejects_is_no_call_of_the_first() {
    let breaker = CircuitBreakerLayer::builder().gate().unwrap();
    let limit = RateLimitLayer::builder(Rate::per_minute(1)).gate().unwrap();
    let (circuit, rate) = (breaker.handle(), limit.handle());
    let layer = GateLayer::new((breaker, limit)).protocol(Plain::new());
    for _ in 0..3 {
        let _ = layer.layer(service_fn(answer)).oneshot(1).await;
    }
    let totals = circuit.snapshot().totals;
    assert_eq!((totals.admitted, totals.success, totals.ignored), (1, 1, 0));
    let totals = rate.snapshot().totals;
    assert_eq!((totals.admitted, totals.rejected.local()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_registry_of_ones_own_knows_what_is_built_with_it() {
    let (outer, inner) = (Registry::new(), Registry::new());
    let build = || BulkheadLayer::builder(1).name("own").build().unwrap();
    let (first, second, third) = outer.with(|| (build(), inner.with(build), build()));
    let global = build();
    let known = |registry: &Registry| {
        let instances = registry.snapshot().into_iter();
        instances.filter(|instance| instance.name == "own").count()
    };
    assert_eq!(
        (known(&outer), known(&inner), known(Registry::global())),
        (2, 1, 1)
    );
    drop(third);
    assert_eq!(known(&outer), 1);

    // A panic leaves no registry behind, and each publishes its own.
    let panics = std::panic::AssertUnwindSafe(|| outer.with(|| panic!("while building")));
    std::panic::catch_unwind(panics).unwrap_err();
    let last = build();
    assert_eq!((known(&outer), known(Registry::global())), (1, 2));
    for (layer, calls) in [(&first, 1), (&second, 2), (&global, 4), (&last, 8)] {
        for _ in 0..calls {
            assert!(layer.layer(service_fn(answer)).oneshot(1).await.is_ok());
        }
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || inner.publish());
    let calls = "tower_keep_calls_total{layer=\"bulkhead\",outcome=\"success\"}";
    assert_eq!(rendered(&recorder.handle(), "own")[calls], 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_typed() {
    let layer = BulkheadLayer::builder(7).name("typed").build().unwrap();
    assert!(layer.layer(service_fn(answer)).oneshot(1).await.is_ok());
    let instances = Registry::global().snapshot();
    let own = instances
        .iter()
        .find(|instance| instance.name == "typed")
        .unwrap();
    assert!(matches!(
        own.state,
        State::Bulkhead {
            limit: 7,
            in_flight: 0,
            ..
        }
    ));
    assert_eq!((own.layer, own.totals.success), ("bulkhead", 1));
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn a_snapshot_can_be_serialized() {
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .name("json")
        .build()
        .unwrap();
    layer.handle().force_open();
    let instances = Registry::global().snapshot();
    let own = instances
        .iter()
        .find(|instance| instance.name == "json")
        .unwrap();
    let json = serde_json::to_value(own).unwrap();
    assert_eq!(
        json["state"]["circuit_breaker"]["states"][3],
        serde_json::json!(["forced_open", 1])
    );
    assert_eq!(json["totals"]["rejected"]["circuit_open"], 0);
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let files = [
        include_str!("../../examples/observability/alerts.yml"),
        include_str!("../../examples/observability/tuning.yml"),
        include_str!("../../examples/observability/dashboard.json"),
    ];
    let mut asked = 0;
    for word in files.iter().flat_map(|file| {
        file.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
    }) {
        if word.starts_with("tower_keep_") {
            asked += 1;
            let suffixes = ["_bucket", "_sum", "_count"];
            let of_histogram = suffixes.iter().find_map(|end| word.strip_suffix(end));
            let mut metrics = METRICS.iter();
            let exists = metrics.any(|metric| metric.name == of_histogram.unwrap_or(word));
            assert!(exists, "{word}");
        }
    }
    assert!(asked > 20);
}

/// A limit that asks back, as a user's own may.
#[derive(Debug)]
struct AsksBack(TokenBucket, Arc<OnceLock<Weak<Registry>>>);

impl Limit for AsksBack {
    fn acquire(&self, cost: u32, now: u64) -> Result<(), OverLimit> {
        self.0.acquire(cost, now)
    }

    fn wait(&self, units: u64, now: u64) -> Duration {
        self.0.wait(units, now)
    }

    fn refund(&self, cost: u32, now: u64) {
        self.0.refund(cost, now);
    }

    fn charge(&self, cost: u32, now: u64) {
        self.0.charge(cost, now);
    }

    fn close_until(&self, until: u64, now: u64) {
        self.0.close_until(until, now);
    }

    fn available(&self, now: u64) -> u32 {
        self.0.available(now)
    }

    fn burst(&self) -> u32 {
        self.0.burst()
    }

    fn rate(&self) -> Rate {
        if let Some(registry) = self.1.get().and_then(Weak::upgrade) {
            registry.publish();
        }
        Limit::rate(&self.0)
    }

    fn update(&self, rate: Rate, burst: u32) -> Result<(), ConfigError> {
        Limit::update(&self.0, rate, burst)
    }
}

#[test]
fn a_limit_may_publish_while_it_is_published() {
    let bucket = TokenBucket::new(Rate::per_second(10), 10).unwrap();
    let (registry, asked) = (Registry::new(), Arc::new(OnceLock::new()));
    let layer = registry.with(|| {
        let limit = RateLimitLayer::with(AsksBack(bucket, asked.clone()));
        limit.name("asks-back").build().unwrap()
    });
    asked.set(Arc::downgrade(&registry)).unwrap();
    assert!(!published_by(&registry, "asks-back").is_empty());
    drop(layer);
}
