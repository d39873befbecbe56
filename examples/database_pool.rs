//! A database's pool behind a client's stack. Queries are retried, inserts are not, and a database
//! that is down gets no calls.
//!
//! `cargo run --example database_pool`

use std::{
    error::Error,
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::sleep;
use tower_keep::{CallError, Classify, Outcome, RejectedKind, protocol::Plain, stack};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::default();
    let db = stack::client()
        .plain(Plain::classify(DbOutcome).idempotent())
        .attempt_timeout(Duration::from_millis(200)) // what a good query takes, and some
        .total_timeout(Duration::from_secs(2)) // how long callers wait
        .max_in_flight(2) // no more than the pool has connections
        .build()?;

    // A connection that was reset: the closure is called again, and may borrow.
    pool.fail_next(1);
    let id = 7;
    let rows = db.run(|| pool.query("SELECT ..", id)).await?;
    assert_eq!((rows, pool.queries()), (vec![id], 2));

    // A mistake in the query is not the database's failure: it is not retried, and has its type.
    let error = db.run(|| pool.query("SELEKT ..", id)).await.unwrap_err();
    assert_eq!(error, CallError::Inner(DbError::Syntax));
    assert_eq!(pool.queries(), 3);

    // An insert is never sent twice.
    pool.fail_next(1);
    let insert = db.call().timeout(Duration::from_secs(1)).once();
    let error = insert.run(|| pool.query("INSERT ..", id)).await;
    assert_eq!(error, Err(CallError::Inner(DbError::Unavailable)));
    assert_eq!(pool.queries(), 4);

    // The third at once is rejected, not queued: the caller can say "busy" now.
    let query = || pool.query("SELECT ..", id);
    let (_, _, third) = tokio::join!(db.run(query), db.run(query), db.run(query));
    assert_eq!(rejection(third), Some(RejectedKind::BulkheadFull));

    // It goes down. After some failures the circuit opens, and calls fail in no time.
    pool.fail_next(u32::MAX);
    let why = loop {
        match db.call().once().run(query).await {
            Err(CallError::Rejected(why)) => break why,
            answer => assert_eq!(answer, Err(CallError::Inner(DbError::Unavailable))),
        }
    };
    assert_eq!(why.kind, RejectedKind::CircuitOpen);
    let before = pool.queries();
    assert!(db.run(query).await.is_err());
    assert_eq!(pool.queries(), before, "the database is left alone");
    println!("busy: {why}");
    Ok(())
}

/// Says of a result whether the database has failed.
#[derive(Debug, Clone, Copy)]
struct DbOutcome;

impl<T> Classify<T, DbError> for DbOutcome {
    fn classify(&self, result: Result<&T, &DbError>) -> Outcome {
        match result {
            Ok(_) | Err(DbError::Syntax) => Outcome::Success,
            Err(DbError::Unavailable) => Outcome::Failure,
        }
    }
}

fn rejection<T>(result: Result<T, CallError<DbError>>) -> Option<RejectedKind> {
    result.err()?.rejected().map(|rejected| rejected.kind)
}

/// In place of sqlx's, deadpool's or bb8's.
#[derive(Debug, Default)]
struct Pool {
    failures_to_come: AtomicU32,
    queries: AtomicU32,
}

#[derive(Debug, PartialEq)]
enum DbError {
    Unavailable,
    Syntax,
}

impl Pool {
    async fn query(&self, sql: &str, id: u32) -> Result<Vec<u32>, DbError> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
        let failures = self.failures_to_come.load(Ordering::Relaxed);
        if failures > 0 {
            self.failures_to_come.store(failures - 1, Ordering::Relaxed);
            return Err(DbError::Unavailable);
        }
        if sql.starts_with("SELEKT") {
            return Err(DbError::Syntax);
        }
        Ok(vec![id])
    }

    fn fail_next(&self, calls: u32) {
        self.failures_to_come.store(calls, Ordering::Relaxed);
    }

    fn queries(&self) -> u32 {
        self.queries.load(Ordering::Relaxed)
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the database is not there",
            Self::Syntax => "a mistake in the query",
        })
    }
}

impl Error for DbError {}
