//! A retry above a circuit breaker: it does not wait for what the circuit is certain to reject.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests look at tokio's clock, which is paused"
)]

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use tokio::time::{Instant, advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use tower_keep::{
    Rejected, RejectedKind,
    algorithm::{Backoff, BreakerState, Jitter, RetryBudget},
    budget::KeyedBudgets,
    circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerLayer},
    gate::FindKey,
    keyed::{ByHost, Host},
    protocol::{Plain, http::Client},
    retry::{RetryBuilder, RetryLayer},
    stack,
};

type Ask = Request<Empty<Bytes>>;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn ask(host: &str) -> Ask {
    let request = Request::get(format!("http://{host}/"));
    request.body(Empty::new()).unwrap()
}

/// Answers 503.
fn unavailable<B: Send + 'static>()
-> impl Service<Request<B>, Response = Response<Empty<Bytes>>, Error = io::Error, Future: Send>
+ Clone
+ Send
+ Sync {
    service_fn(async |_: Request<B>| {
        let response = Response::builder().status(503);
        Ok(response.body(Empty::new()).unwrap())
    })
}

/// Opens with the second failure in a row, for a second.
fn breaker(builder: CircuitBreakerBuilder) -> CircuitBreakerBuilder {
    let builder = builder.consecutive_failures(2).failure_rate(None);
    builder.open_for(ms(1_000)).jitter(false).probes(1)
}

/// Four attempts, 200 ms apart.
fn retry(builder: RetryBuilder) -> RetryBuilder {
    let backoff = Backoff::new(ms(200), ms(400), Jitter::Equal).unwrap();
    builder.attempts(4).backoff(backoff)
}

/// Calls, and returns what came of it and how long that took.
async fn call<S>(service: &S, ask: Ask) -> (Result<StatusCode, RejectedKind>, Duration)
where
    S: Service<Ask, Response = Response<Empty<Bytes>>, Error = BoxError> + Clone,
{
    let start = Instant::now();
    let answer = match service.clone().oneshot(ask).await {
        Ok(response) => Ok(response.status()),
        Err(error) => Err(Rejected::find(&*error).unwrap().kind),
    };
    (answer, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_is_not_retried_while_open() {
    let breaker = breaker(CircuitBreakerLayer::builder());
    let breaker = breaker.protocol(Client::new()).build().unwrap();
    let circuit = breaker.handle();
    let retry = retry(RetryLayer::builder()).stop_while_open(circuit.clone());
    let retry = retry.protocol(Client::new()).build().unwrap();
    let service = retry.layer(breaker.layer(unavailable()));
    // The second attempt opens the circuit: there is no third.
    let (answer, took) = call(&service, ask("a")).await;
    assert_eq!(answer, Ok(StatusCode::SERVICE_UNAVAILABLE));
    assert!(took <= ms(200), "{took:?}");
    assert_eq!(circuit.state(), BreakerState::Open);
    advance(ms(1_000)).await;
    // The probe fails, and opens it again.
    let (answer, took) = call(&service, ask("a")).await;
    assert_eq!(answer, Ok(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(took, Duration::ZERO);
    let seen = retry.handle().snapshot();
    assert_eq!((seen.retries, seen.not_sent), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_may_let_it_through_is_tried() {
    let breaker = breaker(CircuitBreakerLayer::builder()).open_for(ms(50));
    let breaker = breaker.protocol(Client::new()).build().unwrap();
    let retry = retry(RetryLayer::builder()).stop_while_open(breaker.handle());
    let retry = retry.protocol(Client::new()).build().unwrap();
    let service = retry.layer(breaker.layer(unavailable()));
    let (answer, _) = call(&service, ask("a")).await;
    assert_eq!(answer, Ok(StatusCode::SERVICE_UNAVAILABLE));
    // Each wait is longer than the circuit is open.
    assert_eq!(retry.handle().snapshot().retries, 3);
}

#[tokio::test(start_paused = true)]
async fn an_error_stands_if_the_circuit_opens_meanwhile() {
    let breaker = breaker(CircuitBreakerLayer::builder());
    let breaker = breaker.protocol(Plain::new()).build().unwrap();
    let retry = retry(RetryLayer::builder()).stop_while_open(breaker.handle());
    let retry = retry.protocol(Plain::new().idempotent()).build().unwrap();
    let fails = service_fn(async |_: u32| Err::<u32, _>(io::Error::other("broken")));
    let service = retry.layer(breaker.layer(fails));
    let circuit = breaker.handle();
    let forced = async {
        sleep(ms(50)).await;
        circuit.force_open();
    };
    let (answer, ()) = futures::join!(service.oneshot(1), forced);
    assert_eq!(answer.unwrap_err().to_string(), "broken");
}

#[tokio::test(start_paused = true)]
async fn only_the_circuit_of_the_calls_key_counts() {
    let by_host = |request: &Request<_>| -> Option<Host> { ByHost.find(request) };
    let breaker = breaker(CircuitBreakerLayer::builder()).keyed_by(by_host);
    let breaker = breaker.protocol(Client::new()).build().unwrap();
    let circuits = breaker.handle();
    let retry = retry(RetryLayer::builder()).stop_while_open(circuits.clone());
    let retry = retry.budget_per(KeyedBudgets::builder(ByHost).build().unwrap());
    let retry = retry.protocol(Client::new()).build().unwrap();
    let service = retry.layer(breaker.layer(unavailable()));
    for host in ["a", "b"] {
        let (answer, took) = call(&service, ask(host)).await;
        assert_eq!(answer, Ok(StatusCode::SERVICE_UNAVAILABLE));
        assert!((ms(100)..=ms(200)).contains(&took), "{took:?}");
    }
    assert_eq!(retry.handle().snapshot().retries, 2);
}

#[tokio::test(start_paused = true)]
async fn a_clients_stack_does_not_wait_for_an_open_circuit() {
    for shared_budget in [false, true] {
        for one_peer in [false, true] {
            let change = |builder: RetryBuilder| match shared_budget {
                true => retry(builder).budget(RetryBudget::default()),
                false => retry(builder),
            };
            let builder = stack::client().http().retry(change);
            let builder = builder.circuit_breaker(breaker);
            let builder = builder.max_in_flight(10);
            let (retries, first, second) = if one_peer {
                let stack = builder.one_peer().build().unwrap();
                let service = stack.layer(unavailable());
                let first = call(&service, ask("a")).await;
                advance(ms(1_000)).await;
                let second = call(&service, ask("a")).await;
                (stack.handle().retry.snapshot().retries, first, second)
            } else {
                let stack = builder.build().unwrap();
                let service = stack.layer(unavailable());
                let first = call(&service, ask("a")).await;
                advance(ms(1_000)).await;
                let second = call(&service, ask("a")).await;
                (stack.handle().retry.snapshot().retries, first, second)
            };
            let case = format!("shared budget {shared_budget}, one peer {one_peer}");
            assert_eq!(first.0, Ok(StatusCode::SERVICE_UNAVAILABLE), "{case}");
            assert_eq!(second.0, Ok(StatusCode::SERVICE_UNAVAILABLE), "{case}");
            assert_eq!((retries, second.1), (1, Duration::ZERO), "{case}");
        }
    }
}

/// Regression: a request without a host uses the circuit that such requests share, and its retry
/// did not know that. The caller got the circuit's rejection, after the wait.
#[tokio::test(start_paused = true)]
async fn the_circuit_of_calls_without_a_key_counts_too() {
    let builder = stack::client().http().retry(retry);
    let stack = builder.circuit_breaker(breaker).build().unwrap();
    let service = stack.layer(unavailable());
    let ask = || Request::get("/path").body(Empty::new()).unwrap();
    let (answer, took) = call(&service, ask()).await;
    assert_eq!(answer, Ok(StatusCode::SERVICE_UNAVAILABLE));
    assert!(took <= ms(200), "{took:?}");
    let state = stack.handle().circuit_breaker.shared().state();
    assert_eq!(state, BreakerState::Open);
}

/// Regression: the open circuit of the first host ended a call whose next attempt goes to another.
#[tokio::test(start_paused = true)]
async fn an_open_circuit_stops_no_retry_elsewhere() {
    let elsewhere =
        |client: Client| client.before_retry(|head| head.uri = Uri::from_static("http://healthy/"));
    let upstream = service_fn(async |request: Request<_>| {
        let status = match request.uri().host() {
            Some("healthy") => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let response = Response::builder().status(status);
        Ok::<_, io::Error>(response.body(Empty::<Bytes>::new()).unwrap())
    });
    let builder = stack::client().http().protocol(elsewhere).retry(retry);
    let builder = builder.circuit_breaker(|builder| breaker(builder).consecutive_failures(1));
    let stack = builder.build().unwrap();
    let (answer, _) = call(&stack.layer(upstream), ask("down")).await;
    assert_eq!(answer, Ok(StatusCode::OK));
    let circuits = stack.handle().circuit_breaker;
    let down = circuits.key(&"down".parse().unwrap()).unwrap();
    assert_eq!(down.state(), BreakerState::Open);
}
