//! Functions with a fallback.

use std::{io, time::Duration};

use tower_keep::{
    CallError, RejectedKind, Run,
    bulkhead::BulkheadLayer,
    fallback::FallbackLayer,
    protocol::Plain,
    retry::{Backoff, RetryLayer},
    run::Call,
    stack,
};

const SECOND: Duration = Duration::from_secs(1);

async fn down() -> Result<u32, io::Error> {
    Err(io::Error::other("down"))
}

#[tokio::test(start_paused = true)]
async fn a_value_stands_in_for_a_failure() {
    let fallback = FallbackLayer::value(7_u32).protocol(Plain::new());
    let fallback = fallback.build().unwrap();
    assert_eq!(fallback.run(down).await.unwrap(), 7);
    assert_eq!(
        fallback.run(async || Ok::<_, io::Error>(1)).await.unwrap(),
        1
    );
    assert_eq!(fallback.handle().snapshot().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_closure_answers_from_what_it_has_kept() {
    let fallback = FallbackLayer::builder(
        |call: &Call<&str>| call.key().len(),
        async |length, failure: Result<usize, CallError<io::Error>>| match failure {
            Err(CallError::Rejected(_)) => Ok(length),
            // The function's own error goes on, with its type.
            failure => failure,
        },
    );
    let fallback = fallback.protocol(Plain::new()).build().unwrap();
    let layers = (fallback, BulkheadLayer::builder(1).build().unwrap());
    let slow = async || {
        tokio::time::sleep(SECOND).await;
        Ok::<_, io::Error>(0)
    };
    let (first, second) = tokio::join!(
        layers.call().key("acme").run(slow),
        layers.call().key("acme").run(slow)
    );
    assert_eq!((first.unwrap(), second.unwrap()), (0, 4));
    let error = layers
        .call()
        .key("acme")
        .run(async || Err::<usize, _>(io::Error::from(io::ErrorKind::NotFound)));
    match error.await.unwrap_err() {
        CallError::Inner(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        CallError::Rejected(why) => panic!("{why}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_stands_around_the_retries() {
    let plain = Plain::new().idempotent();
    let retry = RetryLayer::builder()
        .backoff(Backoff::none())
        .protocol(plain)
        .build()
        .unwrap();
    let fallback = FallbackLayer::value(7_u32).protocol(plain).build().unwrap();
    let mut calls = 0;
    let layers = (fallback, retry);
    let answer = layers.run(|| {
        calls += 1;
        down()
    });
    assert_eq!(answer.await.unwrap(), 7);
    assert_eq!(calls, 3);
}

#[tokio::test(start_paused = true)]
async fn a_stack_with_a_fallback_runs_functions() {
    let stack = stack::client()
        .plain(Plain::new().idempotent())
        .fallback(
            FallbackLayer::value(7_u32)
                .when(|failure: Result<&u32, &CallError<io::Error>>| failure.is_err()),
        )
        .total_timeout(SECOND)
        .attempt_timeout(SECOND)
        .build()
        .unwrap();
    assert_eq!(stack.run(down).await.unwrap(), 7);
    let hung = stack
        .call()
        .once()
        .run(async || std::future::pending::<io::Result<u32>>().await);
    assert_eq!(hung.await.unwrap(), 7, "a timeout is answered too");
    let handle = stack.handle();
    assert_eq!(handle.fallback.as_ref().unwrap().snapshot().answered, 2);
    handle.drain(SECOND).await.unwrap();
    assert_eq!(stack.run(down).await.unwrap(), 7, "so is a drain");

    // What is not to be answered goes on as it is.
    let only = stack::client()
        .plain(Plain::new().idempotent())
        .fallback(FallbackLayer::value(7_u32).on_rejection(false))
        .build()
        .unwrap();
    only.handle().drain(SECOND).await.unwrap();
    let rejected = only.run(down).await.unwrap_err();
    assert_eq!(rejected.rejected().unwrap().kind, RejectedKind::Draining);
}
