//! Parts of stacks together: audits, drains, hedges, fallbacks, settings of calls and changes.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{
    convert::Infallible,
    future::ready,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request as AxumRequest,
    routing::{Route, get},
};
use bytes::Bytes;
use futures::poll;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION, request::Parts};
use http_body_util::{Empty, combinators::UnsyncBoxBody};
use tokio::{task::yield_now, time::sleep};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    buffer::Buffer,
    service_fn,
    util::{BoxCloneSyncServiceLayer, BoxService},
};

use tower_keep::{
    CallSettings, Criticality, Outcome, Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    fallback::FallbackLayer,
    gate::Shadow,
    protocol::{
        Advice, Plain, Sent, WouldReject,
        http::{Client, ReplayBody, Server},
    },
    rate_limit::{Advertise, Rate, RateLimitLayer},
    retry::Backoff,
    stack::{self, Changes},
};

type Body = Empty<Bytes>;

const SECOND: Duration = Duration::from_secs(1);

fn to(host: &str) -> Request<Body> {
    let uri = format!("http://{host}/");
    Request::get(uri).body(Body::new()).unwrap()
}

fn with(settings: CallSettings) -> Request<Body> {
    let mut request = to("host");
    request.extensions_mut().insert(settings);
    request
}

fn answer(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::new());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn mark(extensions: &http::Extensions) -> Option<RejectedKind> {
    extensions.get::<WouldReject>().map(|mark| mark.0.kind)
}

fn kind<T>(result: Result<T, BoxError>) -> Option<RejectedKind> {
    let error = result.err()?;
    Rejected::find(&*error).map(|rejected| rejected.kind)
}

fn a_minute(calls: u64) -> Rate {
    Rate::new(calls, 60 * SECOND)
}

/// A server that answers after a second.
async fn slow(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    sleep(SECOND).await;
    Ok(answer(200))
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_retry_is_audited() {
    let limit = RateLimitLayer::builder(a_minute(1)).burst(1).per_host();
    let trial = Shadow::new(limit.gate().unwrap(), "one");
    let tried = trial.handle();
    let retry = stack::client()
        .http()
        .retry(|retry| retry.backoff(Backoff::none()));
    let stack = retry.build().unwrap().audit(trial);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let service = stack.layer(service_fn(move |request: Request<ReplayBody<Body>>| {
        let mut seen = noted.lock().unwrap();
        seen.push(mark(request.extensions()));
        let status = if seen.len() == 1 { 503 } else { 200 };
        ready(Ok::<_, BoxError>(answer(status)))
    }));
    let limited = Some(RejectedKind::RateLimited);
    let first = service.clone().oneshot(to("a.example")).await.unwrap();
    assert_eq!(
        (first.status().as_u16(), mark(first.extensions())),
        (200, limited)
    );
    let other = service.clone().oneshot(to("b.example")).await.unwrap();
    assert_eq!(mark(other.extensions()), None);
    assert_eq!(*seen.lock().unwrap(), [None, limited, None]);
    let tried = tried.snapshot();
    assert_eq!(
        (
            tried.calls,
            tried.would_reject.of(RejectedKind::RateLimited)
        ),
        (3, 1)
    );
    assert_eq!(stack.handle().retry.snapshot().retries, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_audits_what_it_does_not_enforce() {
    let limit = RateLimitLayer::builder(a_minute(10))
        .burst(10)
        .gate()
        .unwrap();
    let places = BulkheadLayer::builder(5).gate().unwrap();
    let (limit, places) = (Shadow::new(limit, "rate"), Shadow::new(places, "places"));
    let handles = [limit.handle(), places.handle()];
    let stack = stack::server().http().max_in_flight(1).build().unwrap();
    let stack = stack.audit(limit).audit(places);
    let app = Router::new()
        .route(
            "/",
            get(async |request: AxumRequest| {
                let mark = mark(request.extensions());
                sleep(SECOND).await;
                format!("{mark:?}")
            }),
        )
        .layer(stack.clone());
    let ask = |cost| {
        let mut request = Request::get("/").body(axum::body::Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(CallSettings::new().cost(cost));
        app.clone().oneshot(request)
    };
    let (first, second) = tokio::join!(ask(8), ask(8));
    // What the stack rejects is not audited.
    assert_eq!(second.unwrap().status(), 503);
    assert!(!first.unwrap().headers().contains_key("x-would-reject"));
    let marked = ask(8).await.unwrap();
    assert_eq!(marked.status(), 200);
    assert_eq!(marked.headers()["x-would-reject"], "rate_limited");
    let body = axum::body::to_bytes(marked.into_body(), 99).await.unwrap();
    assert_eq!(body, "Some(RateLimited)");
    assert_eq!(handles.map(|handle| handle.snapshot().calls), [2, 2]);
    stack
        .handle()
        .update(Changes::new().max_in_flight(2))
        .unwrap();
    let (one, two) = tokio::join!(ask(1), ask(1));
    assert_eq!(
        (
            one.unwrap().status().as_u16(),
            two.unwrap().status().as_u16()
        ),
        (200, 200)
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_reads_what_a_call_costs() {
    let stack = stack::server()
        .http()
        .rate(a_minute(10))
        .burst(10)
        .max_in_flight(9);
    let stack = stack.build().unwrap();
    // A layer above knows who asks.
    let by_plan = |mut request: Request<Body>| {
        let cost = if request.uri().host() == Some("import") {
            8
        } else {
            1
        };
        request
            .extensions_mut()
            .insert(CallSettings::new().cost(cost));
        request
    };
    let service = ServiceBuilder::new()
        .map_request(by_plan)
        .layer(stack.clone());
    let service = service.service_fn(async |_: Request<Body>| Ok::<_, Infallible>(answer(200)));
    let mut statuses = Vec::new();
    for host in ["import", "import", "read", "read", "read"] {
        statuses.push(
            service
                .clone()
                .oneshot(to(host))
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 429, 200, 200, 429]);
    assert_eq!(stack.handle().rate_limit.unwrap().snapshot().available, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_reads_how_critical_a_call_is() {
    let stack = stack::server().http().max_in_flight(4).build().unwrap();
    let service = stack.layer(service_fn(slow));
    let sheddable = CallSettings::new().criticality(Criticality::Sheddable);
    let running = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(to("host"))));
    yield_now().await;
    let shed = service.clone().oneshot(with(sheddable)).await.unwrap();
    assert_eq!(shed.status(), 503, "half of the places are taken");
    assert_eq!(service.oneshot(to("host")).await.unwrap().status(), 200);
    drop(running);
}

/// A closure of the limit's own goes before what the request says.
#[tokio::test(start_paused = true)]
async fn a_servers_closure_goes_before_a_calls_settings() {
    let limit = RateLimitLayer::builder(a_minute(10)).burst(10);
    let limit = limit.cost(|_: &Request<Body>| 5);
    let stack = stack::server()
        .http()
        .rate_limit(limit)
        .max_in_flight(4)
        .build()
        .unwrap();
    let service = stack.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(answer(200))
    }));
    service
        .oneshot(with(CallSettings::new().cost(1)))
        .await
        .unwrap();
    assert_eq!(stack.handle().rate_limit.unwrap().snapshot().available, 5);
}

#[tokio::test(start_paused = true)]
async fn a_stack_is_updated_while_it_drains() {
    let stack = stack::server().http().max_in_flight(9).build().unwrap();
    let (service, handle) = (stack.layer(service_fn(slow)), stack.handle());
    let running = tokio::spawn(service.clone().oneshot(to("host")));
    yield_now().await;
    let mut drained = Box::pin(handle.drain(9 * SECOND));
    assert!(poll!(&mut drained).is_pending());
    let changes = Changes::new().rate(a_minute(1), 1).max_in_flight(1);
    handle.update(changes.total_timeout(5 * SECOND)).unwrap();
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    drained.await.unwrap();
    // Those that a drain rejects cost nothing.
    for _ in 0..3 {
        assert_eq!(
            service.clone().oneshot(to("host")).await.unwrap().status(),
            503
        );
    }
    handle.resume();
    assert_eq!(
        service.clone().oneshot(to("host")).await.unwrap().status(),
        200
    );
    assert_eq!(service.oneshot(to("host")).await.unwrap().status(), 429);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_hedged_calls_and_leaves_none() {
    let running = Arc::new(AtomicUsize::new(0));
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let counted = running.clone();
    let stack = stack::client()
        .http()
        .hedge(|hedge| hedge.delay(SECOND / 10));
    let stack = stack.build().unwrap();
    let service = stack.layer(service_fn(move |_: Request<ReplayBody<Body>>| {
        let number = counted.fetch_add(1, SeqCst);
        let running = Running(counted.clone());
        async move {
            let _running = running;
            sleep(if number == 0 { 2 * SECOND } else { SECOND }).await;
            Ok::<_, BoxError>(answer(200))
        }
    }));
    let call = tokio::spawn(service.clone().oneshot(to("host")));
    sleep(SECOND / 5).await;
    assert_eq!(running.load(SeqCst), 2);
    let handle = stack.handle();
    assert_eq!(handle.in_flight(), 1, "one call, whatever its attempts");
    handle.drain(9 * SECOND).await.unwrap();
    assert_eq!((handle.in_flight(), running.load(SeqCst)), (0, 0));
    assert!(call.await.unwrap().is_ok());
    assert_eq!(
        kind(service.oneshot(to("host")).await),
        Some(RejectedKind::Draining)
    );
}

#[tokio::test(start_paused = true)]
async fn each_hedge_costs_what_its_call_says() {
    let stack = stack::client()
        .http()
        .rate(a_minute(100))
        .burst(100)
        .hedge(|hedge| hedge.delay(SECOND / 10).without_budget())
        .build()
        .unwrap();
    let service = stack.layer(service_fn(async |_: Request<ReplayBody<Body>>| {
        sleep(SECOND).await;
        Ok::<_, BoxError>(answer(200))
    }));
    let available = || stack.handle().snapshot().rate_limit.unwrap().available;
    let ask = |settings| service.clone().oneshot(with(settings));
    ask(CallSettings::new().cost(20)).await.unwrap();
    assert!((60..=61).contains(&available()), "{}", available());
    ask(CallSettings::new().cost(20).attempts(1)).await.unwrap();
    assert!((41..=44).contains(&available()), "{}", available());
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_charged_to_its_host() {
    let limit = RateLimitLayer::builder(a_minute(2)).burst(2).per_host();
    let stack = stack::client()
        .http()
        .rate_limit(limit)
        .without_circuit_breaker()
        .retry(|retry| retry.backoff(Backoff::none()).attempts(5).without_budget())
        .build()
        .unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let service = stack.layer(service_fn(move |_: Request<ReplayBody<Body>>| {
        counted.fetch_add(1, SeqCst);
        ready(Ok::<_, BoxError>(answer(503)))
    }));
    // The third attempt is over its host's limit: what the upstream said last is the answer, or
    // why there is no more.
    let over = service.clone().oneshot(to("a.example")).await;
    assert_eq!(kind(over), Some(RejectedKind::RateLimited));
    assert_eq!(sent.swap(0, SeqCst), 2);
    let other = service.clone().oneshot(to("b.example")).await;
    assert_eq!(kind(other), Some(RejectedKind::RateLimited));
    assert_eq!(sent.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_beneath_a_drain_is_waited_for() {
    let stack = stack::server().http().max_in_flight(9).build().unwrap();
    let fallback = FallbackLayer::builder(
        |_: &Request<Body>| (),
        async |(), _: Result<Response<Body>, Infallible>| {
            sleep(SECOND).await;
            Ok(answer(203))
        },
    );
    let fallback = fallback.protocol(Server::new()).build().unwrap();
    let failing = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(answer(500)));
    let service = stack.layer(fallback.layer(failing));
    let call = tokio::spawn(service.oneshot(to("host")));
    yield_now().await;
    stack.handle().drain(9 * SECOND).await.unwrap();
    assert!(call.is_finished() || call.await.unwrap().unwrap().status() == 203);
}

/// A fallback around a stack answers what the drain rejects, too.
#[tokio::test(start_paused = true)]
async fn a_stacks_fallback_answers_while_it_drains() {
    let stack = stack::client().http().fallback(FallbackLayer::builder(
        |_: &Request<Body>| (),
        |(), _: Result<Response<Body>, BoxError>| ready(Ok(answer(203))),
    ));
    let stack = stack.build().unwrap();
    let service = stack.layer(service_fn(async |_: Request<ReplayBody<Body>>| {
        Ok::<_, BoxError>(answer(200))
    }));
    assert_eq!(
        service.clone().oneshot(to("host")).await.unwrap().status(),
        200
    );
    stack.handle().drain(SECOND).await.unwrap();
    assert_eq!(service.oneshot(to("host")).await.unwrap().status(), 203);
}

/// Requests that are not `Clone` to a service that is not, behind a `Buffer`.
#[tokio::test(start_paused = true)]
async fn a_buffer_takes_requests_that_are_not_clone() {
    type Upload = UnsyncBoxBody<Bytes, BoxError>;

    let inner = BoxService::new(service_fn(async |request: Request<Upload>| {
        sleep(SECOND).await;
        Ok::<_, BoxError>(Response::new(request.into_body()))
    }));
    let stack = stack::client()
        .http()
        .without_retry()
        .max_in_flight(2)
        .build()
        .unwrap();
    let service = stack.layer(Buffer::new(inner, 8));
    let upload = || {
        Request::post("http://host/")
            .body(Upload::default())
            .unwrap()
    };
    let running = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(upload())));
    yield_now().await;
    let full = service.clone().oneshot(upload()).await;
    assert_eq!(kind(full), Some(RejectedKind::BulkheadFull));
    for call in running {
        assert!(call.await.unwrap().is_ok());
    }
    assert!(service.oneshot(upload()).await.is_ok(), "its place is free");
}

fn renewing<F, Fut>(change: F) -> impl FnOnce(Client) -> Client
where
    F: Fn(Parts) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Parts> + Send + 'static,
{
    |client| {
        let unauthorized = |status, _: &_| {
            let again = Advice::Retry {
                sent: Sent::No,
                after: None,
            };
            (status == StatusCode::UNAUTHORIZED).then_some(again)
        };
        client.advise(unauthorized).before_retry_async(change)
    }
}

/// Accepts one token, and counts all others.
fn guarded(
    refused: &Arc<AtomicUsize>,
) -> impl Service<Request<ReplayBody<Body>>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let refused = refused.clone();
    service_fn(move |request: Request<ReplayBody<Body>>| {
        let is_fresh = request
            .headers()
            .get(AUTHORIZATION)
            .is_some_and(|token| token == "fresh");
        refused.fetch_add(usize::from(!is_fresh), SeqCst);
        ready(Ok(answer(if is_fresh { 200 } else { 401 })))
    })
}

fn post(token: &'static str) -> Request<Body> {
    let request = Request::post("http://host/").header(AUTHORIZATION, token);
    request.body(Body::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_a_new_token() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let counted = fetched.clone();
    let fetch = move |mut head: Parts| {
        counted.fetch_add(1, SeqCst);
        async move {
            sleep(SECOND).await;
            head.headers
                .insert(AUTHORIZATION, HeaderValue::from_static("fresh"));
            head
        }
    };
    let stack = stack::client().http().protocol(renewing(fetch));
    let stack = stack
        .retry(|retry| retry.backoff(Backoff::none()))
        .build()
        .unwrap();
    let refused = Arc::default();
    let service = stack.layer(guarded(&refused));
    let begun = tokio::time::Instant::now();
    let answer = service.clone().oneshot(post("stale")).await.unwrap();
    assert_eq!((answer.status().as_u16(), begun.elapsed()), (200, SECOND));
    assert_eq!((refused.load(SeqCst), fetched.load(SeqCst)), (1, 1));
    // A token that is good needs none.
    service.oneshot(post("fresh")).await.unwrap();
    assert_eq!(fetched.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_never_comes_ends_with_the_deadline() {
    let dropped = Arc::new(());
    let held = dropped.clone();
    let hangs = move |head: Parts| {
        let held = held.clone();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            head
        }
    };
    let stack = stack::client()
        .http()
        .protocol(renewing(hangs))
        .total_timeout(5 * SECOND);
    let stack = stack.build().unwrap();
    let refused = Arc::default();
    let service = stack.layer(guarded(&refused));
    let begun = tokio::time::Instant::now();
    let rejected = kind(service.clone().oneshot(post("stale")).await).unwrap();
    assert!(matches!(
        rejected,
        RejectedKind::DeadlineExceeded | RejectedKind::TimedOut
    ));
    assert!((5 * SECOND..6 * SECOND).contains(&begun.elapsed()));
    assert_eq!(Arc::strong_count(&dropped), 2, "what hung is gone");
    // Its token of the budget went back, and nothing is in flight.
    assert_eq!(stack.handle().in_flight(), 0);
    assert_eq!(stack.handle().snapshot().retry_budgets[0].1, 10);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_waits_for_a_new_token() {
    let fetch = async |mut head: Parts| {
        sleep(SECOND).await;
        head.headers
            .insert(AUTHORIZATION, HeaderValue::from_static("fresh"));
        head
    };
    let stack = stack::client()
        .http()
        .protocol(move |client| {
            let failed =
                |status, _: &_| (status == StatusCode::UNAUTHORIZED).then_some(Outcome::Failure);
            renewing(fetch)(client.classify_response(failed))
        })
        .hedge(|hedge| hedge.delay(SECOND / 10))
        .build()
        .unwrap();
    let refused = Arc::default();
    let service = stack.layer(guarded(&refused));
    // What is hedged is idempotent.
    let mut request = to("host");
    let stale = HeaderValue::from_static("stale");
    request.headers_mut().insert(AUTHORIZATION, stale);
    let begun = tokio::time::Instant::now();
    let answer = service.oneshot(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), begun.elapsed()), (200, SECOND));
    assert_eq!(refused.load(SeqCst), 1);
}

/// What a program keeps of a stack, whatever its parts.
struct Upstream {
    layer: BoxCloneSyncServiceLayer<Orders, u32, u32, BoxError>,
}

#[derive(Clone)]
struct Orders;

impl Service<u32> for Orders {
    type Response = u32;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<u32>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, order: u32) -> Self::Future {
        ready(Ok(order))
    }
}

#[tokio::test(start_paused = true)]
async fn a_boxed_stack_has_a_short_type() {
    let by_settings = |hedged: bool| {
        let stack = stack::client()
            .plain(Plain::new().idempotent())
            .rate(a_minute(2))
            .burst(2);
        Upstream {
            layer: match hedged {
                true => stack.hedge(|hedge| hedge).build().unwrap().boxed(),
                false => stack.build().unwrap().boxed(),
            },
        }
    };
    for hedged in [false, true] {
        let upstream = by_settings(hedged);
        let mut admitted = 0;
        for order in 0..4 {
            // Services of one layer share its state, boxed or not.
            let service = upstream.layer.clone().layer(Orders);
            admitted += u32::from(service.oneshot(order).await.is_ok());
        }
        assert_eq!(admitted, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_boxed_server_goes_on_a_router() {
    let stack = stack::server()
        .http()
        .rate(a_minute(1))
        .burst(1)
        .build()
        .unwrap();
    let layer = stack.boxed::<Route, AxumRequest>();
    let app = Router::new().route("/", get(async || "hello")).layer(layer);
    let status = async || {
        let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
        app.clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!((status().await, status().await), (200, 429));
}

/// A bulkhead's partitions, told apart without their keys.
#[tokio::test(start_paused = true)]
async fn a_keyed_bulkhead_tells_its_partition() {
    let places = BulkheadLayer::builder(9)
        .keyed_by(|request: &Request<Body>| request.uri().host().map(str::to_owned))
        .advertise(Advertise::new().keys())
        .protocol(Server::new())
        .build()
        .unwrap();
    let service = places.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(answer(200))
    }));
    let partition = async |host: &str| {
        let answer = service.clone().oneshot(to(host)).await.unwrap();
        let field = answer.headers()["ratelimit"].to_str().unwrap().to_owned();
        let policy = answer.headers()["ratelimit-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(policy.contains(r#"qu="concurrent-requests""#), "{policy}");
        assert!(
            !field.contains(host) && !policy.contains(host),
            "{field} {policy}"
        );
        let (_, partition) = field.split_once(";pk=:").unwrap();
        partition.to_owned()
    };
    let acme = partition("acme").await;
    assert_eq!(partition("acme").await, acme);
    assert_ne!(partition("umbrella").await, acme);
}
