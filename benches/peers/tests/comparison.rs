//! What the table in the README says of this crate and of others, each cell of it.
//!
//! A row is a test, and its peers are asserted as well: a "no" is what the peer has done here, in
//! the version of `Cargo.lock`, and with its own setting where it has one. Circuits are waited for
//! in real time, because tower-resilience reads the clock of std.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, error_handling::HandleErrorLayer, extract::State, routing::get};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::Full;
use seatbelt::{RecoveryInfo, ResilienceContext, breaker::HalfOpenMode};
use tick::{Clock, ClockControl};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    buffer::BufferLayer,
    limit::{
        ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer, RateLimitLayer as TowerRateLimitLayer,
    },
    util::MapResponse,
};
use tower_governor::{
    GovernorError, GovernorLayer,
    governor::GovernorConfigBuilder,
    key_extractor::{GlobalKeyExtractor, KeyExtractor},
};
use tower_keep::{
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    keyed,
    protocol::http as protocol,
    rate_limit::{Missing, Rate, RateLimitLayer},
    retry::RetryLayer,
};
use tower_resilience::{bulkhead, circuitbreaker, ratelimiter, retry};

#[path = "comparison/functions.rs"]
mod functions;

#[test]
fn every_row_of_the_table_has_its_tests() {
    let readme = include_str!("../../../README.md");
    let (_, table) = readme.split_once("| | tower-keep |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let labels = table
        .lines()
        .skip(2)
        .map(|row| row.split('|').nth(1).unwrap().trim());
    let labels: Vec<_> = labels.collect();
    let here = include_str!("comparison.rs");
    let rows: Vec<_> = here
        .lines()
        .filter_map(|line| line.strip_prefix("// Row: "))
        .collect();
    assert_eq!(labels, rows);
}

// Row: a limit of 3 on a `Router` of two routes admits, of 12 requests

#[tokio::test]
async fn one_limit_counts_all_routes() {
    let keep = RateLimitLayer::builder(Rate::per_hour(3))
        .burst(3)
        .protocol(protocol::Server::new())
        .build()
        .unwrap();
    assert_eq!(admitted(|router| router.layer(keep)).await, 3);
}

#[tokio::test]
async fn one_limit_counts_all_routes_in_tower_governor() {
    let layer = GovernorLayer::new(
        GovernorConfigBuilder::default()
            .period(HOUR)
            .burst_size(3)
            .key_extractor(GlobalKeyExtractor)
            .finish()
            .unwrap(),
    );
    assert_eq!(admitted(|router| router.layer(layer)).await, 3);
}

/// tower's limit is not `Clone`, so a `Buffer` must stand before it.
#[tokio::test]
async fn one_limit_counts_each_route_in_tower() {
    let layer = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(too_many))
        .layer(BufferLayer::new(12))
        .layer(TowerRateLimitLayer::new(3, HOUR));
    assert_eq!(admitted(|router| router.layer(layer)).await, 6);
}

#[tokio::test]
async fn one_limit_counts_each_route_in_tower_resilience_unless_built_with_a_handle() {
    let limit = || {
        ratelimiter::RateLimiterLayer::builder()
            .limit_for_period(3)
            .refresh_period(HOUR)
            .timeout_duration(Duration::ZERO)
    };
    let layer = (HandleErrorLayer::new(too_many), limit().build().unwrap());
    assert_eq!(admitted(|router| router.layer(layer)).await, 6);
    let (limit, _) = limit().build_with_handle().unwrap();
    let layer = (HandleErrorLayer::new(too_many), limit);
    assert_eq!(admitted(|router| router.layer(layer)).await, 3);
}

// Row: `Retry-After` of a 429 that ends in half a second

#[tokio::test]
async fn retry_after_is_rounded_up() {
    let keep = RateLimitLayer::builder(Rate::per_second(2))
        .burst(1)
        .protocol(protocol::Server::new())
        .build()
        .unwrap();
    assert_eq!(retry_after(|router| router.layer(keep)).await, "1");
}

#[tokio::test]
async fn retry_after_is_rounded_down_to_none_in_tower_governor() {
    let layer = GovernorLayer::new(
        GovernorConfigBuilder::default()
            .period(Duration::from_millis(500))
            .burst_size(1)
            .key_extractor(GlobalKeyExtractor)
            .finish()
            .unwrap(),
    );
    assert_eq!(retry_after(|router| router.layer(layer)).await, "0");
}

// Row: a limit for each key, and a flood of 10 000 keys

#[tokio::test]
async fn a_flood_of_keys_takes_no_memory() {
    let keep = RateLimitLayer::builder(Rate::per_hour(1))
        .protocol(protocol::Server::new())
        .keyed_by(keyed::header("x-tenant"))
        .missing(Missing::Reject)
        .max_keys(1000)
        .build()
        .unwrap();
    let handle = keep.handle();
    let before = handle.snapshot().bytes;
    let service = keep.layer(Upstream::new(StatusCode::OK));
    assert_eq!(
        statuses_of_tenants(&service, ["a", "a", "b"]).await,
        [200, 429, 200]
    );
    flood(&service).await;
    assert_eq!(handle.snapshot().bytes, before);
}

#[tokio::test]
async fn a_flood_of_keys_stays_in_memory_in_tower_governor() {
    let config = GovernorConfigBuilder::default()
        .period(HOUR)
        .burst_size(1)
        .key_extractor(Tenant)
        .finish()
        .unwrap();
    let limiter = config.limiter().clone();
    let to_axum = |response: Response<Full<Bytes>>| response.map(axum::body::Body::new);
    let upstream = MapResponse::new(Upstream::new(StatusCode::OK), to_axum);
    let service = GovernorLayer::new(config).layer(upstream);
    assert_eq!(
        statuses_of_tenants(&service, ["a", "a", "b"]).await,
        [200, 429, 200]
    );
    flood(&service).await;
    assert!(limiter.len() >= FLOOD);
}

// Row: a service that is ready and not called

#[tokio::test]
async fn a_ready_service_that_is_not_called_holds_no_place() {
    let keep = BulkheadLayer::builder(1).build().unwrap();
    assert!(others_go_on(keep.layer(Upstream::new(StatusCode::OK))).await);
    let resilience = resilience_bulkhead().layer(Upstream::new(StatusCode::OK));
    assert!(others_go_on(resilience).await);
    let tower = ConcurrencyLimitLayer::new(1).layer(Upstream::new(StatusCode::OK));
    assert!(!others_go_on(tower).await);
}

// Row: a call that is cancelled

#[tokio::test]
async fn a_cancelled_call_frees_its_place() {
    let keep = BulkheadLayer::builder(1).build().unwrap();
    assert!(goes_on_after_a_cancelled_call(|upstream| keep.layer(upstream)).await);
    let layer = resilience_bulkhead();
    assert!(goes_on_after_a_cancelled_call(|upstream| layer.layer(upstream)).await);
    let tower = ConcurrencyLimitLayer::new(1);
    assert!(goes_on_after_a_cancelled_call(|upstream| tower.layer(upstream)).await);
}

// Row: a bulkhead's limit, changed while it runs

#[tokio::test]
async fn a_limit_can_be_changed_while_it_runs() {
    let keep = BulkheadLayer::builder(1).build().unwrap();
    let upstream = Upstream::new(StatusCode::OK);
    let service = keep.layer(upstream.clone());
    let _held = upstream.hold();
    let calls = [background(&service), background(&service)];
    tokio::task::yield_now().await;
    assert_eq!(upstream.sent(), 1);
    let _ = keep.handle().set_limit(2).unwrap();
    let more = background(&service);
    tokio::task::yield_now().await;
    assert_eq!(upstream.sent(), 2);
    calls.iter().chain([&more]).for_each(|call| call.abort());
}

/// Its layer can be built on a semaphore, which the user changes.
#[tokio::test]
async fn a_limit_can_be_changed_while_it_runs_in_tower_by_its_semaphore() {
    let places = Arc::new(Semaphore::new(1));
    let tower = GlobalConcurrencyLimitLayer::with_semaphore(places.clone());
    let upstream = Upstream::new(StatusCode::OK);
    let service = tower.layer(upstream.clone());
    let _held = upstream.hold();
    let calls = [background(&service), background(&service)];
    upstream.has_been_sent(1).await;
    places.add_permits(1);
    upstream.has_been_sent(2).await;
    calls.iter().for_each(|call| call.abort());
}

// Row: a 503

#[tokio::test]
async fn a_503_opens_the_circuit() {
    let keep = |upstream| keep_breaker(1).layer(upstream);
    assert_eq!(sent_of_ten(keep).await, 5);
}

/// Without a closure its circuit breaker does not compile.
#[tokio::test]
async fn a_503_opens_the_circuit_in_seatbelt_by_a_closure() {
    assert_eq!(
        sent_of_ten(|upstream| seatbelt_breaker().layer(upstream)).await,
        5
    );
}

#[tokio::test]
async fn a_503_is_a_success_in_tower_resilience_unless_a_closure_says_otherwise() {
    let by_default = |upstream| resilience_settings(1).build().unwrap().layer(upstream);
    assert_eq!(sent_of_ten(by_default).await, 10);
    assert_eq!(
        sent_of_ten(|upstream| resilience_breaker(1).layer(upstream)).await,
        5
    );
}

// Row: of 10 calls at once to a half-open circuit, probes are

/// Three probes where their number can be set; seatbelt's `quick` has one.
#[tokio::test]
async fn a_half_open_circuit_admits_exactly_its_probes() {
    assert_eq!(
        probes_of_ten(|upstream| keep_breaker(3).layer(upstream)).await,
        3
    );
    assert_eq!(
        probes_of_ten(|upstream| resilience_breaker(3).layer(upstream)).await,
        3
    );
    assert_eq!(
        probes_of_ten(|upstream| seatbelt_breaker().layer(upstream)).await,
        1
    );
}

// Row: a success from before the outage, while a probe is out

#[tokio::test]
async fn a_late_result_does_not_close_the_circuit() {
    assert!(!closed_by_a_late_result(|upstream| keep_breaker(1).layer(upstream)).await);
    assert!(closed_by_a_late_result(|upstream| resilience_breaker(1).layer(upstream)).await);
    assert!(!closed_by_a_late_result(|upstream| seatbelt_breaker().layer(upstream)).await);
}

// Row: failures from before the outage, when the circuit has closed again

#[tokio::test]
async fn late_failures_do_not_open_the_circuit_again() {
    assert!(!opened_by_late_failures(|upstream| keep_breaker(1).layer(upstream)).await);
    assert!(opened_by_late_failures(|upstream| resilience_breaker(1).layer(upstream)).await);
    assert!(opened_by_late_failures(|upstream| seatbelt_breaker().layer(upstream)).await);
}

// Row: a probe that hangs

#[tokio::test]
async fn a_hung_probe_does_not_keep_the_circuit_from_closing() {
    assert!(recovers_from_a_hung_probe(|upstream| keep_breaker(1).layer(upstream)).await);
    assert!(!recovers_from_a_hung_probe(|upstream| resilience_breaker(1).layer(upstream)).await);
    assert!(recovers_from_a_hung_probe(|upstream| seatbelt_breaker().layer(upstream)).await);
}

// Row: after 10 000 successes the circuit opens by

/// Each by its defaults.
#[tokio::test(start_paused = true)]
async fn an_outage_after_many_successes_opens_the_circuit_soon() {
    let upstream = Upstream::new(StatusCode::OK);
    let keep = CircuitBreakerLayer::builder()
        .protocol(protocol::Client::new())
        .build()
        .unwrap();
    let minute = || tokio::time::advance(MINUTE);
    let failures = failures_until_open(keep.layer(upstream.clone()), &upstream, minute).await;
    assert_eq!(failures, 20);

    let control = ClockControl::new();
    let upstream = Upstream::new(StatusCode::OK);
    let context = ResilienceContext::new(control.to_clock());
    let seatbelt = seatbelt_classified(&context);
    let minute = async || control.advance(MINUTE);
    let failures = failures_until_open(seatbelt.layer(upstream.clone()), &upstream, minute).await;
    assert_eq!(failures, 100);
}

/// A window of time slides there; the default one, of calls, does not.
#[tokio::test]
async fn an_outage_after_many_successes_takes_as_many_failures_in_tower_resilience() {
    let upstream = Upstream::new(StatusCode::OK);
    let layer = circuitbreaker::CircuitBreakerLayer::builder()
        .failure_classifier(is_failure)
        .build()
        .unwrap();
    let at_once = || std::future::ready(());
    let failures = failures_until_open(layer.layer(upstream.clone()), &upstream, at_once).await;
    assert_eq!(failures, 10_000);

    let upstream = Upstream::new(StatusCode::OK);
    let layer = circuitbreaker::CircuitBreakerLayer::builder()
        .failure_classifier(is_failure)
        .sliding_window_type(circuitbreaker::SlidingWindowType::TimeBased)
        .sliding_window_duration(Duration::from_millis(500))
        .build()
        .unwrap();
    let out_of_the_window = || sleep(Duration::from_millis(600));
    let service = layer.layer(upstream.clone());
    let failures = failures_until_open(service, &upstream, out_of_the_window).await;
    assert_eq!(failures, 100);
}

// Row: a POST that fails

#[tokio::test(start_paused = true)]
async fn a_post_is_not_retried() {
    let sent = sent_for(Method::POST, |upstream| keep_retry().layer(upstream)).await;
    assert_eq!(sent, 1);
    let get = sent_for(Method::GET, |upstream| keep_retry().layer(upstream)).await;
    assert_eq!(get, 3);
}

#[tokio::test(start_paused = true)]
async fn a_post_is_retried_by_peers_unless_a_closure_says_otherwise() {
    let sent = sent_for(Method::POST, |upstream| {
        resilience_retry().build().layer(upstream)
    })
    .await;
    assert_eq!(sent, 3);
    let attempts = |request: &Req| {
        if request.method() == Method::POST {
            1
        } else {
            3
        }
    };
    let layer = resilience_retry().max_attempts_fn(attempts).build();
    assert_eq!(
        sent_for(Method::POST, |upstream| layer.layer(upstream)).await,
        1
    );

    let clock = ClockControl::new().auto_advance_timers(true).to_clock();
    let layer = seatbelt_retry(&clock);
    assert_eq!(
        sent_for(Method::POST, |upstream| layer.layer(upstream)).await,
        4
    );
    let layer = seatbelt_retry(&clock).enable_if(|request: &Req| request.method() != Method::POST);
    assert_eq!(
        sent_for(Method::POST, |upstream| layer.layer(upstream)).await,
        1
    );
}

// Row: `Retry-After` of a failure

/// A backoff of tower-resilience knows the number of the attempt, and nothing of the response.
#[tokio::test(start_paused = true)]
async fn retry_after_is_honored() {
    let upstream = Upstream::asking_for_a_rest(20);
    let start = Instant::now();
    call(&keep_retry().layer(upstream.clone()), Method::GET).await;
    assert!(start.elapsed() >= Duration::from_secs(20));

    let start = Instant::now();
    call(
        &resilience_retry().build().layer(upstream.clone()),
        Method::GET,
    )
    .await;
    assert!(start.elapsed() < Duration::from_secs(5));

    let clock = ClockControl::new().auto_advance_timers(true).to_clock();
    let start = clock.instant();
    call(&seatbelt_retry(&clock).layer(upstream), Method::GET).await;
    assert!(clock.instant() - start >= Duration::from_secs(20));
}

// Row: 1000 calls that get a 503 are sent

/// What an upstream that is down gets of 1000 calls, one after the other.
#[tokio::test(start_paused = true)]
async fn an_outage_is_not_amplified() {
    let sent = sent_of_a_thousand(|upstream| keep_retry().layer(upstream)).await;
    assert_eq!(sent, 1010);
    let sent = sent_of_a_thousand(|upstream| resilience_retry().build().layer(upstream)).await;
    assert_eq!(sent, 3000);
    let budget = retry::RetryBudgetBuilder::new()
        .token_bucket()
        .build()
        .unwrap();
    let layer = resilience_retry().budget(budget).build();
    assert_eq!(
        sent_of_a_thousand(|upstream| layer.layer(upstream)).await,
        1100
    );
    let clock = ClockControl::new().auto_advance_timers(true).to_clock();
    let layer = seatbelt_retry(&clock);
    assert_eq!(
        sent_of_a_thousand(|upstream| layer.layer(upstream)).await,
        4000
    );
}

// What is compared.

fn keep_breaker(probes: u16) -> CircuitBreakerLayer<protocol::Client> {
    CircuitBreakerLayer::builder()
        .min_calls(5)
        .open_for(OPEN)
        .jitter(false)
        .probes(probes)
        .protocol(protocol::Client::new())
        .build()
        .unwrap()
}

fn resilience_settings(
    probes: usize,
) -> circuitbreaker::CircuitBreakerConfigBuilder<circuitbreaker::DefaultClassifier> {
    circuitbreaker::CircuitBreakerLayer::builder()
        .sliding_window_size(5)
        .minimum_number_of_calls(5)
        .wait_duration_in_open(OPEN)
        .permitted_calls_in_half_open(probes)
}

fn resilience_breaker(
    probes: usize,
) -> circuitbreaker::CircuitBreakerLayer<circuitbreaker::FnClassifier<fn(&Answer) -> bool>> {
    resilience_settings(probes)
        .failure_classifier(is_failure as fn(&Answer) -> bool)
        .build()
        .unwrap()
}

fn seatbelt_breaker() -> SeatbeltBreaker {
    let context = ResilienceContext::new(Clock::new_tokio());
    seatbelt_classified(&context)
        .min_throughput(5)
        .break_duration(OPEN)
        .half_open_mode(HalfOpenMode::quick())
}

type SeatbeltBreaker = seatbelt::breaker::BreakerLayer<
    Req,
    Answer,
    seatbelt::typestates::Set,
    seatbelt::typestates::Set,
>;

fn seatbelt_classified(context: &ResilienceContext<Req, Answer>) -> SeatbeltBreaker {
    seatbelt::breaker::Breaker::layer("breaker", context)
        .recovery_with(|answer, _| recovery(answer))
        .rejected_input_error(|_, _| io::Error::other("the circuit is open"))
}

fn keep_retry() -> RetryLayer<protocol::Client> {
    RetryLayer::builder()
        .max_retry_after(MINUTE)
        .protocol(protocol::Client::new())
        .build()
        .unwrap()
}

fn resilience_retry() -> retry::RetryConfigBuilder<Req, Response<Full<Bytes>>, io::Error> {
    retry::RetryLayer::builder()
        .retry_on_response(|response: &Response<_>| response.status().is_server_error())
}

fn seatbelt_retry(clock: &Clock) -> seatbelt::retry::RetryLayer<Req, Answer> {
    let context = ResilienceContext::new(clock);
    seatbelt::retry::Retry::layer("retry", &context)
        .clone_input()
        .recovery_with(|answer, _| recovery(answer))
}

fn resilience_bulkhead() -> bulkhead::BulkheadLayer {
    let builder = bulkhead::BulkheadLayer::builder().max_concurrent_calls(1);
    builder.build_with_handle().unwrap().0
}

fn is_failure(answer: &Answer) -> bool {
    answer
        .as_ref()
        .map_or(true, |response| response.status().is_server_error())
}

fn recovery(answer: &Answer) -> RecoveryInfo {
    if !is_failure(answer) {
        return RecoveryInfo::never();
    }
    let field = answer
        .as_ref()
        .ok()
        .and_then(|response| response.headers().get(RETRY_AFTER));
    let seconds = field.and_then(|value| value.to_str().ok()?.parse().ok());
    match seconds {
        Some(seconds) => RecoveryInfo::retry().delay(Duration::from_secs(seconds)),
        None => RecoveryInfo::retry(),
    }
}

#[derive(Debug, Clone)]
struct Tenant;

impl KeyExtractor for Tenant {
    type Key = Vec<u8>;

    fn extract<T>(&self, request: &Request<T>) -> Result<Vec<u8>, GovernorError> {
        let tenant = request.headers().get("x-tenant");
        let tenant = tenant.ok_or(GovernorError::UnableToExtractKey)?;
        Ok(tenant.as_bytes().to_vec())
    }
}

// How it is compared.

/// How many of 12 requests to two routes reach a handler, on a router as `axum::serve` makes it.
async fn admitted(layered: impl FnOnce(Router) -> Router) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let handler = async |State(count): State<Arc<AtomicUsize>>| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let router = Router::new()
        .route("/a", get(handler))
        .route("/b", get(handler));
    let router = layered(router.with_state(count.clone())).with_state::<()>(());
    let calls = (0..12).map(|call| {
        let path = if call % 2 == 0 { "/a" } else { "/b" };
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        // tower's limit makes callers wait.
        timeout(Duration::from_secs(1), router.clone().oneshot(request))
    });
    join_all(calls).await;
    count.load(Ordering::Relaxed)
}

/// What the second of two requests at once is told.
async fn retry_after(layered: impl FnOnce(Router) -> Router) -> String {
    let router = layered(Router::new().route("/", get(async || "hello")));
    let ask = || Request::get("/").body(axum::body::Body::empty()).unwrap();
    router.clone().oneshot(ask()).await.unwrap();
    let second = router.oneshot(ask()).await.unwrap();
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    second.headers()[RETRY_AFTER].to_str().unwrap().to_owned()
}

async fn too_many<E>(_: E) -> StatusCode {
    StatusCode::TOO_MANY_REQUESTS
}

async fn statuses_of_tenants<S, B, const N: usize>(service: &S, tenants: [&str; N]) -> Vec<u16>
where
    S: Service<Req, Response = Response<B>, Error: std::fmt::Debug> + Clone,
{
    let mut statuses = Vec::new();
    for tenant in tenants {
        let request = Request::get("/").header("x-tenant", tenant);
        let request = request.body(Full::default()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        statuses.push(response.status().as_u16());
    }
    statuses
}

async fn flood<S, B>(service: &S)
where
    S: Service<Req, Response = Response<B>, Error: std::fmt::Debug> + Clone,
{
    for tenant in 0..FLOOD {
        statuses_of_tenants(service, [tenant.to_string().as_str()]).await;
    }
}

/// Whether a call gets through while another clone of the service is ready and not called.
async fn others_go_on(service: impl Client) -> bool {
    let mut idle = service.clone();
    assert!(idle.ready().await.is_ok());
    let answer = timeout(OPEN, call(&service, Method::GET)).await;
    drop(idle);
    answer == Ok(Some(StatusCode::OK))
}

async fn goes_on_after_a_cancelled_call<S: Client>(layer: impl FnOnce(Upstream) -> S) -> bool {
    let upstream = Upstream::new(StatusCode::OK);
    let service = layer(upstream.clone());
    let _held = upstream.hold();
    let cancelled = background(&service);
    upstream.has_been_sent(1).await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    upstream.go_on();
    timeout(OPEN, call(&service, Method::GET)).await == Ok(Some(StatusCode::OK))
}

async fn sent_of_ten<S: Client>(layer: impl FnOnce(Upstream) -> S) -> usize {
    let upstream = Upstream::new(StatusCode::SERVICE_UNAVAILABLE);
    let service = layer(upstream.clone());
    for _ in 0..10 {
        call(&service, Method::GET).await;
    }
    upstream.sent()
}

/// How many of ten calls at once a half-open circuit admits.
async fn probes_of_ten<S: Client>(layer: impl FnOnce(Upstream) -> S) -> usize {
    let upstream = Upstream::new(StatusCode::SERVICE_UNAVAILABLE);
    let service = layer(upstream.clone());
    open(&service, &upstream).await;
    sleep(2 * OPEN).await;
    let before = upstream.sent();
    let _held = upstream.hold();
    let calls: Vec<_> = (0..10).map(|_| background(&service)).collect();
    upstream.has_been_sent(before + 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    calls.iter().for_each(|call| call.abort());
    upstream.sent() - before
}

/// A call from before the outage succeeds while the probe is still out: does that let others in?
async fn closed_by_a_late_result<S: Client>(layer: impl FnOnce(Upstream) -> S) -> bool {
    let upstream = Upstream::new(StatusCode::OK);
    let service = layer(upstream.clone());
    let held = upstream.hold();
    let late = background(&service);
    upstream.has_been_sent(1).await;
    upstream.go_on();
    upstream.answers(StatusCode::SERVICE_UNAVAILABLE);
    open(&service, &upstream).await;
    sleep(2 * OPEN).await;
    let before = upstream.sent();
    let probe_held = upstream.hold();
    let probe = background(&service);
    upstream.has_been_sent(before + 1).await;
    upstream.go_on();
    drop(held);
    assert_eq!(late.await.unwrap(), Some(StatusCode::OK));
    let let_in = call(&service, Method::GET).await.is_some();
    drop(probe_held);
    probe.await.unwrap();
    let_in
}

/// Calls from before the outage fail when the circuit has closed again: does that open it?
async fn opened_by_late_failures<S: Client>(layer: impl FnOnce(Upstream) -> S) -> bool {
    let upstream = Upstream::new(StatusCode::SERVICE_UNAVAILABLE);
    let service = layer(upstream.clone());
    let held = upstream.hold();
    let late: Vec<_> = (0..20).map(|_| background(&service)).collect();
    upstream.has_been_sent(20).await;
    upstream.go_on();
    open(&service, &upstream).await;
    upstream.answers(StatusCode::OK);
    sleep(2 * OPEN).await;
    for _ in 0..3 {
        assert_eq!(call(&service, Method::GET).await, Some(StatusCode::OK));
    }
    drop(held);
    join_all(late).await;
    call(&service, Method::GET).await.is_none()
}

async fn recovers_from_a_hung_probe<S: Client>(layer: impl FnOnce(Upstream) -> S) -> bool {
    let upstream = Upstream::new(StatusCode::SERVICE_UNAVAILABLE);
    let service = layer(upstream.clone());
    open(&service, &upstream).await;
    sleep(2 * OPEN).await;
    let before = upstream.sent();
    let _held = upstream.hold();
    let probe = background(&service);
    upstream.has_been_sent(before + 1).await;
    upstream.go_on();
    upstream.answers(StatusCode::OK);
    let mut recovered = false;
    for _ in 0..5 {
        sleep(2 * OPEN).await;
        recovered |= call(&service, Method::GET).await.is_some();
    }
    probe.abort();
    recovered
}

/// 10 000 successes, a minute, and so many failures as it takes.
async fn failures_until_open<F: Future>(
    service: impl Client,
    upstream: &Upstream,
    minute: impl FnOnce() -> F,
) -> usize {
    for _ in 0..10_000 {
        assert!(call(&service, Method::GET).await.is_some());
    }
    minute().await;
    let before = upstream.sent();
    upstream.answers(StatusCode::SERVICE_UNAVAILABLE);
    open(&service, upstream).await;
    upstream.sent() - before
}

/// Calls until a call is rejected.
async fn open(service: &impl Client, upstream: &Upstream) {
    let before = upstream.sent();
    while call(service, Method::GET).await.is_some() {
        assert!(upstream.sent() - before < 20_000, "it does not open");
    }
}

async fn sent_for<S: Client>(method: Method, layer: impl FnOnce(Upstream) -> S) -> usize {
    let upstream = Upstream::new(StatusCode::SERVICE_UNAVAILABLE);
    call(&layer(upstream.clone()), method).await;
    upstream.sent()
}

async fn sent_of_a_thousand<S: Client>(layer: impl FnOnce(Upstream) -> S) -> usize {
    let upstream = Upstream::new(StatusCode::SERVICE_UNAVAILABLE);
    let service = layer(upstream.clone());
    for _ in 0..1000 {
        call(&service, Method::GET).await;
    }
    upstream.sent()
}

/// The status of the answer, or nothing where the layer has answered with an error.
async fn call(service: &impl Client, method: Method) -> Option<StatusCode> {
    let request = Request::builder().method(method).uri("http://upstream/");
    let request = request.body(Full::default()).unwrap();
    service.clone().status(request).await
}

fn background(service: &impl Client) -> tokio::task::JoinHandle<Option<StatusCode>> {
    let service = service.clone();
    tokio::spawn(async move { call(&service, Method::GET).await })
}

type Req = Request<Full<Bytes>>;
type Answer = Result<Response<Full<Bytes>>, io::Error>;

/// A service of one of the crates over [`Upstream`].
trait Client: Service<Req> + Clone + Send + Sync + 'static {
    fn status(self, request: Req) -> impl Future<Output = Option<StatusCode>> + Send;
}

impl<S, B> Client for S
where
    S: Service<Req, Response = Response<B>, Error: Send, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Send,
{
    async fn status(self, request: Req) -> Option<StatusCode> {
        let response = self.oneshot(request).await.ok()?;
        Some(response.status())
    }
}

/// Answers as it is told, counts what it is sent, and holds calls back.
#[derive(Debug, Clone)]
struct Upstream {
    sent: Arc<AtomicUsize>,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    status: StatusCode,
    retry_after: Option<u32>,
    held: Option<watch::Receiver<()>>,
}

impl Upstream {
    fn new(status: StatusCode) -> Self {
        Self::of(Script {
            status,
            ..Script::default()
        })
    }

    /// 503, with a `Retry-After` of so many seconds.
    fn asking_for_a_rest(seconds: u32) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::of(Script {
            status,
            retry_after: Some(seconds),
            ..Script::default()
        })
    }

    fn of(script: Script) -> Self {
        Self {
            sent: Arc::default(),
            script: Arc::new(Mutex::new(script)),
        }
    }

    fn answers(&self, status: StatusCode) {
        self.script.lock().unwrap().status = status;
    }

    /// Calls from now on are answered when the guard is dropped.
    fn hold(&self) -> watch::Sender<()> {
        let (guard, held) = watch::channel(());
        self.script.lock().unwrap().held = Some(held);
        guard
    }

    /// Calls from now on are answered at once.
    fn go_on(&self) {
        self.script.lock().unwrap().held = None;
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    async fn has_been_sent(&self, calls: usize) {
        while self.sent() < calls {
            tokio::task::yield_now().await;
        }
    }
}

impl<B> Service<Request<B>> for Upstream {
    type Response = Response<Full<Bytes>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let script = self.script.lock().unwrap();
        let held = script.held.clone();
        let mut response = Response::new(Full::default());
        *response.status_mut() = script.status;
        if let Some(seconds) = script.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        Box::pin(async move {
            if let Some(mut held) = held {
                let _ = held.changed().await;
            }
            Ok(response)
        })
    }
}

/// Long beside a pause of a loaded machine, within which no probe may run out of time.
const OPEN: Duration = Duration::from_millis(200);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const FLOOD: usize = 10_000;
