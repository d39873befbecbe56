//! The decision whether, and when, another attempt follows a failed one.

use std::{any::Any, time::Duration};

use tokio::time::Instant;

use crate::{
    Deadline, Outcome, RejectedKind,
    ambient::{chance, clock},
    budget::{Purse, Token},
    protocol::{Advice, Kept},
    retry::{
        RetryConfig,
        state::{Cause, RetryEnd, State},
    },
};

/// The next attempt of a call. If dropped unsent, its token goes back.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) at: Instant,
    pub(super) wait: Duration,
    pub(super) deadline: Option<Instant>,
    pub(super) token: Token,
    pub(super) history: History,
    /// The reason for the retry.
    pub(super) cause: Cause,
}

/// The history of a call's retries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct History {
    /// The retries so far.
    pub(super) retries: u32,
    /// The retries since the upstream last said exactly when to come back. The backoff starts again
    /// then (gRFC A6).
    backoffs: u32,
    /// The last backoff. `None` before the first of them.
    previous: Option<Duration>,
    /// If true, one retry of an attempt that was not sent was free. This happens once.
    free_ride: bool,
}

/// The meaning of an attempt's result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) outcome: Outcome,
    pub(super) advice: Advice,
    /// If true, it is certain that the upstream has not seen the attempt.
    pub(super) unsent: bool,
    /// If true, a layer beneath has counted the result in this layer's budget.
    pub(super) counted: bool,
}

/// A result that may be retried.
struct Retryable {
    hint: Hint,
    cause: Cause,
}

/// The upstream's hint on when to come back.
#[derive(Debug, Clone, Copy)]
enum Hint {
    None,
    /// Not before this time.
    AtLeast(Duration),
    /// After exactly this time, without jitter.
    Exactly(Duration),
}

impl Plan {
    /// Plans the next attempt, or returns what ends the call.
    ///
    /// It decides in this order: may the result be retried, is an attempt left, how long is the
    /// wait. Then: does the wait end before the deadline, will a circuit beneath still be open,
    /// does the budget pay.
    pub(super) fn make<T>(
        (state, purse, key): (&State, &impl Purse, Option<&dyn Any>),
        config: impl FnOnce() -> RetryConfig,
        read: Reading,
        kept: &Result<Kept<T>, RetryEnd>,
        history: History,
        deadline: impl FnOnce(&T) -> Option<Deadline>,
    ) -> Result<Self, RetryEnd> {
        let retryable = retryable(read, state.fixed().retry_rejected)?;
        let kept = kept.as_ref().map_err(|end| *end)?;
        if !read.unsent && !kept.idempotent {
            return Err(match retryable.cause {
                Cause::Rejected => RetryEnd::Rejected,
                _ => RetryEnd::NotRetryable,
            });
        }
        let config = config();
        let attempts = kept.attempts.unwrap_or(config.attempts);
        if history.retries + 1 >= attempts {
            return Err(RetryEnd::Exhausted);
        }
        let (backoff, delay) = delay(&config, history, retryable.hint).ok_or(RetryEnd::NotSent)?;
        let deadline = deadline(&kept.snapshot).map(Deadline::moment);
        let at = clock::later(clock::moment(), delay);
        // A timer may be late by a millisecond, and nothing is sent at the deadline.
        let latest = clock::later(at, Duration::from_millis(1));
        if deadline.is_some_and(|deadline| latest >= deadline) {
            return Err(RetryEnd::NotSent);
        }
        if state.is_open_at(key, at) {
            return Err(RetryEnd::NotSent);
        }
        let free = read.unsent && !history.free_ride;
        let token = if free {
            Token::free()
        } else {
            state
                .withdraw(purse.own(), read.counted)
                .ok_or(RetryEnd::BudgetDenied)?
        };
        let history = History {
            retries: history.retries + 1,
            free_ride: history.free_ride || free,
            ..history.with(backoff)
        };
        state.backs_off(delay);
        Ok(Self {
            at,
            wait: delay,
            deadline,
            token,
            history,
            cause: retryable.cause,
        })
    }
}

impl History {
    /// Returns the history after another retry, with a backoff or without.
    fn with(self, backoff: Option<Duration>) -> Self {
        Self {
            backoffs: backoff.map_or(0, |_| self.backoffs + 1),
            previous: backoff,
            ..self
        }
    }
}

fn retryable(read: Reading, retry_rejected: bool) -> Result<Retryable, RetryEnd> {
    match read.advice {
        Advice::Stop | Advice::DoNotRetry => Err(RetryEnd::NotRetryable),
        Advice::Retry { after, .. } => Ok(Retryable {
            hint: after.into(),
            cause: cause(read.outcome, read.unsent),
        }),
        Advice::RetryExactly { after, .. } => Ok(Retryable {
            hint: Hint::Exactly(after),
            cause: cause(read.outcome, read.unsent),
        }),
        Advice::Rejected { kind, after } if retry_rejected && may_pass_later(kind) => {
            Ok(Retryable {
                hint: after.into(),
                cause: Cause::Rejected,
            })
        }
        Advice::Rejected { .. } => Err(RetryEnd::Rejected),
    }
}

fn cause(outcome: Outcome, unsent: bool) -> Cause {
    match (outcome, unsent) {
        (Outcome::Overload, _) => Cause::Overload,
        (_, true) => Cause::NotSent,
        (_, false) => Cause::Failure,
    }
}

impl From<Option<Duration>> for Hint {
    fn from(after: Option<Duration>) -> Self {
        after.map_or(Self::None, Self::AtLeast)
    }
}

fn may_pass_later(kind: RejectedKind) -> bool {
    matches!(
        kind,
        RejectedKind::CircuitOpen
            | RejectedKind::RateLimited
            | RejectedKind::BulkheadFull
            | RejectedKind::Throttled
            | RejectedKind::Draining
            | RejectedKind::StoreDown
    )
}

/// Returns the backoff, if there is one, and the whole wait. `None` if the upstream asks for a wait
/// beyond the maximum.
fn delay(
    config: &RetryConfig,
    history: History,
    hint: Hint,
) -> Option<(Option<Duration>, Duration)> {
    let backoff = config.backoff;
    let previous = history.previous.unwrap_or(backoff.base());
    let exact = chance::is_exact().then(|| backoff.without_jitter(history.backoffs));
    let next = || backoff.delay(history.backoffs, previous, chance::word());
    let next = exact.unwrap_or_else(next);
    match hint {
        Hint::None => Some((Some(next), next)),
        Hint::AtLeast(hint) | Hint::Exactly(hint) if hint > config.max_retry_after => None,
        Hint::Exactly(hint) => Some((None, hint)),
        Hint::AtLeast(hint) if exact.is_some() => Some((Some(next), next.max(hint))),
        Hint::AtLeast(hint) => {
            let delay = backoff.after_hint(history.backoffs, next, hint, chance::word());
            Some((Some(next), delay))
        }
    }
}
