//! A retry without a layer.

use crate::{
    Classify,
    budget::OneBudget,
    protocol::Plain,
    resend::FromLayer,
    retry::{RetryConfig, RetryHandle, start},
    run::{Attempts, Call, CallError, attempts::ClosureSlot, direct::Direct},
};

/// Retries a plain async function while it fails: up to three attempts with a
/// [`Backoff`](crate::retry::Backoff), or as many as a [`RetryConfig`] says.
///
/// Use it for a script, or for a connection made at the start. It has no budget: nothing bounds the
/// retries of all calls together. So a service under load needs a
/// [`RetryLayer`](crate::retry::RetryLayer), which [runs](super::Run::run) functions in the same
/// way. Only the waits allocate.
///
/// ```
/// use std::{io, time::Duration};
/// use tower_keep::{retry::{Backoff, Jitter, RetryConfig}, run::retry};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let (base, max) = (Duration::from_millis(50), Duration::from_secs(2));
/// let backoff = Backoff::new(base, max, Jitter::default()).unwrap();
/// let mut calls = 0;
/// let connected = retry(backoff, || {
///     calls += 1;
///     let up = calls > 2;
///     async move { if up { Ok("connected") } else { Err(io::Error::other("refused")) } }
/// });
/// assert_eq!(connected.await.unwrap(), "connected");
///
/// let mut ten = RetryConfig::from(backoff);
/// ten.attempts = 10;
/// let error = retry(ten, |attempt: u32| async move { Err::<(), _>(attempt) }).await;
/// assert_eq!(error, Err(10));
/// # }
/// ```
///
/// # Errors
/// The function's error in its last attempt.
pub async fn retry<F, M>(config: impl Into<RetryConfig>, function: F) -> Result<F::Value, F::Error>
where
    F: Attempts<M>,
{
    retry_when(config, Plain::new(), function).await
}

/// Retries a plain async function, as [`retry`] does, while a [`Classify`] calls its result a
/// failure or an overload. A closure over a result is a `Classify`.
///
/// ```
/// use std::io;
/// use tower_keep::{Outcome, retry::Backoff, run::retry_when};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let transient = |result: Result<&u32, &io::Error>| match result {
///     Err(error) if error.kind() == io::ErrorKind::InvalidInput => Outcome::Success,
///     Err(_) => Outcome::Failure,
///     Ok(_) => Outcome::Success,
/// };
/// let mut calls = 0;
/// let refused = retry_when(Backoff::default(), transient, || {
///     calls += 1;
///     async { Err(io::Error::from(io::ErrorKind::InvalidInput)) }
/// });
/// assert!(refused.await.is_err());
/// assert_eq!(calls, 1);
/// # }
/// ```
///
/// # Errors
/// The function's error in its last attempt.
pub async fn retry_when<F, M, C>(
    config: impl Into<RetryConfig>,
    classifier: C,
    function: F,
) -> Result<F::Value, F::Error>
where
    F: Attempts<M>,
    C: Classify<F::Value, F::Error>,
{
    let (slot, handle) = (
        ClosureSlot::new(function),
        RetryHandle::of_call(config.into()),
    );
    let mut service = slot.function();
    let protocol = Plain::classify(classifier).idempotent();
    let origin = FromLayer::new(&handle, service);
    let call = Call::new();
    let calling = start(&mut service, call, Direct(&protocol), &OneBudget, origin);
    calling.await.map_err(|error| match error {
        CallError::Inner(error) => error,
        CallError::Rejected(_) => unreachable!("there is no layer to reject it"),
    })
}
