//! A batch of asks: one pipeline, with a separate answer for each key.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, Script, ServerErrorKind, aio::ConnectionLike};

use super::reply::{self, Reply};
use crate::store::Ask;

pub(super) type Replies = Vec<Result<Reply, RedisError>>;

/// An ask, and its key with the prefix.
#[derive(Debug, Clone)]
pub(super) struct KeyedAsk {
    pub(super) key: String,
    pub(super) ask: Ask,
}

/// Sends a batch whose keys are all in one slot. Asks that the server answers with NOSCRIPT are
/// sent again, the first of them with the script's text.
pub(super) async fn send<C: ConnectionLike>(connection: &mut C, asks: &[KeyedAsk]) -> Replies {
    let mut replies = pipeline(connection, asks, false).await;
    let unknown: Vec<_> = (0..asks.len())
        .filter(|index| reply::lacks_script(&replies[*index]))
        .collect();
    if !unknown.is_empty() {
        let again: Vec<_> = unknown.iter().map(|index| asks[*index].clone()).collect();
        let answers = pipeline(connection, &again, true).await;
        for (index, answer) in unknown.into_iter().zip(answers) {
            replies[index] = answer;
        }
    }
    replies
}

/// Returns whether a cluster's client refused the batch because its keys are in several slots.
pub(super) fn is_split(replies: &Replies) -> bool {
    let crossed = ErrorKind::Server(ServerErrorKind::CrossSlot);
    replies
        .iter()
        .any(|reply| matches!(reply, Err(error) if error.kind() == crossed))
}

async fn pipeline<C: ConnectionLike>(
    connection: &mut C,
    asks: &[KeyedAsk],
    with_text: bool,
) -> Replies {
    let mut pipeline = Pipeline::with_capacity(asks.len());
    for (index, ask) in asks.iter().enumerate() {
        pipeline.add_command(command(ask, with_text && index == 0));
    }
    match connection
        .req_packed_commands(&pipeline, 0, asks.len())
        .await
    {
        Ok(values) => {
            let missing = || {
                Err(RedisError::from((
                    ErrorKind::UnexpectedReturnType,
                    "too few",
                )))
            };
            let mut replies: Replies = values.into_iter().map(reply::read).collect();
            replies.resize_with(asks.len(), missing);
            replies
        }
        Err(error) => asks.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn command(KeyedAsk { key, ask }: &KeyedAsk, with_text: bool) -> Cmd {
    let mut command = redis::cmd(if with_text { "EVAL" } else { "EVALSHA" });
    let (count, period) = ask.terms.ratio();
    command
        .arg(if with_text { TEXT } else { SCRIPT.get_hash() })
        .arg(1)
        .arg(key)
        .arg(count)
        .arg(period)
        .arg(ask.terms.burst())
        .arg(ask.terms.capacity())
        .arg(ask.terms.life())
        .arg(ask.want)
        .arg(ask.least)
        .arg(u8::from(ask.reset));
    match ask.debt {
        Some(debt) => command
            .arg(format!("{:016x}", debt.process))
            .arg(debt.number)
            .arg(debt.units),
        None => command.arg("").arg(0).arg(0),
    };
    command
}

const TEXT: &str = include_str!("prepaid.lua");
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));
