//! What Tower services get, without a service.
#![expect(
    clippy::disallowed_methods,
    reason = "the clock is tokio's, which is paused"
)]

use std::{
    cell::Cell,
    future::pending,
    io,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{task::yield_now, time::Instant};
use tower::BoxError;
use tower_keep::{
    CallError, Classify, Criticality, Outcome, Rejected, RejectedKind, Run,
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerState, CircuitBreakerLayer},
    gate::GateLayer,
    hedge::HedgeLayer,
    protocol::{Always, Plain},
    rate_limit::{Rate, RateLimitLayer},
    retry::{Backoff, Jitter, RetryLayer},
    run::{self, Call},
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
};

#[derive(Debug, PartialEq)]
enum DbError {
    Down(u32),
    BadQuery,
}

/// Says of any value that it is good, and of a bad query that it is not the database's fault.
#[derive(Debug, Clone, Copy)]
struct DbOutcome;

impl<T> Classify<T, DbError> for DbOutcome {
    fn classify(&self, result: Result<&T, &DbError>) -> Outcome {
        match result {
            Err(DbError::Down(_)) => Outcome::Failure,
            Ok(_) | Err(DbError::BadQuery) => Outcome::Success,
        }
    }
}

fn retries() -> RetryLayer<Plain<DbOutcome, Always>> {
    let protocol = Plain::classify(DbOutcome).idempotent();
    RetryLayer::builder().protocol(protocol).build().unwrap()
}

fn kind<E: std::fmt::Debug>(error: CallError<E>) -> RejectedKind {
    match error {
        CallError::Rejected(rejected) => rejected.kind,
        CallError::Inner(error) => panic!("the function was called: {error:?}"),
    }
}

fn spawnable<T: Send>(future: T) -> T {
    future
}

/// Fails with its attempt's number until it is this one.
async fn up_from(good: u32, attempt: u32) -> Result<u32, DbError> {
    yield_now().await;
    if attempt < good {
        return Err(DbError::Down(attempt));
    }
    Ok(attempt)
}

#[tokio::test(start_paused = true)]
async fn a_retry_calls_the_closure_again() {
    let retry = retries();
    let mut calls = 0;
    let text = String::from("rows");
    let call = retry.run(|| {
        calls += 1;
        let (up, text) = (calls == 3, &text);
        async move {
            if up {
                Ok(text.as_str())
            } else {
                Err(DbError::Down(0))
            }
        }
    });
    assert_eq!(spawnable(call).await, Ok("rows"));
    assert_eq!((calls, retry.handle().snapshot().recovered), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn the_closure_may_take_the_attempts_number() {
    let retry = retries();
    assert_eq!(retry.run(|attempt| up_from(3, attempt)).await, Ok(3));
    let last = retry
        .run(async |attempt: u32| Err::<(), _>(DbError::Down(attempt)))
        .await;
    assert_eq!(last, Err(CallError::Inner(DbError::Down(3))));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_failure_is_not_retried() {
    let (retry, calls) = (retries(), Cell::new(0));
    let bad = retry.run(|| {
        calls.set(calls.get() + 1);
        async { Err::<(), _>(DbError::BadQuery) }
    });
    assert_eq!(bad.await, Err(CallError::Inner(DbError::BadQuery)));
    assert_eq!(calls.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn once_is_never_sent_twice() {
    let hedge = HedgeLayer::builder()
        .protocol(Plain::classify(DbOutcome).idempotent())
        .delay(Duration::from_millis(10))
        .build()
        .unwrap();
    let (layers, calls) = ((retries(), hedge), Cell::new(0));
    let failing = || {
        calls.set(calls.get() + 1);
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err::<(), _>(DbError::Down(calls.get()))
        }
    };
    let error = layers.call().once().run(failing).await.unwrap_err();
    assert_eq!(
        (error, calls.get()),
        (CallError::Inner(DbError::Down(1)), 1)
    );
    layers.run(failing).await.unwrap_err();
    assert!(calls.get() > 3, "{}", calls.get());
}

#[tokio::test(start_paused = true)]
async fn once_is_sent_after_a_local_rejection() {
    let limit = RateLimitLayer::builder(Rate::per_second(1))
        .build()
        .unwrap();
    let retry = RetryLayer::builder()
        .protocol(Plain::new().idempotent())
        .retry_rejected(true)
        .build()
        .unwrap();
    let layers = (retry, limit);
    let insert = async || Ok::<_, DbError>(());
    layers.call().once().run(insert).await.unwrap();
    layers.call().once().run(insert).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_kept_when_the_circuit_opens() {
    let breaker = CircuitBreakerLayer::builder()
        .consecutive_failures(2)
        .protocol(Plain::classify(DbOutcome))
        .build()
        .unwrap();
    let circuit = breaker.handle();
    let layers = (retries(), breaker);
    let failing = |attempt| up_from(9, attempt);

    let error = layers.run(failing).await.unwrap_err();
    assert_eq!(error, CallError::Inner(DbError::Down(2)));
    assert_eq!(circuit.state(), BreakerState::Open);
    let error = layers.run(failing).await.unwrap_err();
    assert_eq!(kind(error), RejectedKind::CircuitOpen);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_kept_through_rejected_retries() {
    let retry = RetryLayer::builder()
        .protocol(Plain::classify(DbOutcome).idempotent())
        .retry_rejected(true)
        .max_retry_after(Duration::from_secs(3600))
        .attempts(4)
        .build()
        .unwrap();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::classify(DbOutcome))
        .build()
        .unwrap();
    let circuit = breaker.handle();
    let layers = (retry, breaker);
    let error = layers.run(|attempt| {
        circuit.force_open();
        up_from(9, attempt)
    });
    assert_eq!(error.await.unwrap_err(), CallError::Inner(DbError::Down(1)));
}

#[tokio::test(start_paused = true)]
async fn each_gate_admits_rejects_and_learns() {
    let ok = async || Ok::<_, DbError>(());
    let limit = RateLimitLayer::builder(Rate::per_minute(1))
        .build()
        .unwrap();
    limit.run(ok).await.unwrap();
    let why = limit.run(ok).await.unwrap_err();
    assert!(why.rejected().unwrap().retry_after.is_some());
    assert_eq!(kind(why), RejectedKind::RateLimited);

    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    let held = bulkhead.run(pending::<Result<(), DbError>>);
    let mut held = Box::pin(held);
    assert_eq!(held.as_mut().now_or_never(), None);
    assert_eq!(
        kind(bulkhead.run(ok).await.unwrap_err()),
        RejectedKind::BulkheadFull
    );
    drop(held);
    bulkhead.run(ok).await.unwrap();

    let throttle = ThrottleLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let mut throttled = 0;
    for _ in 0..500 {
        let error = throttle
            .run(async || Err::<(), _>(DbError::Down(0)))
            .await
            .unwrap_err();
        throttled += u32::from(error.rejected().is_some());
    }
    assert!(throttled > 100, "{throttled}");

    let timeout = TimeoutLayer::builder(Duration::from_secs(1))
        .build()
        .unwrap();
    let hung = timeout.run(pending::<Result<(), DbError>>).await;
    assert_eq!(kind(hung.unwrap_err()), RejectedKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn gates_in_one_layer_run_functions() {
    let breaker = CircuitBreakerLayer::builder().gate().unwrap();
    let (circuit, limit) = (
        breaker.handle(),
        RateLimitLayer::builder(Rate::per_minute(9)).gate(),
    );
    let layer = GateLayer::new((breaker, limit.unwrap())).protocol(Plain::new());
    let ok = async || Ok::<_, DbError>(7);
    assert_eq!(layer.run(ok).await, Ok(7));
    circuit.force_open();
    assert_eq!(
        kind(layer.run(ok).await.unwrap_err()),
        RejectedKind::CircuitOpen
    );
}

#[tokio::test(start_paused = true)]
async fn a_queued_call_runs_in_its_turn() {
    let bulkhead = BulkheadLayer::builder(1)
        .max_wait(Duration::from_secs(5))
        .build()
        .unwrap();
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, DbError>(())
    };
    let began = Instant::now();
    let (first, second) = tokio::join!(bulkhead.run(slow), bulkhead.run(slow));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_keyed_by_what_it_says() {
    let limit = RateLimitLayer::builder(Rate::per_minute(2))
        .burst(2)
        .keyed_by(run::key::<str>)
        .build()
        .unwrap();
    let (acme, ok) = (String::from("acme"), async || Ok::<_, DbError>(()));
    limit.call().key(&*acme).run(ok).await.unwrap();
    limit.call().key("acme").run(ok).await.unwrap();
    let error = limit.call().key(acme.as_str()).run(ok).await.unwrap_err();
    assert_eq!(kind(error), RejectedKind::RateLimited);
    limit.call().key("other").run(ok).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_costs_what_it_says() {
    let limit = RateLimitLayer::builder(Rate::per_minute(5))
        .burst(5)
        .build()
        .unwrap();
    let ok = async || Ok::<_, DbError>(());
    limit.call().cost(3).run(ok).await.unwrap();
    assert_eq!(
        kind(limit.call().cost(3).run(ok).await.unwrap_err()),
        RejectedKind::RateLimited
    );
    limit.call().cost(2).run(ok).await.unwrap();
    assert_eq!(
        kind(limit.call().cost(6).run(ok).await.unwrap_err()),
        RejectedKind::CostTooHigh
    );

    let by_closure = RateLimitLayer::builder(Rate::per_minute(5))
        .burst(5)
        .cost(|call: &Call| call.cost() * 5)
        .build()
        .unwrap();
    by_closure.run(ok).await.unwrap();
    assert_eq!(
        kind(by_closure.run(ok).await.unwrap_err()),
        RejectedKind::RateLimited
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_no_longer_than_it_says() {
    let bulkhead = BulkheadLayer::builder(1)
        .max_wait(Duration::from_secs(60))
        .build()
        .unwrap();
    let hang = pending::<Result<(), DbError>>;
    let second = Duration::from_secs(1);
    let began = Instant::now();
    let hung = bulkhead.call().timeout(second).run(hang).await;
    assert_eq!(kind(hung.unwrap_err()), RejectedKind::TimedOut);
    assert_eq!(
        (began.elapsed(), bulkhead.handle().snapshot().in_flight),
        (second, 0)
    );

    let mut held = Box::pin(bulkhead.run(hang));
    assert_eq!(held.as_mut().now_or_never(), None);
    let queued = bulkhead.call().timeout(second).run(hang).await.unwrap_err();
    assert!(kind(queued).is_local() && began.elapsed() == 2 * second);
    let zero = bulkhead.call().timeout(Duration::ZERO).run(hang).await;
    assert_eq!(kind(zero.unwrap_err()), RejectedKind::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_retry_keeps_the_error_at_the_calls_deadline() {
    let backoff = Backoff::new(
        Duration::from_secs(2),
        Duration::from_secs(9),
        Jitter::default(),
    );
    let retry = RetryLayer::builder()
        .protocol(Plain::classify(DbOutcome).idempotent())
        .backoff(backoff.unwrap())
        .build()
        .unwrap();
    let call = retry.call().timeout(Duration::from_secs(1));
    let error = call.run(|attempt| up_from(9, attempt)).await.unwrap_err();
    assert_eq!(error, CallError::Inner(DbError::Down(1)));
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_gives_way_to_the_calls_own() {
    let total = TimeoutLayer::builder(Duration::from_secs(1))
        .total(true)
        .build()
        .unwrap();
    let attempt = TimeoutLayer::builder(Duration::from_secs(1))
        .build()
        .unwrap();
    let layers = (total, attempt);
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok::<_, DbError>(())
    };
    let ten = Duration::from_secs(10);
    layers
        .call()
        .timeout(ten)
        .attempt_timeout(ten)
        .run(slow)
        .await
        .unwrap();
    assert_eq!(
        kind(layers.run(slow).await.unwrap_err()),
        RejectedKind::TimedOut
    );
}

/// Regression: to layers around a function, a call ended by its caller's own time had failed.
#[tokio::test(start_paused = true)]
async fn impatient_callers_of_functions_open_nothing() {
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, DbError>(())
    };
    let circuit = CircuitBreakerLayer::builder().protocol(Plain::classify(DbOutcome));
    let second = TimeoutLayer::builder(Duration::from_secs(1));
    let layers = (circuit.build().unwrap(), second.build().unwrap());
    let protocol = Plain::classify(DbOutcome).idempotent();
    let stack = tower_keep::stack::client().plain(protocol).build().unwrap();
    for _ in 0..40 {
        let millisecond = Duration::from_millis(1);
        let ends = [
            layers.call().timeout(millisecond).run(slow).await,
            stack.call().timeout(millisecond).run(slow).await,
        ];
        for end in ends {
            assert_eq!(kind(end.unwrap_err()), RejectedKind::TimedOut);
        }
    }
    let stacks = stack.handle().circuit_breaker.shared().state();
    let states = [layers.0.handle().state(), stacks];
    assert_eq!(states, [BreakerState::Closed; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_races_two_futures() {
    let hedge = HedgeLayer::builder()
        .protocol(Plain::new().idempotent())
        .delay(Duration::from_millis(10))
        .build()
        .unwrap();
    let answer = hedge.run(|attempt: u32| async move {
        let slow = Duration::from_secs(if attempt == 1 { 60 } else { 0 });
        tokio::time::sleep(slow).await;
        Ok::<_, DbError>(attempt)
    });
    assert_eq!(spawnable(answer).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_recorded_as_a_failure() {
    let breaker = CircuitBreakerLayer::builder()
        .consecutive_failures(2)
        .protocol(Plain::new())
        .build()
        .unwrap();
    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    let (circuit, in_flight) = (breaker.handle(), bulkhead.handle());
    let layers = (breaker, bulkhead);
    let in_closure =
        layers.run(|| -> std::future::Ready<Result<(), DbError>> { panic!("closure") });
    assert!(AssertUnwindSafe(in_closure).catch_unwind().await.is_err());
    let in_future = layers.run(async || -> Result<(), DbError> { panic!("future") });
    assert!(AssertUnwindSafe(in_future).catch_unwind().await.is_err());
    assert_eq!(in_flight.snapshot().in_flight, 0);
    assert_eq!(circuit.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_frees_what_it_holds() {
    let bulkhead = BulkheadLayer::builder(1).build().unwrap();
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let layers = (breaker, bulkhead);
    for _ in 0..10 {
        let mut call = Box::pin(layers.run(pending::<Result<(), DbError>>));
        assert_eq!(call.as_mut().now_or_never(), None);
    }
    assert_eq!(layers.0.handle().snapshot().totals.failure, 0);
    layers.run(async || Ok::<_, DbError>(())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn futures_that_are_not_send_run() {
    let layers = (retries(), BulkheadLayer::builder(1).build().unwrap());
    let shared = Rc::new(Cell::new(0));
    let got = layers.run(|| {
        let shared = shared.clone();
        async move {
            shared.set(shared.get() + 1);
            yield_now().await;
            Ok::<_, DbError>(shared)
        }
    });
    assert_eq!(got.await.unwrap().get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_borrowing_call_runs_in_a_spawned_task() {
    let timeout = TimeoutLayer::builder(Duration::from_secs(1))
        .build()
        .unwrap();
    let layers = Arc::new((
        retries(),
        timeout,
        BulkheadLayer::builder(9).build().unwrap(),
    ));
    let task = tokio::spawn(async move {
        let (pool, mut calls) = (String::from("pool"), 0);
        let length = layers.run(|| {
            calls += 1;
            let (pool, up) = (&pool, calls > 1);
            async move {
                yield_now().await;
                if up {
                    Ok(pool.len())
                } else {
                    Err(DbError::Down(1))
                }
            }
        });
        length.await
    });
    assert_eq!(task.await.unwrap(), Ok(4));
}

#[tokio::test(start_paused = true)]
async fn a_classifier_may_capture() {
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let protocol = Plain::classify(move |result: Result<&(), &DbError>| {
        count.fetch_add(1, Ordering::Relaxed);
        if result.is_ok() {
            Outcome::Success
        } else {
            Outcome::Failure
        }
    });
    let breaker = CircuitBreakerLayer::builder()
        .protocol(protocol)
        .build()
        .unwrap();
    breaker.run(async || Ok(())).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[test]
fn errors_keep_their_type_in_a_chain() {
    let inner: BoxError = CallError::Inner(io::Error::other("reset")).into();
    assert_eq!(inner.to_string(), "reset");
    assert!(inner.source().unwrap().is::<io::Error>());
    let rejected = Rejected::new(RejectedKind::BulkheadFull, "bulkhead");
    let error: BoxError = CallError::<io::Error>::from(rejected.clone()).into();
    assert_eq!(Rejected::find(&*error), Some(&rejected));
    let boxed = CallError::<BoxError>::Rejected(rejected.clone()).into_boxed();
    assert_eq!(Rejected::find(&*boxed), Some(&rejected));
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_learns_how_critical_a_call_is() {
    let bulkhead = BulkheadLayer::builder(4).build().unwrap();
    let hang = pending::<Result<(), DbError>>;
    let mut held = [(); 2].map(|()| Box::pin(bulkhead.run(hang)));
    for call in &mut held {
        assert_eq!(call.as_mut().now_or_never(), None);
    }
    let call = |criticality| {
        bulkhead
            .call()
            .criticality(criticality)
            .run(hang)
            .now_or_never()
    };
    let shed = call(Criticality::Sheddable).unwrap().unwrap_err();
    assert_eq!(kind(shed), RejectedKind::BulkheadFull);
    assert_eq!(call(Criticality::Critical), None);
}
