//! Settings on trial: nothing is rejected, and what would have been is counted.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_keep::{
    Rejected, RejectedKind,
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    gate::{GateLayer, Shadow},
    protocol::Plain,
    rate_limit::{Rate, RateLimitLayer},
    throttle::ThrottleLayer,
};

const SECOND: Duration = Duration::from_secs(1);

async fn answer(good: bool) -> Result<(), BoxError> {
    if good { Ok(()) } else { Err("down".into()) }
}

/// Sends calls one after the other; how many were answered by the service itself.
async fn answered<S>(service: S, good: bool, calls: usize) -> usize
where
    S: Service<bool, Response = (), Error = BoxError> + Clone,
{
    let mut answered = 0;
    for _ in 0..calls {
        let result = service.clone().oneshot(good).await;
        let rejected = result.is_err_and(|error| Rejected::find(&*error).is_some());
        answered += usize::from(!rejected);
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn a_circuit_on_trial_opens_and_rejects_nothing() {
    let candidate = CircuitBreakerLayer::builder().min_calls(4).open_for(SECOND);
    let candidate = candidate
        .jitter(false)
        .protocol(Plain::new())
        .build()
        .unwrap();
    let circuit = candidate.handle();
    let shadow = candidate.shadow("circuit");
    let service = shadow.layer(service_fn(answer));
    let tried = || {
        let tried = shadow.handle().snapshot();
        (
            tried.calls,
            tried.would_reject.of(RejectedKind::CircuitOpen),
        )
    };

    assert_eq!(answered(service.clone(), false, 10).await, 10);
    assert_eq!(circuit.state(), BreakerState::Open);
    assert_eq!(tried(), (10, 6));
    // It probes as a real one does, and closes.
    advance(SECOND).await;
    assert_eq!(answered(service.clone(), true, 10).await, 10);
    assert_eq!(circuit.state(), BreakerState::Closed);
    assert_eq!(tried(), (20, 6));
    // An open one does not hold `poll_ready` up either.
    circuit.force_open();
    assert_eq!(answered(service, true, 1).await, 1);
    assert_eq!(tried(), (21, 7));
}

#[tokio::test(start_paused = true)]
async fn a_rate_on_trial_counts_what_is_over_it() {
    let candidate = RateLimitLayer::builder(Rate::per_second(4))
        .build()
        .unwrap();
    let shadow = candidate.shadow("rate");
    let service = shadow.layer(service_fn(answer));
    assert_eq!(answered(service.clone(), true, 10).await, 10);
    advance(SECOND).await;
    assert_eq!(answered(service, true, 5).await, 5);
    let tried = shadow.handle().snapshot();
    assert_eq!(tried.would_reject.of(RejectedKind::RateLimited), 7);
    assert_eq!(tried.would_wait, 0);
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_on_trial_holds_what_it_would_admit() {
    let candidate = BulkheadLayer::builder(2).build().unwrap();
    let places = candidate.handle();
    let shadow = candidate.shadow("bulkhead");
    let service = shadow.layer(service_fn(async |(): ()| {
        sleep(SECOND).await;
        Ok::<_, BoxError>(())
    }));
    let calls = join_all((0..5).map(|_| service.clone().oneshot(())));
    let mut calls = Box::pin(calls);
    assert!(futures::poll!(&mut calls).is_pending());
    assert_eq!(places.snapshot().in_flight, 2);
    // Of calls that are dropped it gets its places back.
    let mut dropped = Box::pin(service.clone().oneshot(()));
    assert!(futures::poll!(&mut dropped).is_pending());
    drop(dropped);
    assert!(calls.await.into_iter().all(|call| call.is_ok()));
    assert_eq!(places.snapshot().in_flight, 0);
    let tried = shadow.handle().snapshot();
    assert_eq!(tried.would_reject.of(RejectedKind::BulkheadFull), 4);
}

#[tokio::test(start_paused = true)]
async fn a_queue_on_trial_lets_nobody_wait() {
    let candidate = RateLimitLayer::builder(Rate::per_second(1)).max_wait(9 * SECOND);
    let candidate = candidate.build().unwrap();
    let limit = candidate.handle();
    let shadow = candidate.shadow("queue");
    let calls = answered(shadow.layer(service_fn(answer)), true, 5);
    assert_eq!(timeout(Duration::from_millis(1), calls).await, Ok(5));
    assert_eq!(shadow.handle().snapshot().would_wait, 4);
    assert_eq!(limit.snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_on_trial_rejects_nothing() {
    let candidate = ThrottleLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let shadow = candidate.shadow("throttle");
    let service = shadow.layer(service_fn(answer));
    assert_eq!(answered(service, false, 500).await, 500);
    let tried = shadow.handle().snapshot();
    assert!(
        tried.would_reject.of(RejectedKind::Throttled) > 100,
        "{tried:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn keyed_and_paired_gates_run_beside_the_real_gate() {
    let keyed = RateLimitLayer::builder(Rate::per_second(1)).keyed_by(|good: &bool| Some(*good));
    let keyed = keyed.build().unwrap().shadow("keyed");
    let service = keyed.layer(service_fn(answer));
    assert_eq!(answered(service.clone(), true, 2).await, 2);
    assert_eq!(answered(service, false, 2).await, 2);
    assert_eq!(keyed.handle().snapshot().would_reject.local(), 2);

    let real = RateLimitLayer::builder(Rate::per_second(5)).gate().unwrap();
    let limit = RateLimitLayer::builder(Rate::per_second(3)).gate().unwrap();
    let bulkhead = BulkheadLayer::builder(1).gate().unwrap();
    let candidate = Shadow::new((limit, bulkhead), "pair");
    let handle = candidate.handle();
    let layer = GateLayer::new((real, candidate)).protocol(Plain::new());
    assert_eq!(answered(layer.layer(service_fn(answer)), true, 10).await, 5);
    let tried = handle.snapshot();
    assert_eq!((tried.calls, tried.would_reject.local()), (5, 2));
}

mod audit {
    use std::{convert::Infallible, sync::Arc, sync::Mutex};

    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::Empty;
    use tower::{BoxError, Layer, ServiceExt, service_fn};

    use tower_keep::{
        RejectedKind,
        bulkhead::BulkheadLayer,
        circuit_breaker::CircuitBreakerLayer,
        protocol::{
            WouldReject,
            http::{Client, Server},
        },
        rate_limit::{Rate, RateLimitLayer},
        stack,
    };

    type Body = Empty<Bytes>;

    fn ask() -> Request<Body> {
        Request::get("http://host/").body(Body::new()).unwrap()
    }

    fn kind(extensions: &http::Extensions) -> Option<RejectedKind> {
        let mark = extensions.get::<WouldReject>()?;
        Some(mark.0.kind)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_marks_what_a_limit_would_reject() {
        let limit = RateLimitLayer::builder(Rate::per_second(1)).burst(2);
        let audit = limit.protocol(Server::new()).build().unwrap().audit("two");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let handler = service_fn(move |request: Request<Body>| {
            noted.lock().unwrap().push(kind(request.extensions()));
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::new())))
        });
        // Around a stack, whose own limits hold.
        let stack = stack::server().http().max_in_flight(9).build().unwrap();
        let service = audit.layer(stack.layer(handler));
        let limited = Some(RejectedKind::RateLimited);
        for expected in [None, None, limited] {
            let answer = service.clone().oneshot(ask()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(kind(answer.extensions()), expected);
            let field = answer.headers().get("x-would-reject");
            assert_eq!(
                field.is_some_and(|kind| kind == "rate_limited"),
                expected.is_some()
            );
        }
        assert_eq!(*seen.lock().unwrap(), [None, None, limited]);
        let tried = audit.handle().snapshot();
        assert_eq!(
            (
                tried.calls,
                tried.would_reject.of(RejectedKind::RateLimited)
            ),
            (3, 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_marks_what_a_circuit_would_reject() {
        let breaker = CircuitBreakerLayer::builder().consecutive_failures(2);
        let audit = breaker
            .protocol(Client::new())
            .build()
            .unwrap()
            .audit("two");
        let service = audit.layer(service_fn(async |_: Request<Body>| {
            let mut response = Response::new(Body::new());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok::<_, BoxError>(response)
        }));
        let mut marks = Vec::new();
        for _ in 0..4 {
            let answer = service.clone().oneshot(ask()).await.unwrap();
            marks.push(kind(answer.extensions()));
            assert!(
                !answer.headers().contains_key("x-would-reject"),
                "a server's field"
            );
        }
        let open = Some(RejectedKind::CircuitOpen);
        assert_eq!(
            marks,
            [None, None, open, open],
            "the candidate learns of results"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_frees_the_candidates_place() {
        let places = BulkheadLayer::builder(1)
            .protocol(Server::new())
            .build()
            .unwrap();
        let handle = places.handle();
        let service = places
            .audit("one")
            .layer(service_fn(async |_: Request<Body>| {
                std::future::pending::<Result<Response<Body>, Infallible>>().await
            }));
        let running = tokio::spawn(service.clone().oneshot(ask()));
        tokio::task::yield_now().await;
        assert_eq!(handle.snapshot().in_flight, 1);
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert_eq!(handle.snapshot().in_flight, 0);
    }
}
