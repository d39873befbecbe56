//! Two runs of one seed are equal, event for event: each layer and both stacks.
#![expect(clippy::disallowed_methods, reason = "a trace has times")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::{runtime, task::JoinSet, time};
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneService};
use tower_keep::{
    algorithm::{Aimd, BreakerState},
    bulkhead::BulkheadLayer,
    circuit_breaker::CircuitBreakerLayer,
    fallback::FallbackLayer,
    hedge::HedgeLayer,
    keyed,
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    retry::RetryLayer,
    stack,
    testing::{self, Chance},
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

type Service<Req, Res> = BoxCloneService<Req, Res, BoxError>;
type Trace = Arc<Mutex<Vec<(Duration, u64, String)>>>;

/// Sends 400 calls, one every 3 ms, through what `build` makes, and returns what happened when: at
/// the upstream and to callers.
fn trace<Req, Res>(
    seed: u64,
    request: fn(u64) -> Req,
    build: impl Fn(Recorder) -> Service<Req, Res>,
) -> Vec<(Duration, u64, String)>
where
    Req: 'static + Send,
    Res: 'static + Send,
{
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let run = async {
        let recorder = Recorder::start();
        let service = build(recorder.clone());
        let mut calls = JoinSet::new();
        for number in 0..400 {
            let (service, recorder) = (service.clone(), recorder.clone());
            calls.spawn(async move {
                let end = match service.oneshot(request(number)).await {
                    Ok(_) => "answered".to_owned(),
                    Err(error) => error.to_string(),
                };
                recorder.note(number, end);
            });
            time::sleep(Duration::from_millis(3)).await;
        }
        while calls.join_next().await.is_some() {}
        recorder.trace.lock().unwrap().clone()
    };
    testing::seeded(seed, || runtime.block_on(run))
}

#[derive(Clone)]
struct Recorder {
    trace: Trace,
    start: time::Instant,
}

impl Recorder {
    fn start() -> Self {
        Self {
            trace: Trace::default(),
            start: time::Instant::now(),
        }
    }

    fn note(&self, number: u64, what: String) {
        let event = (self.start.elapsed(), number, what);
        self.trace.lock().unwrap().push(event);
    }

    /// Takes 20 ms, of some calls 90; most calls from the 60th to the 360th fail.
    async fn answer(self, number: u64) -> Result<u64, BoxError> {
        self.note(number, "arrived".into());
        let slow = number % 11 == 0;
        time::sleep(Duration::from_millis(if slow { 90 } else { 20 })).await;
        match (60..360).contains(&number) && number % 10 != 0 {
            true => Err("down".into()),
            false => Ok(number),
        }
    }

    fn upstream(self) -> Service<u64, u64> {
        service_fn(move |number| self.clone().answer(number)).boxed_clone()
    }
}

/// The traces of one seed are equal; if the layer draws at all, those of two seeds are not.
fn is_determined(draws: bool, build: impl Fn(Recorder) -> Service<u64, u64> + Sync) {
    let run = |seed| trace(seed, |number| number, &build);
    let first = run(7);
    assert!(first.len() >= 400, "{}", first.len());
    assert!(first == run(7), "two runs of one seed differ");
    // Another thread counts on other stripes.
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| run(7)).join().unwrap());
    assert!(first == elsewhere, "another thread runs otherwise");
    if draws {
        assert!(first != run(8), "nothing was drawn");
    }
}

/// Hundreds of keys, so that tables overflow.
fn key(number: &u64) -> Option<u64> {
    Some(number % 97)
}

#[test]
fn a_retry_is_determined_by_the_seed() {
    is_determined(true, |upstream| {
        let retry = RetryLayer::builder().protocol(Plain::new().idempotent());
        retry
            .build()
            .unwrap()
            .layer(upstream.upstream())
            .boxed_clone()
    });
}

#[test]
fn a_circuit_breaker_is_determined_by_the_seed() {
    is_determined(true, |upstream| {
        let breaker = CircuitBreakerLayer::builder()
            .protocol(Plain::new())
            .open_for(Duration::from_millis(100))
            .growing_to(Duration::from_secs(1))
            .ramp(Duration::from_millis(300));
        breaker
            .build()
            .unwrap()
            .layer(upstream.upstream())
            .boxed_clone()
    });
}

#[test]
fn keyed_circuit_breakers_are_determined_by_the_seed() {
    is_determined(true, |upstream| {
        let breaker = CircuitBreakerLayer::builder()
            .protocol(Plain::new())
            .min_calls(1)
            .open_for(Duration::from_millis(285))
            .keyed_by(key)
            .max_keys(8);
        breaker
            .build()
            .unwrap()
            .layer(upstream.upstream())
            .boxed_clone()
    });
}

#[test]
fn a_throttle_is_determined_by_the_seed() {
    is_determined(true, |upstream| {
        let throttle = ThrottleLayer::builder().protocol(Plain::new());
        throttle
            .build()
            .unwrap()
            .layer(upstream.upstream())
            .boxed_clone()
    });
}

#[test]
fn a_table_of_rate_limits_is_determined_by_the_seed() {
    is_determined(true, |upstream| {
        let limit = RateLimitLayer::builder(Rate::per_second(1))
            .keyed_by(key)
            .max_keys(16)
            .max_wait(Duration::from_millis(400));
        limit
            .build()
            .unwrap()
            .layer(upstream.upstream())
            .boxed_clone()
    });
}

#[test]
fn a_bulkhead_is_determined_by_the_seed() {
    is_determined(false, |upstream| {
        let bulkhead = BulkheadLayer::builder(20)
            .adaptive(Aimd::default())
            .keyed_by(|number: &u64| Some(number % 3))
            .max_wait(Duration::from_millis(30));
        bulkhead
            .build()
            .unwrap()
            .layer(upstream.upstream())
            .boxed_clone()
    });
}

#[test]
fn a_hedge_is_determined_by_the_seed() {
    is_determined(false, |upstream| {
        let hedge = HedgeLayer::builder()
            .delay(Duration::from_millis(30))
            .protocol(Plain::new().idempotent());
        hedge
            .build()
            .unwrap()
            .layer(upstream.upstream())
            .boxed_clone()
    });
}

#[test]
fn timeouts_and_fallbacks_are_determined() {
    is_determined(false, |upstream| {
        let timeout = TimeoutLayer::builder(Duration::from_millis(50))
            .build()
            .unwrap();
        let fallback = FallbackLayer::value(0)
            .protocol(Plain::new())
            .build()
            .unwrap();
        fallback
            .layer(timeout.layer(upstream.upstream()))
            .boxed_clone()
    });
}

fn to_a_host(number: u64) -> Request<Empty<Bytes>> {
    let uri = format!("http://host-{}/{number}", number % 3);
    Request::get(uri).body(Empty::new()).unwrap()
}

async fn over_http<B>(
    recorder: Recorder,
    request: Request<B>,
) -> Result<Response<Empty<Bytes>>, BoxError> {
    let number = request.uri().path()[1..].parse()?;
    let answer = recorder.answer(number).await;
    let status = if answer.is_ok() { 200 } else { 503 };
    Ok(Response::builder().status(status).body(Empty::new())?)
}

#[test]
fn the_client_stack_is_determined_by_the_seed() {
    let run = |seed| {
        trace(seed, to_a_host, |recorder| {
            let upstream = service_fn(move |request| over_http(recorder.clone(), request));
            stack::client()
                .http()
                .build()
                .unwrap()
                .layer(upstream)
                .boxed_clone()
        })
    };
    assert!(run(7) == run(7), "two runs of one seed differ");
    assert!(run(7) != run(8), "nothing was drawn");
}

#[test]
fn the_server_stack_is_determined_by_the_seed() {
    let run = |seed| {
        trace(seed, to_a_host, |recorder| {
            let handler = service_fn(move |request| over_http(recorder.clone(), request));
            let tenants = RateLimitLayer::builder(Rate::per_second(20))
                .keyed_by(|request: &Request<Empty<Bytes>>| Some(request.uri().path().to_owned()))
                .max_keys(64);
            let server = stack::server().http().rate_limit(tenants).max_in_flight(5);
            let service = server.build().unwrap().layer(handler);
            service.map_err(BoxError::from).boxed_clone()
        })
    };
    assert!(run(7) == run(7), "two runs of one seed differ");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_without_jitter_opens_for_its_time() {
    let _chance = Chance::seeded(1).without_jitter().enter();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .min_calls(1);
    let breaker = breaker.build().unwrap();
    let recorder = Recorder::start();
    let service = breaker.layer(recorder.upstream());
    service.clone().oneshot(61).await.unwrap_err();
    assert_eq!(breaker.handle().state(), BreakerState::Open);
    let opens_for = breaker.handle().snapshot().until_half_open;
    assert_eq!(opens_for, Some(Duration::from_secs(30)));
    assert!(breaker.handle().config().jitter, "the setting stays");
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_jitter_waits_by_the_formula() {
    let _chance = Chance::current().without_jitter().enter();
    let retry = RetryLayer::builder().protocol(Plain::new().idempotent());
    let recorder = Recorder::start();
    let service = retry.build().unwrap().layer(recorder.clone().upstream());
    service.oneshot(61).await.unwrap_err();
    let trace = recorder.trace.lock().unwrap().clone();
    let sent: Vec<_> = trace.iter().map(|(at, ..)| at.as_millis()).collect();
    assert_eq!(sent, [0, 120, 340]); // 20 ms each, then 100 ms and 200 ms
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_forced_open_before_its_first_call() {
    let stack = stack::client().http().build().unwrap();
    let host = "host-1".parse::<keyed::Host>().unwrap();
    stack
        .handle()
        .circuit_breaker
        .make(&host)
        .unwrap()
        .force_open();
    let recorder = Recorder::start();
    let upstream = service_fn(move |request| over_http(recorder.clone(), request));
    let service = stack.layer(upstream);
    let error = service.clone().oneshot(to_a_host(1)).await.unwrap_err();
    assert!(tower_keep::Rejected::find(&*error).is_some(), "{error}");
    service.oneshot(to_a_host(2)).await.unwrap();
}
