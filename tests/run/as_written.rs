//! The code of the guide's first page, as a user writes it, with types that are neither `Copy` nor
//! `Clone`, nor `Send`.
#![expect(clippy::disallowed_methods, reason = "tokio's paused clock")]

use std::{cell::Cell, rc::Rc, time::Duration};

use tower_keep::{
    CallError, Classify, ConfigError, Outcome, RejectedKind, Run,
    circuit_breaker::CircuitBreakerLayer,
    protocol::{Always, Plain},
    rate_limit::{Rate, RateLimitLayer},
    retry::{Backoff, RetryLayer},
    run::{self, retry},
    stack::{self, AnyHost, ClientStack},
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Debug, PartialEq)]
enum DbError {
    Deadlock,
    BadQuery,
}

#[derive(Debug, PartialEq)]
enum AppError {
    Database(DbError),
    Busy(Option<Duration>),
}

impl From<DbError> for AppError {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl From<CallError<DbError>> for AppError {
    fn from(error: CallError<DbError>) -> Self {
        match error {
            CallError::Inner(error) => error.into(),
            CallError::Rejected(why) => busy(why.retry_after),
        }
    }
}

fn busy(retry_after: Option<Duration>) -> AppError {
    AppError::Busy(retry_after)
}

#[derive(Debug, Clone, Copy)]
struct DbOutcome;

impl<T> Classify<T, DbError> for DbOutcome {
    fn classify(&self, result: Result<&T, &DbError>) -> Outcome {
        match result {
            Err(DbError::Deadlock) => Outcome::Failure,
            Ok(_) | Err(DbError::BadQuery) => Outcome::Success,
        }
    }
}

/// Neither `Copy` nor `Clone`.
struct Order(String);
struct Tenant(String);

#[derive(Default)]
struct Pool {
    calls: Cell<u32>,
    failures: Cell<u32>,
}

const SQL: &str = "SELECT ..";

impl Pool {
    async fn query(&self, sql: &str, id: u32) -> Result<Vec<u32>, DbError> {
        assert_eq!(sql, SQL);
        self.calls.set(self.calls.get() + 1);
        if id == 0 {
            return Err(DbError::BadQuery);
        }
        if self.failures.get() > 0 {
            self.failures.set(self.failures.get() - 1);
            return Err(DbError::Deadlock);
        }
        Ok(vec![id])
    }

    async fn insert(&self, order: Order) -> Result<usize, DbError> {
        self.query(SQL, 1).await?;
        Ok(order.0.len())
    }
}

type Db = ClientStack<Plain<DbOutcome, Always>, AnyHost>;

fn db() -> Result<Db, ConfigError> {
    let db = stack::client()
        .plain(Plain::classify(DbOutcome).idempotent())
        .total_timeout(secs(2))
        .max_in_flight(20)
        .build()?;
    Ok(db)
}

async fn rows(db: &Db, pool: &Pool, id: u32) -> Result<Vec<u32>, AppError> {
    match db.run(|| pool.query(SQL, id)).await {
        Ok(rows) => Ok(rows),
        Err(CallError::Inner(error)) => Err(error.into()),
        Err(CallError::Rejected(why)) => Err(busy(why.retry_after)),
    }
}

async fn order(db: &Db, pool: &Pool, tenant: Tenant, order: Order) -> Result<usize, AppError> {
    Ok(db
        .call()
        .key(&tenant)
        .cost(3)
        .timeout(secs(1))
        .once()
        .run(|| pool.insert(order))
        .await?)
}

#[tokio::test(start_paused = true)]
async fn a_database_behaves_as_the_first_page_says() {
    let (db, pool) = (db().unwrap(), Pool::default());
    pool.failures.set(2);
    assert_eq!(rows(&db, &pool, 7).await, Ok(vec![7]));
    assert_eq!(pool.calls.take(), 3, "it is called again by a retry");
    assert_eq!(
        rows(&db, &pool, 0).await,
        Err(AppError::Database(DbError::BadQuery))
    );
    assert_eq!(pool.calls.take(), 1, "a bad query is not");

    pool.failures.set(1);
    let acme = || Tenant("acme".to_owned());
    let lost = order(&db, &pool, acme(), Order("tea".to_owned())).await;
    assert_eq!(
        (lost, pool.calls.take()),
        (Err(AppError::Database(DbError::Deadlock)), 1)
    );
    assert_eq!(
        order(&db, &pool, acme(), Order("tea".to_owned())).await,
        Ok(3)
    );
    assert_eq!(acme().0, "acme");

    // Down for good: the last error of the database, then the rejection of its circuit.
    pool.failures.set(u32::MAX);
    let mut last = Ok(vec![]);
    for _ in 0..9 {
        last = rows(&db, &pool, 7).await;
    }
    let Err(AppError::Busy(Some(wait))) = last else {
        panic!("{last:?}");
    };
    assert!(wait <= secs(1), "{wait:?}");
}

/// The default of an attempt's timeout is no longer than the whole call.
#[tokio::test(start_paused = true)]
async fn a_short_total_needs_no_other_setting() {
    let db = db().unwrap();
    assert_eq!(db.handle().attempt_timeout.snapshot().duration, secs(2));
    let hung = db
        .run(async || std::future::pending::<Result<(), DbError>>().await)
        .await;
    assert_eq!(
        hung.unwrap_err().rejected().unwrap().kind,
        RejectedKind::TimedOut
    );
    // It follows the total while nobody sets it.
    let handle = db.handle();
    let total = |seconds| stack::Changes::new().total_timeout(secs(seconds));
    handle.update(total(1)).unwrap();
    assert_eq!(handle.attempt_timeout.snapshot().duration, secs(1));
    handle.update(total(60)).unwrap();
    assert_eq!(handle.attempt_timeout.snapshot().duration, secs(3));
    handle.update(total(60).attempt_timeout(secs(5))).unwrap();
    handle.update(total(30)).unwrap();
    assert_eq!(handle.attempt_timeout.snapshot().duration, secs(5));
    let error = handle.update(total(4)).unwrap_err();
    assert_eq!(error.field, "total_timeout");
    let set = stack::client()
        .http()
        .total_timeout(secs(2))
        .attempt_timeout(secs(3));
    assert!(set.build().is_err(), "what is set is taken at its word");
}

#[tokio::test(start_paused = true)]
async fn a_closure_of_one_call_consumes_what_it_has() {
    let layers = (
        RetryLayer::builder()
            .protocol(Plain::new().idempotent())
            .backoff(Backoff::none())
            .build()
            .unwrap(),
        RateLimitLayer::builder(Rate::per_day(2))
            .burst(2)
            .build()
            .unwrap(),
    );
    let (text, count) = (String::from("gone"), Rc::new(Cell::new(0)));
    let counted = count.clone();
    let gone = layers.call().once().run(move || {
        let text = text;
        counted.set(counted.get() + 1);
        async move { Err::<(), _>(text) }
    });
    let CallError::Inner(text) = gone.await.unwrap_err() else {
        panic!("not the function's own error");
    };
    assert_eq!((text.as_str(), count.get()), ("gone", 1));
    // With its number, and what comes after `once`.
    let text = String::from("sent");
    let sent = layers
        .call()
        .once()
        .key("acme")
        .cost(1)
        .run(|attempt: u32| async move { Ok::<_, ()>((text, attempt)) });
    assert_eq!(sent.await.unwrap(), (String::from("sent"), 1));
    // One that is rejected was never called.
    let never = String::from("never");
    let rejected = layers
        .call()
        .once()
        .run(|| async move { Ok::<_, ()>(never) });
    let rejected = rejected.await.unwrap_err();
    assert_eq!(rejected.rejected().unwrap().kind, RejectedKind::RateLimited);
}

/// A rejection beneath a retry that waits for it: the function is called then, and once.
#[tokio::test(start_paused = true)]
async fn a_rejected_call_of_once_may_be_tried_again() {
    let layers = (
        RetryLayer::builder()
            .protocol(Plain::new().idempotent())
            .retry_rejected(true)
            .build()
            .unwrap(),
        RateLimitLayer::builder(Rate::per_second(1))
            .build()
            .unwrap(),
    );
    for order in ["one", "two"] {
        let order = order.to_owned();
        assert!(
            layers
                .call()
                .once()
                .run(|| async move { Ok::<_, ()>(order) })
                .await
                .is_ok()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_not_send_runs() {
    let breaker = CircuitBreakerLayer::builder()
        .protocol(Plain::new())
        .build()
        .unwrap();
    let shared = Rc::new(Cell::new(0));
    let local = breaker.run(|| {
        let shared = shared.clone();
        async move {
            tokio::task::yield_now().await;
            shared.set(7);
            Ok::<_, ()>(shared.get())
        }
    });
    assert_eq!(local.await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_retry_needs_no_stack() {
    let backoff = Backoff::constant(secs(1));
    let begun = tokio::time::Instant::now();
    let mut attempts = Vec::new();
    let last = retry(backoff, |attempt: u32| {
        attempts.push(attempt);
        async move { Err::<(), _>(attempt) }
    });
    assert_eq!(last.await, Err(3));
    assert_eq!(attempts, [1, 2, 3]);
    assert_eq!((tokio::time::Instant::now() - begun).as_secs(), 2);
    assert_eq!(
        run::retry(Backoff::none(), async || Ok::<_, ()>(1)).await,
        Ok(1)
    );
}
