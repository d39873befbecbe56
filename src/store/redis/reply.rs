//! The meaning of a server's replies. No text of the server is passed on: it may hold a key.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use crate::store::{Grant, StoreError};

/// An answer of the script, and the server's time, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) grant: Grant,
    pub(super) now: u64,
}

/// Reads one answer.
pub(super) fn read(value: Value) -> Result<Reply, RedisError> {
    let [units, good_for, wait, room, now]: [u64; 5] =
        redis::from_redis_value::<Vec<u64>>(value.extract_error()?)?
            .try_into()
            .map_err(|_| RedisError::from((ErrorKind::UnexpectedReturnType, "not five numbers")))?;
    let narrow = |units| u32::try_from(units).unwrap_or(u32::MAX);
    let grant = Grant {
        units: narrow(units),
        good_for: Duration::from_micros(good_for),
        wait: Duration::from_micros(wait),
        room: narrow(room),
    };
    Ok(Reply { grant, now })
}

/// Returns the failure with a text of this crate.
pub(super) fn failure(error: &RedisError) -> StoreError {
    let text = error.detail().unwrap_or_default();
    if text.contains("non deterministic") || text.contains("TIME") {
        return StoreError::permanent(
            "the server does not let a script ask for the time: Redis from 5.0 on and Valkey do",
        );
    }
    match (error.kind(), error.code()) {
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => StoreError::new(
            "the server is a replica now: give the store a way to a fresh connection with `reconnect`",
        ),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => StoreError::permanent(
            "the server does not permit it: allow EVAL, EVALSHA, TIME, HGET, HSET, HLEN, DEL, PEXPIRE",
        ),
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            StoreError::permanent("the server rejects the login")
        }
        (_, Some("WRONGTYPE")) => {
            StoreError::permanent("a key holds something else: give the store a prefix of its own")
        }
        (_, Some("OOM")) => StoreError::new("the server has no memory left for writes"),
        (ErrorKind::Io, _) => StoreError::new("the connection to the server failed"),
        _ => StoreError::new(format!("the server failed: {}", error.category())),
    }
}

/// Returns whether the server does not know the script, or has forgotten it.
pub(super) fn lacks_script(reply: &Result<Reply, RedisError>) -> bool {
    is(reply, ServerErrorKind::NoScript)
}

/// Returns whether the server was demoted while the connection stays open.
pub(super) fn is_demoted(reply: &Result<Reply, RedisError>) -> bool {
    is(reply, ServerErrorKind::ReadOnly)
}

fn is(reply: &Result<Reply, RedisError>, kind: ServerErrorKind) -> bool {
    matches!(reply, Err(error) if error.kind() == ErrorKind::Server(kind))
}
