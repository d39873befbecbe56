//! What `tracing` gets: an event for each transition and each change of settings, a sample of the
//! rejections, and two fields of the caller's span.

use std::{
    collections::BTreeMap,
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::advance;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_keep::{
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    hedge::HedgeLayer,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    retry::{Backoff, RetryLayer},
    stack,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};
use tracing::{
    Event, Instrument, Subscriber,
    field::{Empty, Field, Visit},
    info_span,
    span::{Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    layer::{Context, SubscriberExt},
    registry,
};

type Fields = BTreeMap<&'static str, String>;

/// What was told, since a guard was made.
#[derive(Clone, Default)]
struct Told {
    events: Arc<Mutex<Vec<Fields>>>,
    recorded: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Told {
    fn listen() -> (Self, DefaultGuard) {
        let told = Self::default();
        let guard = tracing::subscriber::set_default(registry().with(told.clone()));
        (told, guard)
    }

    /// The fields of this crate's events with this message, which are then forgotten.
    fn events(&self, message: &str) -> Vec<Fields> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        let own = events.into_iter();
        own.filter(|event| event["message"] == message).collect()
    }

    /// What the span had recorded last, of attempt and outcome.
    fn span(&self) -> (String, String) {
        let recorded = std::mem::take(&mut *self.recorded.lock().unwrap());
        let last = |field: &str| {
            let found = recorded.iter().rev().find(|(name, _)| *name == field);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        (last("tower_keep.attempt"), last("tower_keep.outcome"))
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Told {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "tower_keep" {
            let mut fields = Values::default();
            event.record(&mut fields);
            let fields = fields.0.into_iter().collect();
            self.events.lock().unwrap().push(fields);
        }
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut fields = Values::default();
        values.record(&mut fields);
        self.recorded.lock().unwrap().extend(fields.0);
    }
}

#[derive(Default)]
struct Values(Vec<(&'static str, String)>);

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}

async fn upstream(call: u32) -> Result<u32, BoxError> {
    match call {
        0 => Err("as told".into()),
        _ => Ok(call),
    }
}

#[cfg(feature = "fault")]
#[tokio::test(start_paused = true)]
async fn a_run_of_faults_is_one_event_at_each_end() {
    use tower_keep::fault::{Fault, FaultLayer};

    let (told, _guard) = Told::listen();
    let faults = FaultLayer::builder("game day, 12 March")
        .protocol(Plain::new())
        .fault(Fault::error(|_: &u32| "injected"))
        .name("payments")
        .build()
        .unwrap();
    let service = faults.layer(service_fn(upstream));
    faults.handle().start_for(Duration::from_secs(600));
    for _ in 0..3 {
        service.clone().oneshot(1).await.unwrap_err();
    }
    let started = told.events("faults started");
    assert_eq!(started.len(), 1);
    assert_eq!(started[0]["layer"], "fault");
    assert_eq!(started[0]["name"], "payments");
    assert_eq!(started[0]["reason"], "game day, 12 March");
    assert_eq!(started[0]["lasting"], "600s");

    // Nobody calls or looks: the end is told all the same.
    tokio::time::sleep(Duration::from_secs(601)).await;
    let ended = told.events("faults ended");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["reason"], "game day, 12 March");
    assert_eq!(ended[0]["because"], "its time is over");
    assert_eq!(ended[0]["injected"], "3");

    faults.handle().start_for(Duration::from_secs(600));
    faults.handle().stop();
    faults.handle().stop();
    let ended = told.events("faults ended");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["because"], "stopped");
}

#[tokio::test(start_paused = true)]
async fn each_transition_is_one_event() {
    let (told, _guard) = Told::listen();
    let layer = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(2)
        .open_for(Duration::from_secs(5))
        .jitter(false)
        .probes(1)
        .name("search")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(upstream));
    for call in [0, 0, 1, 1] {
        let _ = service.clone().oneshot(call).await;
    }
    advance(Duration::from_secs(6)).await;
    for call in [1, 1, 1] {
        service.clone().oneshot(call).await.unwrap();
    }
    let events = told.events("transition");
    let seen: Vec<_> = events
        .iter()
        .map(|event| (&*event["from"], &*event["to"], &*event["reason"]))
        .collect();
    let expected = [
        ("closed", "open", "failure_rate"),
        ("open", "half_open", "open_elapsed"),
        ("half_open", "closed", "probes_succeeded"),
    ];
    assert_eq!(seen, expected);
    for event in events {
        assert_eq!(
            (&*event["layer"], &*event["name"]),
            ("circuit_breaker", "search")
        );
    }
}

/// Panics at each transition that it is told of.
struct Panics;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Panics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Values::default();
        event.record(&mut fields);
        let is_transition = fields.0.contains(&("message", "transition".into()));
        assert!(!is_transition, "on purpose");
    }
}

#[test]
fn a_panic_while_traced_loses_no_transition() {
    let layer = CircuitBreakerLayer::builder().protocol(Plain::new());
    let handle = layer.build().unwrap().handle();
    let mut transitions = handle.transitions();
    let subscriber = tracing_subscriber::registry().with(Panics);
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..100 {
            let reset = std::panic::AssertUnwindSafe(|| handle.reset());
            assert!(std::panic::catch_unwind(reset).is_err());
            assert!(transitions.try_next().is_some());
        }
    });
    assert_eq!(handle.snapshot().last_transition.unwrap().generation, 100);
}

/// One event for a change, none for one that changes nothing and for one that is refused.
fn assert_tells<E>(
    told: &Told,
    what: &str,
    update: impl Fn(u32) -> Result<tower_keep::Changed, E>,
) {
    assert!(!update(7).ok().unwrap().is_empty(), "{what}");
    let events = told.events("updated");
    assert_eq!(events.len(), 1, "{what}: {events:?}");
    assert_eq!(events[0]["name"], what);
    assert!(events[0]["settings"].contains('7'), "{events:?}");
    assert!(update(7).ok().unwrap().is_empty(), "{what}");
    assert!(update(0).is_err(), "{what}");
    assert_eq!(told.events("updated"), [], "{what}");
}

#[tokio::test(start_paused = true)]
async fn each_change_of_settings_is_one_event() {
    let (told, _guard) = Told::listen();
    let breaker = CircuitBreakerLayer::builder().protocol(Plain::new());
    let layer = breaker.name("breaker").build().unwrap();
    let handle = layer.handle();
    assert_tells(&told, "breaker", |calls| {
        let mut config = handle.config();
        config.min_calls = calls;
        handle.update(config)
    });
    let layer = BulkheadLayer::builder(1).name("bulkhead").build().unwrap();
    let handle = layer.handle();
    assert_tells(&told, "bulkhead", |limit| handle.set_limit(limit as usize));
    let rate = Rate::per_second(10);
    let layer = RateLimitLayer::builder(rate).name("limit").build().unwrap();
    let handle = layer.handle();
    assert_tells(&told, "limit", |burst| handle.update(rate, burst));
    let layer = TimeoutLayer::builder(Duration::from_secs(1)).name("timeout");
    let handle = layer.build().unwrap().handle();
    assert_tells(&told, "timeout", |seconds| {
        handle.update(Duration::from_secs(seconds.into()))
    });
    let retry = RetryLayer::builder().protocol(Plain::new().idempotent());
    let handle = retry.name("retry").build().unwrap().handle();
    assert_tells(&told, "retry", |attempts| {
        let mut config = handle.config();
        config.attempts = attempts;
        handle.update(config)
    });
    let throttle = ThrottleLayer::builder().protocol(Plain::new());
    let handle = throttle.name("multiplied").build().unwrap().handle();
    assert_tells(&told, "multiplied", |multiplier| {
        let mut config = handle.config();
        config.multiplier = multiplier.into();
        handle.update(config)
    });
    let hedge = HedgeLayer::builder().protocol(Plain::new().idempotent());
    let handle = hedge.name("hedge").build().unwrap().handle();
    assert_tells(&told, "hedge", |hedges| {
        let mut config = handle.config();
        config.max_hedges = hedges as usize;
        handle.update(config)
    });
}

/// Of keys and stacks: one for all keys, and one for each part that changes.
#[tokio::test(start_paused = true)]
async fn a_change_of_many_keys_is_one_event() {
    let (told, _guard) = Told::listen();
    let by_key = |call: &u32| Some(*call);
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .keyed_by(by_key);
    let breaker = breaker.name("breakers").build().unwrap();
    let bulkhead = BulkheadLayer::builder(1)
        .keyed_by(by_key)
        .name("bulkheads")
        .build()
        .unwrap();
    let rate = Rate::per_second(10);
    let limit = RateLimitLayer::builder(rate)
        .keyed_by(by_key)
        .name("limits")
        .build()
        .unwrap();
    let (circuits, places) = (breaker.handle(), bulkhead.handle());
    let buckets = limit.handle();
    let layers = ServiceBuilder::new()
        .layer(breaker)
        .layer(limit)
        .layer(bulkhead);
    let service = layers.service(service_fn(upstream));
    for call in 1..=5 {
        service.clone().oneshot(call).await.unwrap();
    }
    assert_tells(&told, "breakers", |calls| {
        let mut config = circuits.shared().config();
        config.min_calls = calls;
        circuits.update(config)
    });
    assert_tells(&told, "bulkheads", |limit| places.set_limit(limit as usize));
    assert_tells(&told, "limits", |burst| buckets.update(rate, burst));
}

#[tokio::test(start_paused = true)]
async fn a_stack_tells_of_each_part_that_changes() {
    let (told, _guard) = Told::listen();
    let stack = stack::client().http().name("stack").build().unwrap();
    let changes = stack::Changes::new()
        .max_in_flight(7)
        .attempt_timeout(Duration::from_secs(2));
    stack.handle().update(changes).unwrap();
    let events = told.events("updated");
    let mut layers: Vec<_> = events.iter().map(|event| &*event["layer"]).collect();
    layers.sort_unstable();
    assert_eq!(layers, ["bulkhead", "timeout"]);
}

#[tokio::test(start_paused = true)]
async fn rejections_are_sampled() {
    let (told, _guard) = Told::listen();
    let layer = RateLimitLayer::builder(Rate::per_day(1))
        .burst(1)
        .name("full")
        .build()
        .unwrap();
    let service = layer.layer(service_fn(upstream));
    for _ in 0..=1000 {
        let _ = service.clone().oneshot(1).await;
    }
    let first = told.events("rejected");
    assert_eq!(first.len(), 1);
    assert_eq!(
        (&*first[0]["kind"], &*first[0]["untold"]),
        ("rate_limited", "0")
    );
    advance(Duration::from_secs(2)).await;
    for _ in 0..10 {
        let _ = service.clone().oneshot(1).await;
    }
    let second = told.events("rejected");
    assert_eq!(second.len(), 1);
    assert_eq!(second[0]["untold"], "999");
}

#[tokio::test(start_paused = true)]
async fn each_retry_is_one_event() {
    let (told, _guard) = Told::listen();
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .backoff(Backoff::constant(Duration::from_millis(70)))
        .name("told")
        .build()
        .unwrap();
    let service = retry.layer(service_fn(upstream));
    assert!(service.clone().oneshot(0).await.is_err());
    assert_eq!(service.oneshot(1).await.unwrap(), 1);
    let events = told.events("retrying");
    let told = |event: &Fields| {
        ["layer", "name", "attempt", "wait", "outcome", "result"].map(|name| event[name].clone())
    };
    assert_eq!(events.len(), 2);
    assert_eq!(
        told(&events[0]),
        ["retry", "told", "1", "70ms", "Failure", "as told"]
    );
    assert_eq!(told(&events[1])[2], "2");
}

#[tokio::test(start_paused = true)]
async fn the_span_tells_how_often_a_call_was_resent() {
    let (told, _guard) = Told::listen();
    let retry = RetryLayer::builder().protocol(Plain::new().idempotent());
    let service = retry.build().unwrap().layer(service_fn(upstream));
    for (call, expected) in [(1, vec![]), (0, vec!["1", "2"])] {
        let span = info_span!("call", http.request.resend_count = Empty);
        let _ = service.clone().oneshot(call).instrument(span).await;
        let recorded = std::mem::take(&mut *told.recorded.lock().unwrap());
        let counts = recorded
            .iter()
            .filter(|(name, _)| *name == "http.request.resend_count");
        let counts: Vec<_> = counts.map(|(_, count)| count.as_str()).collect();
        assert_eq!(counts, expected);
    }
}

/// A call in a span that has declared the fields, and what they then hold.
async fn in_span<S, Req>(told: &Told, service: S, request: Req) -> (String, String)
where
    S: Service<Req>,
{
    let span = info_span!(
        "call",
        tower_keep.attempt = Empty,
        tower_keep.outcome = Empty
    );
    let _ = service.oneshot(request).instrument(span).await;
    told.span()
}

#[tokio::test(start_paused = true)]
async fn the_span_holds_attempt_and_outcome() {
    let (told, _guard) = Told::listen();
    let protocol = Plain::new().idempotent();
    let retry = RetryLayer::builder().protocol(protocol).build().unwrap();
    let breaker = CircuitBreakerLayer::builder().protocol(protocol);
    // How many attempts fail.
    let bad = Arc::new(AtomicUsize::new(0));
    let fails = bad.clone();
    let layers = ServiceBuilder::new()
        .layer(retry.clone())
        .layer(breaker.build().unwrap());
    let service = layers.service(service_fn(move |call: u32| {
        let left = fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        upstream(if left.is_ok() { 0 } else { call })
    }));
    let holds = |attempt: &str, outcome: &str| (attempt.to_owned(), outcome.to_owned());
    for (failures, attempt, outcome) in [
        (0, "1", "success"),
        (1, "2", "success"),
        (3, "3", "failure"),
    ] {
        bad.store(failures, Ordering::Relaxed);
        let seen = in_span(&told, service.clone(), 1).await;
        assert_eq!(seen, holds(attempt, outcome), "after {failures} failures");
    }
    // A retry alone knows it as well.
    let alone = retry.layer(service_fn(upstream));
    assert_eq!(
        in_span(&told, alone.clone(), 0).await,
        holds("3", "failure")
    );
    assert_eq!(in_span(&told, alone, 1).await, holds("1", "success"));
    // A span without the fields gets nothing.
    let _ = service.oneshot(1).instrument(info_span!("plain")).await;
    assert_eq!(told.span(), holds("", ""));
}

#[tokio::test(start_paused = true)]
async fn the_span_tells_rejections_and_timeouts_from_failures() {
    let (told, _guard) = Told::listen();
    let breaker = CircuitBreakerLayer::builder().protocol(Plain::new());
    let breaker = breaker.build().unwrap();
    let full = BulkheadLayer::builder(1).build().unwrap();
    let hangs = || service_fn(|_: u32| pending::<Result<u32, BoxError>>());
    let held = full.layer(hangs());
    let mut held = Box::pin(held.oneshot(1));
    assert!(futures::poll!(&mut held).is_pending());
    let layers = ServiceBuilder::new().layer(breaker).layer(full);
    let service = layers.service(service_fn(upstream));
    assert_eq!(in_span(&told, service, 1).await.1, "rejected");

    let timeout = TimeoutLayer::builder(Duration::from_secs(1));
    let service = timeout.build().unwrap().layer(hangs());
    assert_eq!(in_span(&told, service, 1).await.1, "timeout");
}

/// A call on another runtime is in its caller's span, whose subscriber hears of it.
#[test]
fn a_call_elsewhere_stays_in_its_callers_span() {
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let here = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (told, _guard) = Told::listen();
    let layer = BulkheadLayer::builder(1).build().unwrap();
    let service = layer
        .on_runtime(elsewhere.handle().clone())
        .layer(service_fn(async |number: u32| {
            tokio::task::yield_now().await;
            let span = tracing::Span::current();
            span.record("tower_keep.outcome", "seen");
            tracing::info!(target: "tower_keep", number, "in the call");
            Ok::<_, BoxError>(span.metadata().map(|span| span.name()))
        }));
    let span = info_span!("caller", tower_keep.outcome = Empty);
    let found = here.block_on(service.oneshot(7).instrument(span));
    assert_eq!(found.unwrap(), Some("caller"));
    let events = told.events("in the call");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["number"], "7");
    assert!(!told.recorded.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn advice_is_logged_on_request() {
    let (told, _guard) = Told::listen();
    let registry = tower_keep::observe::Registry::new();
    let layer = registry.with(|| BulkheadLayer::builder(1).name("advised").build());
    let service = layer.unwrap().layer(service_fn(async |(): ()| {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, BoxError>(())
    }));
    let calls = (0..3).map(|_| service.clone().oneshot(()));
    futures::future::join_all(calls).await;
    let said = registry.log_advice();
    let events = std::mem::take(&mut *told.events.lock().unwrap());
    let logged = events
        .iter()
        .filter(|event| event["message"].starts_with("advice: "));
    let logged: Vec<_> = logged.collect();
    assert_eq!((said.len(), logged.len()), (1, 1));
    let field = |name: &str| logged[0][name].as_str();
    assert_eq!((field("name"), field("setting")), ("advised", "limit"));
    assert_eq!(
        (field("better"), field("alert")),
        ("2", "BulkheadNearlyFull")
    );
}
