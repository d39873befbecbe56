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
    Rejected,
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

    /// The fields of all events, which are then forgotten.
    fn all(&self) -> Vec<Fields> {
        std::mem::take(&mut *self.events.lock().unwrap())
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
            let level = ("level", event.metadata().level().to_string());
            let fields = fields.0.into_iter().chain([level]).collect();
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
    let (injected, started): (Vec<_>, Vec<_>) = told
        .all()
        .into_iter()
        .partition(|event| event["message"] == "fault injected");
    assert_eq!((injected.len(), started.len()), (3, 1));
    assert_eq!(injected[0]["name"], "payments");
    assert_eq!(injected[0]["fault"], "error");
    assert_eq!(started[0]["message"], "faults started");
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
    let mut events = told.all();
    events.retain(|event| event.contains_key("from"));
    let seen: Vec<_> = events
        .iter()
        .map(|event| ["level", "message", "from", "to", "reason"].map(|field| &*event[field]))
        .collect();
    let expected = [
        ["WARN", "circuit opened", "closed", "open", "failure_rate"],
        [
            "INFO",
            "circuit probes",
            "open",
            "half_open",
            "open_elapsed",
        ],
        [
            "WARN",
            "circuit closed",
            "half_open",
            "closed",
            "probes_succeeded",
        ],
    ];
    assert_eq!(seen, expected);
    for event in events {
        assert_eq!(
            (&*event["layer"], &*event["name"]),
            ("circuit_breaker", "search")
        );
    }
}

/// A circuit for each tenant, of which the first call of a name fails.
fn tenants(
    show: bool,
) -> tower_keep::circuit_breaker::KeyedCircuitBreakerLayer<
    impl tower_keep::gate::FindKey<(&'static str, u32), &'static str>
    + tower_keep::keyed::HasKey<Key = &'static str>
    + Clone,
    Plain,
> {
    let builder = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(2)
        .open_for(Duration::from_secs(1))
        .jitter(false)
        .probes(1)
        .name("tenants")
        .keyed_by(|(tenant, _): &(&'static str, u32)| Some(*tenant));
    match show {
        true => builder.show_keys(ToString::to_string).build().unwrap(),
        false => builder.build().unwrap(),
    }
}

/// One `WARN` when it begins and one when it ends, however long it is.
#[tokio::test(start_paused = true)]
async fn an_outage_is_two_warnings() {
    let (told, _guard) = Told::listen();
    let service = tenants(true).layer(service_fn(|(_, call)| upstream(call)));
    let mut rejected = 0;
    for _ in 0..600 {
        for _ in 0..2 {
            let result = service.clone().oneshot(("acme", 0)).await;
            rejected += u64::from(Rejected::find(&*result.unwrap_err()).is_some());
        }
        advance(Duration::from_millis(100)).await;
    }
    advance(Duration::from_secs(1)).await;
    service.clone().oneshot(("acme", 1)).await.unwrap();
    let events = told.all();
    let warnings: Vec<_> = events
        .iter()
        .filter(|event| event["level"] == "WARN")
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let of = |event: &Fields, fields: [&str; 6]| fields.map(|field| event[field].clone());
    let opened = [
        "key",
        "reason",
        "calls",
        "failures",
        "threshold",
        "open_for",
    ];
    let threshold = "failure_rate 0.5 of at least 2 calls";
    let expected = ["acme", "failure_rate", "2", "2", threshold, "1s"];
    assert_eq!(of(warnings[0], opened), expected);
    let tells_dropped = |event: &Fields| event.contains_key("dropped");
    assert!(tells_dropped(warnings[0]) && !tells_dropped(warnings[1]));
    let closed = ["message", "key", "from", "to", "outage", "rejected"];
    let (outage, rejected) = ("61s", rejected.to_string());
    let expected = [
        "circuit closed",
        "acme",
        "half_open",
        "closed",
        outage,
        &rejected,
    ];
    assert_eq!(of(warnings[1], closed), expected);
    let probes = events
        .iter()
        .filter(|event| event["message"] == "circuit probes");
    let probes: Vec<_> = probes.map(|event| &*event["level"]).collect();
    assert!(
        probes.len() > 50 && probes.iter().all(|level| *level == "INFO"),
        "{probes:?}"
    );
}

/// The text of a key is in the events of transitions alone, and there only if it is shown.
#[tokio::test(start_paused = true)]
async fn a_key_is_redacted_unless_it_is_shown() {
    for (show, expected) in [(true, "acme-secret"), (false, "#")] {
        let (told, _guard) = Told::listen();
        let service = tenants(show).layer(service_fn(|(_, call)| upstream(call)));
        let mut rejections = Vec::new();
        for _ in 0..4 {
            let error = service
                .clone()
                .oneshot(("acme-secret", 0))
                .await
                .unwrap_err();
            rejections
                .extend(Rejected::find(&*error).map(|rejected| format!("{rejected:?} {rejected}")));
        }
        assert_eq!(rejections.len(), 2);
        let events = told.all();
        let (transitions, others): (Vec<_>, Vec<_>) =
            events.iter().partition(|event| event.contains_key("from"));
        assert!(
            transitions[0]["key"].starts_with(expected),
            "{transitions:?}"
        );
        assert_eq!(format!("{transitions:?}").contains("acme-secret"), show);
        assert!(!others.is_empty() && !format!("{others:?}{rejections:?}").contains("acme-secret"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_handle_tells_whose_rejection_it_is() {
    let layer = tenants(false);
    let service = layer.layer(service_fn(|(_, call)| upstream(call)));
    let mut rejected = None;
    for tenant in ["good", "acme"] {
        for _ in 0..3 {
            let result = service
                .clone()
                .oneshot((tenant, u32::from(tenant == "good")))
                .await;
            rejected = result
                .err()
                .and_then(|error| Rejected::find(&*error).cloned());
        }
    }
    let rejected = rejected.unwrap();
    assert_eq!(layer.handle().key_of(&rejected), Some("acme"));
    // Nor does another layer of the same name know of it, nor this one of a shared circuit's.
    assert_eq!(tenants(false).handle().key_of(&rejected), None);
    layer.handle().shared().force_open();
    let own = Rejected::new(rejected.kind, rejected.layer);
    assert_eq!(layer.handle().key_of(&own), None);
}

/// Panics at each transition that it is told of.
struct Panics;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Panics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Values::default();
        event.record(&mut fields);
        let is_transition = fields.0.iter().any(|(field, _)| *field == "from");
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
    assert_tells(&told, "limit", |burst| handle.set_rate(rate, burst));
    let layer = TimeoutLayer::builder(Duration::from_secs(1)).name("timeout");
    let handle = layer.build().unwrap().handle();
    assert_tells(&told, "timeout", |seconds| {
        handle.set_duration(Duration::from_secs(seconds.into()))
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
    assert_tells(&told, "limits", |burst| buckets.set_rate(rate, burst));
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
        (&*first[0]["kind"], &*first[0]["suppressed"]),
        ("rate_limited", "0")
    );
    // The rest is told when they have ended, though nobody calls.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ended = told.events("rejections ended");
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(
        (&*ended[0]["suppressed"], &*ended[0]["rejected"]),
        ("999", "1000")
    );
    for _ in 0..10 {
        let _ = service.clone().oneshot(1).await;
    }
    let second = told.events("rejected");
    assert_eq!(second.len(), 1);
    assert_eq!(second[0]["suppressed"], "0");
}

/// Each is told once: by an event of its own, with the next one, or when they have ended.
#[tokio::test(start_paused = true)]
async fn a_long_run_of_rejections_is_told_in_full() {
    let (told, _guard) = Told::listen();
    let limit = RateLimitLayer::builder(Rate::per_day(1))
        .burst(1)
        .name("run");
    let service = limit.build().unwrap().layer(service_fn(upstream));
    service.clone().oneshot(1).await.unwrap();
    for _ in 0..100 {
        assert!(service.clone().oneshot(1).await.is_err());
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let events = told.all();
    let number = |event: &Fields, field: &str| event[field].parse::<u64>().unwrap();
    let of = |message: &str| -> Vec<_> {
        events
            .iter()
            .filter(|event| event["message"] == message)
            .collect()
    };
    let (own, ended) = (of("rejected"), of("rejections ended"));
    assert!((6..=8).contains(&own.len()), "{own:?}");
    assert_eq!((ended.len(), number(ended[0], "rejected")), (1, 100));
    let suppressed: u64 = own
        .iter()
        .chain(&ended)
        .map(|event| number(event, "suppressed"))
        .sum();
    assert_eq!(suppressed + own.len() as u64, 100);
    assert!(
        ended[0]["lasted"].starts_with('7') || ended[0]["lasted"].starts_with('6'),
        "{ended:?}"
    );
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
async fn a_span_distinguishes_rejection_timeout_and_failure() {
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
