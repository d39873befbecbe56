//! A list of backends: which one answers, and why the others do not.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Deadline, Rejected, RejectedKind,
    algorithm::RetryBudget,
    circuit_breaker::CircuitBreakerLayer,
    fallback::{Backend, Spill, SpillReason, SpillReport},
    observe::Registry,
    protocol::{
        Advice, Sent,
        http::{Client, CloneBody, ReplayBody, provider},
    },
    rate_limit::{Rate, RateLimitLayer},
};

type Body = Full<Bytes>;
type Asked = Request<Body>;
type Answer = Response<Body>;

const SECOND: Duration = Duration::from_secs(1);

/// A model that answers with a status, and maybe a `Retry-After`, and counts its calls.
#[derive(Clone, Default)]
struct Model {
    answer: Arc<Mutex<(u16, Option<&'static str>)>>,
    calls: Arc<AtomicUsize>,
}

impl Model {
    fn new(status: u16) -> Self {
        let model = Self::default();
        model.answers(status, None);
        model
    }

    fn answers(&self, status: u16, after: Option<&'static str>) {
        *self.answer.lock().unwrap() = (status, after);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn service(
        &self,
    ) -> impl Service<Asked, Response = Answer, Error = BoxError, Future: Send + 'static>
    + Clone
    + Send
    + 'static {
        let model = self.clone();
        service_fn(move |request: Asked| {
            model.calls.fetch_add(1, Ordering::Relaxed);
            let (status, after) = *model.answer.lock().unwrap();
            async move {
                let mut answer = Response::new(request.into_body());
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                if let Some(after) = after {
                    let after = HeaderValue::from_static(after);
                    answer.headers_mut().insert("retry-after", after);
                }
                Ok::<_, BoxError>(answer)
            }
        })
    }
}

/// A model that answers 503 after a time.
fn answers_after(
    time: Duration,
) -> impl Service<Asked, Response = Answer, Error = BoxError, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    service_fn(move |request: Asked| async move {
        sleep(time).await;
        let answer = Response::builder().status(503);
        Ok::<_, BoxError>(answer.body(request.into_body()).unwrap())
    })
}

fn client() -> Client<CloneBody> {
    Client::new().idempotent_when(|_| true).clone_body()
}

fn prompt() -> Asked {
    Request::post("http://models.example/")
        .body(Full::from("prompt"))
        .unwrap()
}

fn report(answer: &Answer) -> SpillReport {
    answer.extensions().get::<SpillReport>().unwrap().clone()
}

fn reason((name, reason): &(&'static str, SpillReason)) -> (&'static str, &'static str) {
    (*name, reason.as_str())
}

fn two(first: &Model, second: &Model) -> Spill<Client<CloneBody>, Asked, Answer> {
    Spill::builder(client())
        .backend(Backend::new("first", first.service()))
        .backend(Backend::new("second", second.service()))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_that_can_answers() {
    let (first, second) = (Model::new(200), Model::new(200));
    let spill = two(&first, &second);
    let answer = spill.clone().oneshot(prompt()).await.unwrap();
    assert_eq!(report(&answer).answered_by, Some("first"));
    first.answers(503, None);
    let answer = spill.clone().oneshot(prompt()).await.unwrap();
    let told = report(&answer);
    assert_eq!(told.answered_by, Some("second"));
    let (name, reason) = &told.passed_over[0];
    assert_eq!((*name, reason.as_str()), ("first", "failed"));
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "prompt"
    );
    // An answer that no retry would mend stands.
    first.answers(404, None);
    assert_eq!(spill.clone().oneshot(prompt()).await.unwrap().status(), 404);
    let counts = spill.handle().snapshot();
    assert_eq!(
        (counts[0].answered, counts[0].failed, counts[1].answered),
        (2, 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_its_own_stack_goes_on() {
    let (first, second, third) = (Model::new(200), Model::new(200), Model::new(200));
    let limit = RateLimitLayer::builder(Rate::per_day(1))
        .protocol(Client::new())
        .build()
        .unwrap();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Client::new())
        .build()
        .unwrap();
    breaker.handle().force_open();
    let spill = Spill::builder(Client::new().clone_body().composite(false))
        .backend(Backend::new("limited", limit.layer(first.service())))
        .backend(Backend::new("open", breaker.layer(second.service())))
        .backend(Backend::new("free", third.service()))
        .build()
        .unwrap();
    assert_eq!(spill.clone().oneshot(prompt()).await.unwrap().status(), 200);
    // A POST that nobody calls idempotent: it was not sent.
    let answer = spill.oneshot(prompt()).await.unwrap();
    let told = report(&answer);
    assert_eq!(told.answered_by, Some("free"));
    let reasons: Vec<_> = told
        .passed_over
        .into_iter()
        .map(|(_, reason)| reason)
        .collect();
    let rejected =
        [RejectedKind::RateLimited, RejectedKind::CircuitOpen].map(SpillReason::Rejected);
    assert_eq!(reasons, rejected);
    assert_eq!((first.calls(), second.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_post_that_may_have_had_an_effect_stays() {
    let (first, second) = (Model::new(503), Model::new(200));
    let spill = Spill::builder(Client::new().clone_body().composite(false))
        .backend(Backend::new("first", first.service()))
        .backend(Backend::new("second", second.service()))
        .build()
        .unwrap();
    let answer = spill.oneshot(prompt()).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(report(&answer).answered_by, None);
    assert_eq!(second.calls(), 0);
}

/// An overload says "not here, not now", which says nothing about the next backend.
#[tokio::test(start_paused = true)]
async fn an_overload_goes_on_without_a_hint() {
    for (status, field) in [
        (429, "x-ratelimit-reset-requests"),
        (429, "x-other"),
        (529, "x-other"),
    ] {
        let busy = service_fn(move |_: Asked| {
            let answer = Response::builder().status(status).header(field, "1s");
            std::future::ready(Ok::<_, BoxError>(answer.body(Body::default()).unwrap()))
        });
        let spill = Spill::builder(client().strict().provider(provider::openai()))
            .backend(Backend::new("busy", busy).cooldown(SECOND))
            .backend(Backend::new("idle", Model::new(200).service()))
            .build()
            .unwrap();
        let answer = spill.clone().oneshot(prompt()).await.unwrap();
        let told = report(&answer);
        assert_eq!(told.answered_by, Some("idle"), "{status}: {told}");
        assert_eq!(reason(&told.passed_over[0]), ("busy", "failed"));
        assert_eq!(spill.handle().snapshot()[0].pause, Some(SECOND));
    }
}

/// An overloaded upstream may have acted, unless the protocol knows that this one has not.
#[tokio::test(start_paused = true)]
async fn an_overload_of_a_post_needs_a_proof() {
    let client = Client::new().clone_body().composite(false);
    let unprocessed = Advice::Retry {
        sent: Sent::No,
        after: None,
    };
    let knowing = client.advise(move |status, _| (status == 429).then_some(unprocessed));
    for (client, expected) in [(client, 429), (knowing, 200)] {
        let spill = Spill::builder(client)
            .backend(Backend::new("busy", Model::new(429).service()))
            .backend(Backend::new("idle", Model::new(200).service()))
            .build()
            .unwrap();
        assert_eq!(spill.oneshot(prompt()).await.unwrap().status(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_later_of_two_pauses_stands() {
    let (first, second) = (Model::new(429), Model::new(200));
    let spill = two(&first, &second);
    first.answers(429, Some("30"));
    let slow = spill.clone();
    assert!(slow.oneshot(prompt()).await.is_ok());
    assert_eq!(spill.handle().snapshot()[0].pause, Some(30 * SECOND));
    advance(10 * SECOND).await;
    let told = report(&spill.clone().oneshot(prompt()).await.unwrap());
    assert_eq!(
        told.passed_over,
        [("first", SpillReason::Cooling(20 * SECOND))]
    );
    // Whatever a call that began before says.
    spill.handle().reset();
    first.answers(429, Some("100"));
    assert!(spill.clone().oneshot(prompt()).await.is_ok());
    assert_eq!(first.calls(), 2);
    advance(100 * SECOND).await;
    first.answers(200, None);
    let told = report(&spill.oneshot(prompt()).await.unwrap());
    assert_eq!(told.answered_by, Some("first"));
}

#[tokio::test(start_paused = true)]
async fn no_answer_pauses_a_backend_for_over_an_hour() {
    let (first, second) = (Model::new(503), Model::new(200));
    first.answers(503, Some("9999999999"));
    let spill = two(&first, &second);
    assert!(spill.clone().oneshot(prompt()).await.is_ok());
    assert_eq!(spill.handle().snapshot()[0].pause, Some(3600 * SECOND));
    advance(3600 * SECOND).await;
    first.answers(200, None);
    let told = report(&spill.oneshot(prompt()).await.unwrap());
    assert_eq!(told.answered_by, Some("first"));
}

#[tokio::test(start_paused = true)]
async fn the_last_resort_ignores_pauses() {
    let (first, second) = (Model::new(429), Model::new(429));
    first.answers(429, Some("60"));
    second.answers(429, Some("90"));
    let spill = Spill::builder(client())
        .backend(Backend::new("first", first.service()).last_resort())
        .backend(Backend::new("second", second.service()))
        .without_budget()
        .build()
        .unwrap();
    // The failure of the last one that was asked.
    assert_eq!(spill.clone().oneshot(prompt()).await.unwrap().status(), 429);
    assert_eq!((first.calls(), second.calls()), (2, 1));
    first.answers(200, None);
    let answer = spill.clone().oneshot(prompt()).await.unwrap();
    assert_eq!(report(&answer).answered_by, Some("first"));
    assert_eq!((first.calls(), second.calls()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn if_all_pause_the_error_says_for_how_long() {
    let (first, second) = (Model::new(429), Model::new(429));
    first.answers(429, Some("60"));
    second.answers(429, Some("90"));
    let spill = two(&first, &second);
    assert_eq!(spill.clone().oneshot(prompt()).await.unwrap().status(), 429);
    let error = spill.clone().oneshot(prompt()).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!(
        (rejected.kind, rejected.layer),
        (RejectedKind::CircuitOpen, "spill")
    );
    assert_eq!(rejected.retry_after, Some(60 * SECOND));
    let told = SpillReport::find(&*error).unwrap();
    let told: Vec<_> = told.passed_over.iter().map(reason).collect();
    assert_eq!(told, [("first", "cooling"), ("second", "cooling")]);
}

#[tokio::test]
async fn an_error_tells_who_was_asked() {
    let busy = Model::new(503);
    let refuses = service_fn(async |_: Asked| Err::<Answer, BoxError>(fmt::Error.into()));
    let spill = Spill::builder(client())
        .backend(Backend::new("busy", busy.service()))
        .backend(Backend::new("strict", refuses))
        .build()
        .unwrap();
    let error = spill.oneshot(prompt()).await.unwrap_err();
    let told = SpillReport::find(&*error).unwrap();
    let others: Vec<_> = told.passed_over.iter().map(reason).collect();
    assert_eq!(others[0], ("busy", "failed"));
    assert!(error.to_string().contains("busy failed: "), "{error}");
    assert!(error.source().unwrap().is::<fmt::Error>());
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_follows_a_failure_without_a_hint() {
    let (first, second) = (Model::new(503), Model::new(200));
    let spill = Spill::builder(client())
        .backend(Backend::new("first", first.service()).cooldown(5 * SECOND))
        .backend(Backend::new("second", second.service()))
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(spill.clone().oneshot(prompt()).await.unwrap().status(), 200);
    }
    assert_eq!(first.calls(), 1);
    advance(5 * SECOND).await;
    assert_eq!(spill.clone().oneshot(prompt()).await.unwrap().status(), 200);
    assert_eq!(first.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_rewritten_for_its_backend_alone() {
    let echo = |name: &'static str| {
        service_fn(move |request: Asked| async move {
            let status = if name == "small" { 200 } else { 503 };
            let mut answer = Response::builder().status(status);
            for (field, value) in request.headers() {
                answer = answer.header(field, value);
            }
            Ok::<_, BoxError>(answer.body(request.into_body()).unwrap())
        })
    };
    let rewrite = |model: &'static str| {
        move |request: &mut Asked| {
            let value = HeaderValue::from_static(model);
            request.headers_mut().append("x-model", value);
            *request.body_mut() = Full::from(model);
        }
    };
    let spill = Spill::builder(client())
        .backend(Backend::new("large", echo("large")).rewrite(rewrite("large")))
        .backend(Backend::new("small", echo("small")).rewrite(rewrite("small")))
        .build()
        .unwrap();
    let answer = spill.oneshot(prompt()).await.unwrap();
    let models: Vec<_> = answer.headers().get_all("x-model").iter().collect();
    assert_eq!(models, ["small"]);
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "small"
    );
}

#[tokio::test(start_paused = true)]
async fn a_predicate_chooses_by_request_and_by_answer() {
    let (short, long) = (Model::new(200), Model::new(200));
    let is_short = |request: &Asked| {
        let length = request.headers().get("x-length");
        length.is_none_or(|length| length.len() < 3)
    };
    let spill = Spill::builder(client())
        .backend(Backend::new("short", short.service()).accepts(is_short))
        .backend(Backend::new("long", long.service()))
        .wants(|result| result.is_ok_and(|answer| answer.status() != 418))
        .build()
        .unwrap();
    let mut large = prompt();
    large
        .headers_mut()
        .insert("x-length", "1000".parse().unwrap());
    let told = report(&spill.clone().oneshot(large.clone()).await.unwrap());
    assert_eq!(told.passed_over, [("short", SpillReason::Unfit)]);
    short.answers(418, None);
    let told = report(&spill.clone().oneshot(prompt()).await.unwrap());
    assert_eq!(told.passed_over[0].1.as_str(), "unwanted");
    let only = Spill::builder(client())
        .backend(Backend::new("short", short.service()).accepts(is_short))
        .build()
        .unwrap();
    let error = only.oneshot(large).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::CostTooHigh
    );
}

#[tokio::test(start_paused = true)]
async fn one_budget_bounds_the_whole() {
    let (first, second) = (Model::new(503), Model::new(200));
    let spill = Spill::builder(client())
        .backend(Backend::new("first", first.service()))
        .backend(Backend::new("second", second.service()))
        .budget(RetryBudget::new(3, 0.01).unwrap())
        .build()
        .unwrap();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(
            spill
                .clone()
                .oneshot(prompt())
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 200, 200, 503, 503]);
    assert_eq!(spill.handle().snapshot()[1].unpaid, 2);
}

#[tokio::test(start_paused = true)]
async fn one_deadline_bounds_the_whole() {
    let hangs = service_fn(async |request: Asked| {
        let left = request.extensions().get::<Deadline>().unwrap().remaining();
        assert!(left <= 3 * SECOND, "{left:?}");
        pending::<Result<Answer, BoxError>>().await
    });
    let spill = Spill::builder(client())
        .backend(Backend::new("first", hangs))
        .backend(Backend::new("second", Model::new(200).service()))
        .total_timeout(3 * SECOND)
        .build()
        .unwrap();
    let start = Instant::now();
    let error = spill.clone().oneshot(prompt()).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::TimedOut
    );
    assert_eq!(start.elapsed(), 3 * SECOND);
    let told = SpillReport::find(&*error).unwrap();
    let told: Vec<_> = told.passed_over.iter().map(reason).collect();
    assert_eq!(told, [("first", "out_of_time")]);
    let first = spill.handle().snapshot()[0];
    assert_eq!((first.failed, first.out_of_time), (0, 1));
    let mut late = prompt();
    late.extensions_mut()
        .insert(Deadline::after(Duration::ZERO));
    let error = spill.oneshot(late).await.unwrap_err();
    assert_eq!(
        Rejected::find(&*error).unwrap().kind,
        RejectedKind::DeadlineExceeded
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_stands_if_the_next_one_hangs() {
    let spill = Spill::builder(client())
        .backend(Backend::new("first", answers_after(2 * SECOND)))
        .backend(Backend::new("second", answers_after(2 * SECOND)))
        .total_timeout(3 * SECOND)
        .build()
        .unwrap();
    let start = Instant::now();
    let answer = spill.clone().oneshot(prompt()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), start.elapsed()),
        (503, 3 * SECOND)
    );
    let told = report(&answer);
    assert_eq!(told.answered_by, None);
    let told: Vec<_> = told.passed_over.iter().map(reason).collect();
    assert_eq!(told, [("first", "failed"), ("second", "out_of_time")]);
    let second = spill.handle().snapshot()[1];
    assert_eq!((second.failed, second.out_of_time), (0, 1));
}

/// The first result would be a proof that nothing was processed, though the second backend hangs
/// with the request.
#[tokio::test(start_paused = true)]
async fn a_hang_after_an_unsent_post_is_a_timeout() {
    let unprocessed = Advice::Retry {
        sent: Sent::No,
        after: None,
    };
    let client = Client::new().clone_body().composite(false);
    let knowing = client.advise(move |status, _| (status == 503).then_some(unprocessed));
    let limit = RateLimitLayer::builder(Rate::per_day(1))
        .protocol(client)
        .build()
        .unwrap();
    limit.handle().charge(1);
    let first = Model::new(503);
    let list = |client, first| {
        Spill::builder(client)
            .backend(first)
            .backend(Backend::new("hangs", answers_after(60 * SECOND)))
            .total_timeout(SECOND)
            .build()
            .unwrap()
    };
    for spill in [
        list(client, Backend::new("first", limit.layer(first.service()))),
        list(knowing, Backend::new("first", first.service())),
    ] {
        let error = spill.oneshot(prompt()).await.unwrap_err();
        let rejected = Rejected::find(&*error).unwrap();
        assert_eq!(
            (rejected.kind, rejected.layer),
            (RejectedKind::TimedOut, "spill")
        );
    }
    assert_eq!(first.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_backend_is_asked_at_the_deadline() {
    for slow in [SECOND, 2 * SECOND] {
        let second = Model::new(200);
        // Ready at the deadline.
        let gate = tower::limit::ConcurrencyLimit::new(second.service(), 1);
        let mut held = gate.clone();
        held.ready().await.unwrap();
        tokio::spawn(async move {
            sleep(2 * SECOND).await;
            drop(held);
        });
        let spill = Spill::builder(client())
            .backend(Backend::new("first", answers_after(slow)))
            .backend(Backend::new("second", gate))
            .total_timeout(2 * SECOND)
            .build()
            .unwrap();
        let answer = spill.oneshot(prompt()).await.unwrap();
        assert_eq!((answer.status().as_u16(), second.calls()), (503, 0));
        let told: Vec<_> = report(&answer).passed_over.iter().map(reason).collect();
        assert_eq!(told, [("first", "failed"), ("second", "out_of_time")]);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_replayed_as_a_retry_does() {
    let read = |status: u16| {
        service_fn(move |request: Request<ReplayBody<Body>>| async move {
            let body = request.into_body().collect().await?.to_bytes();
            let answer = Response::builder().status(status);
            Ok::<_, BoxError>(answer.body(Full::from(body)).unwrap())
        })
    };
    let spill = Spill::builder(Client::new().idempotent_when(|_| true).body_limit(10))
        .backend(Backend::new("first", read(503)))
        .backend(Backend::new("second", read(200)))
        .build()
        .unwrap();
    let ask = |body: &'static str| {
        let request = Request::post("http://models.example/")
            .body(Full::from(body))
            .unwrap();
        spill.clone().oneshot(request)
    };
    let answer: Answer = ask("prompt").await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "prompt"
    );
    // Too long to be kept: the failure stands.
    let answer = ask("a very long prompt").await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(report(&answer).passed_over.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_any_length_is_of_one_type() {
    let models: Vec<_> = (0..20).map(|_| Model::new(503)).collect();
    models[19].answers(200, None);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut builder = Spill::builder(client()).without_budget();
    for (place, model) in models.iter().enumerate() {
        let name = format!("{}{}", names[place % 10], place / 10);
        builder = builder.backend(Backend::new(name, model.service()));
    }
    let spill: Spill<Client<CloneBody>, Asked, Answer> = builder.build().unwrap();
    let answer = spill.oneshot(prompt()).await.unwrap();
    assert_eq!(report(&answer).answered_by, Some("j1"));
    assert_eq!(report(&answer).passed_over.len(), 19);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let none: Result<Spill<_, Asked, Answer>, _> = Spill::builder(client()).build();
    assert_eq!(none.unwrap_err().field, "backend");
    let model = Model::new(200);
    let twice = Spill::builder(client())
        .backend(Backend::new("one", model.service()))
        .backend(Backend::new("one", model.service()));
    assert_eq!(twice.build().unwrap_err().field, "backend");
    let never = Spill::builder(client())
        .backend(Backend::new("one", model.service()))
        .total_timeout(Duration::ZERO);
    assert_eq!(never.build().unwrap_err().field, "total_timeout");
}

#[test]
fn a_named_list_is_known_to_the_registry() {
    let registry = Registry::new();
    let model = Model::new(200);
    let spill = registry.with(|| {
        Spill::builder(client())
            .backend(Backend::new("one", model.service()))
            .name("models")
            .build()
            .unwrap()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(spill.clone().oneshot(prompt())).unwrap();
    let seen = format!("{:?}", registry.snapshot());
    assert!(seen.contains("(\"one\", \"answered\", 1)"), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_its_token_back() {
    let budget = Arc::new(RetryBudget::new(1, 0.01).unwrap().into());
    let hangs = service_fn(async |_: Asked| pending::<Result<Answer, BoxError>>().await);
    let gate = tower::limit::ConcurrencyLimit::new(hangs, 1);
    // The only place is taken, so the second backend is never ready.
    let taken = gate.clone();
    let _held = tokio::spawn(taken.oneshot(prompt()));
    tokio::task::yield_now().await;
    let first = Model::new(503);
    let spill = Spill::builder(client())
        .backend(Backend::new("first", first.service()))
        .backend(Backend::new("second", gate))
        .budget(Arc::clone(&budget))
        .build()
        .unwrap();
    let call = spill.oneshot(prompt());
    assert!(tokio::time::timeout(SECOND, call).await.is_err());
    let budget: &tower_keep::algorithm::Budget = &budget;
    assert_eq!(budget.available(0), 1);
}
