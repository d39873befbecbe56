//! The end of a call by its caller's own deadline: it is not the upstream's fault, unless good
//! answers would have been there by then.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Deadline, Rejected, RejectedKind,
    algorithm::BreakerState,
    bulkhead::BulkheadLayer,
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerLayer},
    protocol::http::{Client, Server, UntilBodyEnd},
    rate_limit::{Rate, RateLimitLayer},
    stack,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

type Ask = Request<Empty<Bytes>>;
type Answer = Response<Empty<Bytes>>;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The `n`th of a row of requests, with a deadline if it has one.
fn ask(n: u64, deadline: Option<u64>) -> Ask {
    let uri = format!("http://shop.example/{n}");
    let mut request = Request::get(uri).body(Empty::new()).unwrap();
    if let Some(deadline) = deadline {
        let deadline = Deadline::after(ms(deadline));
        request.extensions_mut().insert(deadline);
    }
    request
}

/// Answers after 20 ms. Of ten calls in a row the first `hang` never end.
fn upstream<B: Send + 'static>(
    hang: u64,
) -> impl Service<Request<B>, Response = Answer, Error = io::Error, Future: Send> + Clone + Send + Sync
{
    service_fn(move |request: Request<B>| async move {
        let n: u64 = request.uri().path()[1..].parse().unwrap();
        if n % 10 < hang {
            std::future::pending::<()>().await;
        }
        sleep(ms(20)).await;
        Ok(Response::new(Empty::new()))
    })
}

/// Sends calls one after the other, and returns the state of the circuit in the end.
async fn calls<S>(
    service: S,
    calls: impl Iterator<Item = Ask>,
    circuit: impl Fn() -> CircuitBreakerHandle,
) -> BreakerState
where
    S: Service<Ask> + Clone,
{
    for ask in calls {
        let _ = service.clone().oneshot(ask).await;
    }
    circuit().state()
}

/// The state of the default client's circuit after 40 calls of one deadline.
async fn state_after(deadline: u64, hang: u64) -> BreakerState {
    let stack = stack::client().http().without_retry().build().unwrap();
    let handle = stack.handle().circuit_breaker;
    let asks = (0..40).map(|n| ask(n, Some(deadline)));
    let circuit = || handle.key(&"shop.example".parse().unwrap()).unwrap();
    calls(stack.layer(upstream(hang)), asks, circuit).await
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_open_no_circuit() {
    for deadline in [1, 5, 15, 19] {
        assert_eq!(state_after(deadline, 0).await, BreakerState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn impatience_beside_good_answers_opens_no_circuit() {
    let stack = stack::client().http().without_retry().build().unwrap();
    let handle = stack.handle().circuit_breaker;
    // Nine of ten callers wait for 10 ms, of answers that take 20.
    let asks = (0..200).map(|n| ask(n, if n % 10 == 0 { None } else { Some(10) }));
    let circuit = || handle.key(&"shop.example".parse().unwrap()).unwrap();
    let state = calls(stack.layer(upstream(0)), asks, circuit).await;
    assert_eq!(state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn hung_calls_open_the_circuit_by_callers_deadlines() {
    assert_eq!(state_after(200, 6).await, BreakerState::Open);
    assert_eq!(state_after(200, 0).await, BreakerState::Closed);
    assert_eq!(state_after(200, 2).await, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_watched_threshold_tells_what_is_slow() {
    for (deadline, expected) in [(90, BreakerState::Closed), (110, BreakerState::Open)] {
        let breaker = CircuitBreakerLayer::builder().slow_calls(ms(100), 0.5);
        let breaker = breaker.min_calls(8).protocol(Client::new());
        let breaker = breaker.build().unwrap();
        let timeout = TimeoutLayer::builder(Duration::from_secs(3));
        let timeout = timeout.protocol(Client::new()).build().unwrap();
        let service = breaker.layer(timeout.layer(upstream(6)));
        let asks = (0..40).map(|n| ask(n, Some(deadline)));
        let state = calls(service, asks, || breaker.handle()).await;
        assert_eq!(state, expected, "{deadline} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeouts_own_limit_is_the_upstreams_fault() {
    let timeout = TimeoutLayer::builder(ms(50)).protocol(Client::new());
    let service = timeout.build().unwrap().layer(upstream(10));
    for (deadline, by_caller) in [(None, false), (Some(80), false), (Some(40), true)] {
        let error: BoxError = service.clone().oneshot(ask(0, deadline)).await.unwrap_err();
        let rejected = Rejected::find(&*error).unwrap();
        assert_eq!(rejected.kind, RejectedKind::TimedOut);
        assert_eq!(rejected.is_by_callers_deadline(), by_caller);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_open_a_servers_circuit() {
    for in_body in [false, true] {
        let server = Server::new().read_deadline(true);
        let breaker = CircuitBreakerLayer::builder().min_calls(5);
        let timeout = TimeoutLayer::builder(Duration::from_secs(10)).protocol(server);
        let inner = timeout.build().unwrap().layer(upstream(0));
        let asks = (0..40).map(|n| {
            let mut ask = ask(n, None);
            let headers = ask.headers_mut();
            headers.insert("grpc-timeout", "1m".parse().unwrap());
            ask
        });
        let state = if in_body {
            let breaker = breaker.protocol(UntilBodyEnd::new(server)).build().unwrap();
            calls(breaker.layer(inner), asks, || breaker.handle()).await
        } else {
            let breaker = breaker.protocol(server).build().unwrap();
            calls(breaker.layer(inner), asks, || breaker.handle()).await
        };
        assert_eq!(state, BreakerState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cut_short_gives_its_slot_back() {
    let breaker = CircuitBreakerLayer::builder().probes(1).open_for(ms(100));
    let breaker = breaker.jitter(false).consecutive_failures(1);
    let breaker = breaker.protocol(Client::new()).build().unwrap();
    let timeout = TimeoutLayer::builder(ms(500)).protocol(Client::new());
    let service = breaker.layer(timeout.build().unwrap().layer(upstream(1)));
    let circuit = breaker.handle();
    // given: open
    assert!(service.clone().oneshot(ask(0, None)).await.is_err());
    assert_eq!(circuit.state(), BreakerState::Open);
    sleep(ms(100)).await;
    // when
    assert!(service.clone().oneshot(ask(1, Some(5))).await.is_err());
    // then
    assert_eq!(circuit.state(), BreakerState::HalfOpen);
    assert!(service.oneshot(ask(1, None)).await.is_ok());
    assert_eq!(circuit.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn impatience_is_no_sign_of_overload() {
    let throttle = ThrottleLayer::builder().protocol(Client::new());
    let throttle = throttle.build().unwrap();
    let bulkhead = BulkheadLayer::builder(10).protocol(Client::new());
    let bulkhead = bulkhead.build().unwrap();
    let timeout = TimeoutLayer::builder(Duration::from_secs(3)).protocol(Client::new());
    let inner = timeout.build().unwrap().layer(upstream(0));
    let service = throttle.layer(bulkhead.layer(inner));
    for n in 0..100 {
        assert!(service.clone().oneshot(ask(n, Some(5))).await.is_err());
    }
    let seen = throttle.handle().snapshot().totals;
    assert_eq!((seen.failure, seen.cancelled), (0, 100));
    let seen = bulkhead.handle().snapshot();
    assert_eq!((seen.in_flight, seen.totals.cancelled), (0, 100));
}

/// A call that would wait in a server's stack until after its deadline, and one that would not.
#[tokio::test(start_paused = true)]
async fn a_server_lets_no_call_wait_past_its_deadline() {
    for sent in [false, true] {
        let limit = RateLimitLayer::builder(Rate::per_second(1)).max_wait(ms(9000));
        let stack = stack::server()
            .http()
            .protocol(|server| server.read_deadline(true))
            .rate_limit(limit)
            .max_in_flight(10);
        let service = stack.build().unwrap().layer(upstream(0));
        let ask = |deadline: u64| {
            let mut request = ask(1, (!sent).then_some(deadline));
            if sent {
                let name = "x-envoy-expected-rq-timeout-ms";
                request.headers_mut().insert(name, deadline.into());
            }
            service.clone().oneshot(request)
        };
        assert_eq!(ask(5000).await.unwrap().status(), 200);
        let start = Instant::now();
        let answer = ask(500).await.unwrap();
        let rejected = answer.extensions().get::<Rejected>().unwrap();
        assert_eq!(
            (rejected.kind, rejected.layer),
            (RejectedKind::RateLimited, "rate_limit")
        );
        assert!(start.elapsed() < ms(1));
        assert_eq!(ask(1500).await.unwrap().status(), 200);
    }
}
