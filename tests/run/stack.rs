//! Plain async functions through a client's stack.
#![expect(
    clippy::disallowed_methods,
    reason = "the clock is tokio's, which is paused"
)]

use std::{cell::Cell, future::pending, io, time::Duration};

use futures::FutureExt;
use tokio::{task::yield_now, time::Instant};
use tower_keep::{
    CallError, Outcome, RejectedKind,
    protocol::{Always, Plain},
    rate_limit::Rate,
    stack::{self, AnyHost, ClientBuilder},
};

const SECOND: Duration = Duration::from_secs(1);

fn database() -> ClientBuilder<Plain<tower_keep::protocol::ErrIsFailure, Always>, AnyHost> {
    stack::client()
        .plain(Plain::new().idempotent())
        .attempt_timeout(SECOND)
        .total_timeout(5 * SECOND)
}

fn kind<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> RejectedKind {
    match result {
        Err(CallError::Rejected(rejected)) => rejected.kind,
        other => panic!("not rejected: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_retries_a_borrowing_closure() {
    let db = database().build().unwrap();
    let (text, mut calls) = (String::from("rows"), 0);
    let call = db.run(|| {
        calls += 1;
        let (text, up) = (&text, calls == 2);
        async move {
            yield_now().await;
            if up {
                Ok(text.len())
            } else {
                Err(io::Error::other("reset"))
            }
        }
    });
    assert_eq!(call.await.unwrap(), 4);
    assert_eq!(db.handle().snapshot().retry.recovered, 1);
}

#[tokio::test(start_paused = true)]
async fn timeouts_cut_off_an_attempt_and_the_call() {
    let db = database().build().unwrap();
    let (began, attempts) = (Instant::now(), Cell::new(0));
    let hung = db.run(|attempt: u32| {
        attempts.set(attempt);
        pending::<Result<(), io::Error>>()
    });
    assert_eq!(kind(hung.await), RejectedKind::TimedOut);
    assert!(
        began.elapsed() <= 5 * SECOND && attempts.get() > 1,
        "{}",
        attempts.get()
    );
    assert!(db.handle().snapshot().circuits[0].1.totals.failure > 0);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_says_when_to_come_back() {
    let db = database().without_retry().build().unwrap();
    let failing = async || Err::<(), _>(io::Error::other("down"));
    for _ in 0..8 {
        assert!(matches!(db.run(failing).await, Err(CallError::Inner(_))));
    }
    let error = db.run(failing).await.unwrap_err();
    assert!(error.rejected().unwrap().retry_after.is_some());
    assert_eq!(kind(Err::<(), _>(error)), RejectedKind::CircuitOpen);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_outlives_the_circuit_that_opens() {
    let db = database()
        .circuit_breaker(|breaker| breaker.consecutive_failures(1))
        .build()
        .unwrap();
    let error = db
        .run(async || Err::<(), _>(io::Error::other("down")))
        .await
        .unwrap_err();
    assert_eq!(error.into_inner().unwrap().to_string(), "down");
}

#[tokio::test(start_paused = true)]
async fn a_call_says_its_key_cost_and_time() {
    let db = database()
        .rate(Rate::per_minute(5))
        .burst(5)
        .build()
        .unwrap();
    let (tenant, calls) = (String::from("acme"), Cell::new(0));
    let failing = || {
        calls.set(calls.get() + 1);
        async { Err::<(), _>(io::Error::other("down")) }
    };
    let call = db
        .call()
        .key(&tenant)
        .cost(3)
        .timeout(SECOND)
        .once()
        .run(failing);
    assert!(matches!(call.await, Err(CallError::Inner(_))));
    assert_eq!(calls.get(), 1);
    assert_eq!(
        kind(db.call().cost(3).run(failing).await),
        RejectedKind::RateLimited
    );
    let began = Instant::now();
    let hung = db
        .call()
        .timeout(SECOND / 2)
        .run(pending::<Result<(), io::Error>>)
        .await;
    assert_eq!(
        (kind(hung), began.elapsed()),
        (RejectedKind::TimedOut, SECOND / 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_rejects_and_a_drop_frees_it() {
    let db = database().max_in_flight(1).build().unwrap();
    let mut held = Box::pin(db.run(pending::<Result<(), io::Error>>));
    assert!(held.as_mut().now_or_never().is_none());
    let ok = async || Ok::<_, io::Error>(());
    assert_eq!(kind(db.run(ok).await), RejectedKind::BulkheadFull);
    drop(held);
    db.run(ok).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stack_runs_functions_in_tasks() {
    let classify = |result: Result<&u32, &io::Error>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Success,
        Err(_) => Outcome::Failure,
        Ok(_) => Outcome::Success,
    };
    let db = stack::client()
        .plain(Plain::classify(classify).idempotent())
        .build()
        .unwrap();
    let tasks = (0..10).map(|id| {
        let db = db.clone();
        tokio::spawn(async move {
            let found = db.run(|| async {
                tokio::time::sleep(SECOND).await;
                if id % 2 == 0 {
                    Ok(id)
                } else {
                    Err(io::ErrorKind::NotFound.into())
                }
            });
            found.await.is_ok()
        })
    });
    let found = futures::future::join_all(tasks).await;
    assert_eq!(
        found
            .into_iter()
            .filter(|found| *found.as_ref().unwrap())
            .count(),
        5
    );
}
