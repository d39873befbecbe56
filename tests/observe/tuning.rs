//! The recipes of the guide's page on tuning: each test produces a symptom, reads the metric that
//! tells, moves the threshold through a handle, and sees the symptom gone.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    sync::Semaphore,
    time::{Instant, advance, sleep},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_keep::{
    algorithm::RetryBudget,
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerBuilder, CircuitBreakerLayer, Window},
    hedge::HedgeLayer,
    keyed::NotKeyed,
    observe::Registry,
    protocol::{Chosen, Plain},
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

/// What the upstream does with a call.
#[derive(Debug, Clone, Copy)]
struct Ask {
    takes: Duration,
    succeeds: bool,
}

const fn good(millis: u64) -> Ask {
    let takes = Duration::from_millis(millis);
    Ask {
        takes,
        succeeds: true,
    }
}

const BAD: Ask = Ask {
    takes: Duration::from_millis(1),
    succeeds: false,
};

async fn upstream(ask: Ask) -> Result<(), BoxError> {
    sleep(ask.takes).await;
    match ask.succeeds {
        true => Ok(()),
        false => Err("as told".into()),
    }
}

/// One call after the other, and how many of them succeeded.
async fn in_turn<S>(service: &S, asks: impl IntoIterator<Item = Ask>) -> usize
where
    S: Service<Ask> + Clone,
{
    let mut succeeded = 0;
    for ask in asks {
        succeeded += usize::from(service.clone().oneshot(ask).await.is_ok());
    }
    succeeded
}

/// So many calls at once: how many succeeded, and how long the longest of those took.
async fn at_once<S>(service: &S, calls: usize, ask: Ask) -> (usize, Duration)
where
    S: Service<Ask> + Clone,
{
    let start = Instant::now();
    let calls = (0..calls).map(async |_| {
        let result = service.clone().oneshot(ask).await;
        result.ok().map(|_| start.elapsed())
    });
    let took: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
    (took.len(), took.into_iter().max().unwrap_or_default())
}

/// What a recorder gets of a series of the instances of this name; 0 if nothing.
fn metric(name: &str, metric: &str, labels: &[(&str, &str)]) -> f64 {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || Registry::global().publish());
    let rendered = handle.render();
    let wanted = [("name", name)].into_iter().chain(labels.iter().copied());
    let wanted: Vec<_> = wanted
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    let own = rendered.lines().filter(|line| {
        line.starts_with(&format!("{metric}{{")) && wanted.iter().all(|label| line.contains(label))
    });
    own.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn breaker(name: &'static str) -> CircuitBreakerBuilder<NotKeyed, Chosen<Plain>> {
    CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .name(name)
}

/// How often the circuit has opened for this reason.
fn opened(name: &str, reason: &str) -> f64 {
    let labels = [("to", "open"), ("reason", reason)];
    metric(
        name,
        "tower_keep_circuit_breaker_transitions_total",
        &labels,
    )
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_on_few_calls() {
    let layer = breaker("few calls").min_calls(3).build().unwrap();
    let (service, handle) = (layer.layer(service_fn(upstream)), layer.handle());
    // A quiet hour: a call every three seconds, and two that fail by chance.
    let quiet_hour = async || {
        for ask in [good(1), BAD, BAD, good(1), good(1)] {
            let _ = service.clone().oneshot(ask).await;
            advance(Duration::from_secs(3)).await;
        }
    };
    quiet_hour().await;
    assert_eq!(opened("few calls", "failure_rate"), 1.0);

    let mut config = handle.config();
    config.min_calls = 10;
    handle.update(config).unwrap();
    handle.reset();
    quiet_hour().await;
    assert_eq!(opened("few calls", "failure_rate"), 1.0);
    // What to watch next: an outage still opens it.
    in_turn(&service, [BAD; 20]).await;
    assert_eq!(opened("few calls", "failure_rate"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn circuit_never_opens() {
    let layer = breaker("many calls").min_calls(200).build().unwrap();
    let (service, handle) = (layer.layer(service_fn(upstream)), layer.handle());
    // An outage, at ten calls a second.
    let outage = async || {
        for _ in 0..200 {
            let _ = service.clone().oneshot(BAD).await;
            advance(Duration::from_millis(99)).await;
        }
    };
    outage().await;
    assert_eq!(
        metric(
            "many calls",
            "tower_keep_circuit_breaker_failure_ratio",
            &[]
        ),
        1.0
    );
    let held = metric("many calls", "tower_keep_circuit_breaker_window_calls", &[]);
    let needed = metric("many calls", "tower_keep_config", &[("param", "min_calls")]);
    assert!(held < needed, "{held} of {needed} calls");
    assert_eq!(handle.state(), BreakerState::Closed);

    let mut config = handle.config();
    config.min_calls = 50; // half of what the window held
    handle.update(config).unwrap();
    outage().await;
    assert_eq!(opened("many calls", "failure_rate"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_late() {
    let long = Duration::from_secs(600);
    let layer = breaker("long window").window(long).build().unwrap();
    let (service, handle) = (layer.layer(service_fn(upstream)), layer.handle());
    // Ten calls a second: five good minutes, and then an outage.
    let at_ten_a_second = async |ask, calls| {
        for _ in 0..calls {
            let _ = service.clone().oneshot(ask).await;
            advance(Duration::from_millis(99)).await;
        }
    };
    at_ten_a_second(good(1), 3000).await;
    at_ten_a_second(BAD, 300).await;
    // Half a minute of nothing but failures is outweighed by what was before.
    let ratio = metric(
        "long window",
        "tower_keep_circuit_breaker_failure_ratio",
        &[],
    );
    assert!(ratio > 0.05 && ratio < 0.1, "{ratio}");

    let mut config = handle.config();
    config.window = Window::Time(Duration::from_secs(10));
    handle.update(config).unwrap();
    at_ten_a_second(BAD, 100).await;
    assert_eq!(opened("long window", "failure_rate"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_by_slow_calls() {
    let slow = Duration::from_millis(100);
    let layer = breaker("slow calls").slow_calls(slow, 0.2).build().unwrap();
    let (service, handle) = (layer.layer(service_fn(upstream)), layer.handle());
    // A third of the good calls is a report that takes longer.
    let usual = [good(20), good(20), good(150)];
    in_turn(&service, usual.into_iter().cycle().take(60)).await;
    assert_eq!(opened("slow calls", "slow_rate"), 1.0);

    let mut config = handle.config();
    config.slow_calls.as_mut().unwrap().rate = 0.45;
    handle.update(config).unwrap();
    handle.reset();
    assert_eq!(
        in_turn(&service, usual.into_iter().cycle().take(60)).await,
        60
    );
    assert_eq!(opened("slow calls", "slow_rate"), 1.0);
    // What to watch next: an upstream that is slow for all still opens it.
    in_turn(&service, [good(150); 60]).await;
    assert_eq!(opened("slow calls", "slow_rate"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn bulkhead_is_too_small() {
    let layer = BulkheadLayer::builder(4).name("small").build().unwrap();
    let service = layer.layer(service_fn(upstream));
    let (succeeded, before) = at_once(&service, 6, good(50)).await;
    let full = || {
        metric(
            "small",
            "tower_keep_rejections_total",
            &[("kind", "bulkhead_full")],
        )
    };
    assert_eq!((succeeded, full()), (4, 2.0));

    layer.handle().set_limit(6).unwrap(); // up by half
    let (succeeded, after) = at_once(&service, 6, good(50)).await;
    assert_eq!((succeeded, full()), (6, 2.0));
    assert_eq!(after, before, "what to watch next: the latency");
}

#[tokio::test(start_paused = true)]
async fn bulkhead_is_too_large() {
    // The upstream does four calls at a time, each in 50 ms, and the others wait there.
    let workers = Arc::new(Semaphore::new(4));
    let busy = service_fn(move |ask: Ask| {
        let workers = workers.clone();
        async move {
            let _worker = workers.acquire().await?;
            upstream(ask).await
        }
    });
    let layer = BulkheadLayer::builder(40).name("large").build().unwrap();
    let service = layer.layer(busy);
    let full = || {
        metric(
            "large",
            "tower_keep_rejections_total",
            &[("kind", "bulkhead_full")],
        )
    };
    let (succeeded, slowest) = at_once(&service, 40, good(50)).await;
    assert_eq!((succeeded, full()), (40, 0.0));
    assert_eq!(slowest, Duration::from_millis(500));

    // 80 calls a second times the 50 ms of a quiet hour are 4 calls; twice that leaves room.
    layer.handle().set_limit(8).unwrap();
    let (succeeded, slowest) = at_once(&service, 40, good(50)).await;
    assert_eq!((succeeded, full()), (8, 32.0));
    assert_eq!(slowest, Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn calls_queue_in_bursts() {
    let layer = BulkheadLayer::builder(4)
        .max_wait(Duration::from_secs(1))
        .name("queue")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(upstream));
    let burst = async || {
        let calls = at_once(&service, 6, good(100));
        let look = async {
            sleep(Duration::from_millis(50)).await;
            metric("queue", "tower_keep_bulkhead_queued", &[])
        };
        let ((_, slowest), queued) = futures::join!(calls, look);
        (queued, slowest)
    };
    assert_eq!(burst().await, (2.0, Duration::from_millis(200)));

    layer.handle().set_limit(6).unwrap(); // up by half
    assert_eq!(burst().await, (0.0, Duration::from_millis(100)));
}

/// Of 30 calls one is hopeless and one succeeds when it is sent again.
async fn of_thirty<S: Service<(u32, bool)> + Clone>(service: &S) {
    for call in 0..30 {
        let _ = service.clone().oneshot((call, true)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn hopeless_calls_empty_the_budget() {
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .attempts(6)
        .budget(Arc::new(RetryBudget::new(3, 0.1).unwrap().into()))
        .name("budget")
        .build()
        .unwrap();
    let (seen, handle) = (Arc::new(AtomicUsize::new(0)), layer.handle());
    let service = layer.layer(service_fn(move |(call, _): (u32, bool)| {
        let flaky_fails = call == 1 && seen.fetch_add(1, Ordering::Relaxed) % 2 == 0;
        upstream(if call == 0 || flaky_fails {
            BAD
        } else {
            good(1)
        })
    }));
    let calls = |outcome| {
        metric(
            "budget",
            "tower_keep_retry_calls_total",
            &[("outcome", outcome)],
        )
    };
    for _ in 0..10 {
        of_thirty(&service).await;
    }
    // The hopeless call takes what the other one needs.
    let (denied, recovered) = (calls("budget_denied"), calls("recovered"));
    assert!(denied >= 10.0 && recovered <= 5.0, "{denied} {recovered}");

    let mut config = handle.config();
    config.attempts = 2;
    handle.update(config).unwrap();
    for _ in 0..10 {
        of_thirty(&service).await;
    }
    let (denied, recovered) = (
        calls("budget_denied") - denied,
        calls("recovered") - recovered,
    );
    assert!(denied <= 1.0 && recovered >= 9.0, "{denied} {recovered}");
}

#[tokio::test(start_paused = true)]
async fn retries_are_load() {
    let layer = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .attempts(5)
        .without_budget()
        .name("load")
        .build()
        .unwrap();
    let (service, handle) = (layer.layer(service_fn(upstream)), layer.handle());
    let attempts = || metric("load", "tower_keep_retry_attempts_total", &[]);
    in_turn(&service, [BAD; 10]).await;
    assert_eq!(attempts(), 40.0);

    let mut config = handle.config();
    config.attempts = 2;
    handle.update(config).unwrap();
    in_turn(&service, [BAD; 10]).await;
    assert_eq!(attempts(), 50.0);
}

#[tokio::test(start_paused = true)]
async fn rate_limit_rejects_bursts() {
    let rate = Rate::per_second(10);
    let layer = RateLimitLayer::builder(rate)
        .burst(1)
        .name("bursts")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(upstream));
    // Five calls each second, all at once: half of the rate.
    let bursts = async || {
        for _ in 0..4 {
            at_once(&service, 5, good(1)).await;
            sleep(Duration::from_secs(1)).await;
        }
    };
    let decisions = |decision| {
        let labels = [("decision", decision)];
        metric("bursts", "tower_keep_rate_limit_decisions_total", &labels)
    };
    bursts().await;
    assert_eq!((decisions("admitted"), decisions("rejected")), (4.0, 16.0));

    layer.handle().set_rate(rate, 5).unwrap();
    bursts().await;
    assert_eq!((decisions("admitted"), decisions("rejected")), (24.0, 16.0));
}

#[tokio::test(start_paused = true)]
async fn attempt_timeout_cuts_good_calls() {
    let attempt = TimeoutLayer::builder(Duration::from_millis(100))
        .name("attempt")
        .build()
        .unwrap();
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .without_budget()
        .build()
        .unwrap();
    let layers = ServiceBuilder::new().layer(retry).layer(attempt.clone());
    let service = layers.service(service_fn(upstream));
    let cut = || {
        metric(
            "attempt",
            "tower_keep_timeout_total",
            &[("scope", "attempt")],
        )
    };
    assert_eq!(in_turn(&service, [good(120); 10]).await, 0);
    assert_eq!(cut(), 30.0);

    // Above the slowest good answer.
    attempt
        .handle()
        .set_duration(Duration::from_millis(200))
        .unwrap();
    assert_eq!(in_turn(&service, [good(120); 10]).await, 10);
    assert_eq!(cut(), 30.0);
}

#[tokio::test(start_paused = true)]
async fn total_timeout_leaves_no_time_to_retry() {
    let timeout = |millis| TimeoutLayer::builder(Duration::from_millis(millis)).name("total");
    let total = timeout(250).total(true).build().unwrap();
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .without_budget()
        .build()
        .unwrap();
    let layers = ServiceBuilder::new()
        .layer(total.clone())
        .layer(retry)
        .layer(timeout(200).build().unwrap());
    // The first attempt of each call hangs.
    let last = Arc::new(AtomicUsize::new(0));
    let service = layers.service(service_fn(move |call: usize| {
        let hangs = last.swap(call, Ordering::Relaxed) != call;
        upstream(good(if hangs { 10_000 } else { 90 }))
    }));
    let succeeded = async |calls: std::ops::Range<usize>| {
        let calls = calls.map(|call| service.clone().oneshot(call));
        let mut succeeded = 0;
        for call in calls {
            succeeded += usize::from(call.await.is_ok());
        }
        succeeded
    };
    let cut = || metric("total", "tower_keep_timeout_total", &[("scope", "total")]);
    assert_eq!(succeeded(1..11).await, 0);
    assert_eq!(cut(), 10.0);

    // Two attempts' timeouts, and the backoff between them.
    total
        .handle()
        .set_duration(Duration::from_millis(600))
        .unwrap();
    assert_eq!(succeeded(11..21).await, 10);
    assert_eq!(cut(), 10.0);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_sent_too_early() {
    let layer = HedgeLayer::builder()
        .protocol(Plain::new().idempotent())
        .delay(Duration::from_millis(10))
        .without_budget()
        .name("early")
        .build()
        .unwrap();
    let (slow, handle) = (Arc::new(AtomicUsize::new(0)), layer.handle());
    let hangs = slow.clone();
    let service = layer.layer(service_fn(move |ask: Ask| {
        let hangs = hangs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        upstream(if hangs.is_ok() { good(10_000) } else { ask })
    }));
    let sent = || metric("early", "tower_keep_hedge_sent_total", &[]);
    assert_eq!(in_turn(&service, [good(20); 10]).await, 10);
    assert_eq!(sent(), 10.0);

    // Above what usual answers take.
    let mut config = handle.config();
    config.delay = Duration::from_millis(40);
    handle.update(config).unwrap();
    assert_eq!(in_turn(&service, [good(20); 10]).await, 10);
    assert_eq!(sent(), 10.0);
    // What to watch next: hedges still win over an attempt that hangs.
    slow.store(1, Ordering::Relaxed);
    assert_eq!(in_turn(&service, [good(20)]).await, 1);
    let wins = metric(
        "early",
        "tower_keep_hedge_wins_total",
        &[("winner", "hedge")],
    );
    assert_eq!((sent(), wins), (11.0, 1.0));
}

#[tokio::test(start_paused = true)]
async fn throttle_rejects_too_soon() {
    let layer = ThrottleLayer::builder()
        .protocol(Plain::new())
        .multiplier(1.1)
        .name("soon")
        .build()
        .unwrap();
    let (service, handle) = (layer.layer(service_fn(upstream)), layer.handle());
    let probability = || metric("soon", "tower_keep_throttle_probability", &[]);
    // An upstream that does three of four calls, as on any day.
    let usual = [good(1), good(1), good(1), BAD];
    in_turn(&service, usual.into_iter().cycle().take(200)).await;
    assert!(probability() > 0.1, "{}", probability());

    // 4 / 3 is where it would begin; half more leaves room.
    let mut config = handle.config();
    config.multiplier = 2.0;
    handle.update(config).unwrap();
    let rejected = || {
        metric(
            "soon",
            "tower_keep_rejections_total",
            &[("kind", "throttled")],
        )
    };
    // What it has rejected itself is in its window for a while.
    in_turn(&service, usual.into_iter().cycle().take(400)).await;
    let before = rejected();
    in_turn(&service, usual.into_iter().cycle().take(200)).await;
    assert_eq!((probability(), rejected()), (0.0, before));
    // What to watch next: in an outage it rejects still.
    in_turn(&service, [BAD; 2000]).await;
    assert!(probability() > 0.3, "{}", probability());
}

#[tokio::test(start_paused = true)]
async fn throttle_outlasts_the_outage() {
    let layer = ThrottleLayer::builder()
        .protocol(Plain::new())
        .name("throttle")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(upstream));
    let probability = || metric("throttle", "tower_keep_throttle_probability", &[]);
    in_turn(&service, [BAD; 500]).await;
    assert!(probability() > 0.9, "{}", probability());

    layer.handle().reset();
    assert_eq!(probability(), 0.0);
    assert_eq!(in_turn(&service, [good(1); 50]).await, 50);
}

/// Both ways: no recipe without its test, no test without its recipe.
#[test]
fn the_page_names_each_test() {
    let page = include_str!("../../src/guide/tuning.md");
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named = rows.filter_map(|row| row.trim_end_matches(" |").rsplit_once("| `"));
    let named: BTreeSet<_> = named
        .filter_map(|(_, test)| test.strip_suffix('`'))
        // An alert has capital letters.
        .filter(|test| {
            test.chars()
                .all(|letter| letter.is_lowercase() || letter == '_')
        })
        .collect();
    let tests = include_str!("tuning.rs").split("#[tokio::test(start_paused = true)]\nasync fn ");
    let tests: BTreeSet<_> = tests
        .skip(1)
        .filter_map(|test| test.split_once("()"))
        .map(|(name, _)| name)
        .collect();
    assert!(tests.len() >= 15, "{tests:?}");
    assert_eq!(named, tests);
}
