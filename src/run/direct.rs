//! The protocol of calls of plain async functions.

use crate::{
    CarryDeadline, Classify, Deadline, Outcome, Rejected, Timeouts,
    protocol::{Advice, Kept, Protocol, Replay, Sent, Settle, settle},
    run::{Call, CallError},
};

/// The protocol of a layer that runs a plain async function. The layer's own `P` says what a result
/// means and which calls may be sent again. The function's error keeps its type.
#[derive(Debug)]
pub struct Direct<'a, P>(pub(super) &'a P);

impl<P> Clone for Direct<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Direct<'_, P> {}

impl<P, T, E> Classify<T, CallError<E>> for Direct<'_, P>
where
    P: Classify<T, E>,
{
    #[inline]
    fn classify(&self, result: Result<&T, &CallError<E>>) -> Outcome {
        match result {
            Ok(value) => self.0.classify(Ok(value)),
            Err(CallError::Inner(error)) => self.0.classify(Err(error)),
            Err(CallError::Rejected(rejected)) => rejected.outcome().unwrap_or(Outcome::Failure),
        }
    }
}

impl<P, T, E> Protocol<T, CallError<E>> for Direct<'_, P>
where
    P: Classify<T, E>,
{
    type Response<S: Settle> = T;
    type Error = CallError<E>;

    #[inline]
    fn settle<S: Settle>(
        &self,
        result: Result<T, CallError<E>>,
        permit: S,
    ) -> Result<T, CallError<E>> {
        if permit.reads_outcome() {
            let outcome = self.classify(result.as_ref());
            let rejected = match &result {
                Err(CallError::Rejected(rejected)) => Some(rejected),
                _ => None,
            };
            settle(permit, rejected, (outcome, None));
        }
        result
    }

    fn reject<S: Settle>(&self, rejected: Box<Rejected>) -> Result<T, CallError<E>> {
        Err(CallError::Rejected(*rejected))
    }

    fn not_ready(&self, error: CallError<E>) -> CallError<E> {
        error
    }

    #[inline]
    fn advise(&self, outcome: Outcome, result: Result<&T, &CallError<E>>) -> Advice {
        match (outcome, result) {
            (_, Err(CallError::Rejected(rejected))) if rejected.kind.is_local() => rejected.into(),
            (Outcome::Failure | Outcome::Overload, _) => Advice::Retry {
                sent: Sent::Maybe,
                after: None,
            },
            _ => Advice::Stop,
        }
    }

    /// Keeps the function's last error, which says more than the rejection of a retry.
    fn keep(&self, error: CallError<E>) -> Option<CallError<E>> {
        Some(error)
    }
}

impl<P, K> CarryDeadline<Call<K>> for Direct<'_, P> {
    #[inline]
    fn deadline(&self, call: &Call<K>) -> Option<Deadline> {
        call.deadline()
    }

    #[inline]
    fn set_deadline(&self, call: &mut Call<K>, deadline: Deadline) {
        call.set_deadline(deadline);
    }

    /// Returns whether it is a total timeout: waits beneath it end with it.
    #[inline]
    fn wants_deadline(&self, total: bool) -> bool {
        total
    }

    #[inline]
    fn timeouts(&self, call: &Call<K>) -> Option<Timeouts> {
        Some(call.timeouts())
    }
}

impl<P, K> Replay<Call<K>> for Direct<'_, P>
where
    P: Replay<Call<K>, Request = Call<K>, Snapshot = Call<K>>,
{
    type Request = Call<K>;
    type Snapshot = Call<K>;

    #[inline]
    fn once(&self, call: Call<K>) -> Call<K> {
        self.0.once(call)
    }

    #[inline]
    fn prepare(&self, call: Call<K>) -> (Call<K>, Option<Kept<Call<K>>>) {
        let once = call.is_once();
        let (call, kept) = self.0.prepare(call);
        let kept = kept.map(|kept| Kept {
            idempotent: kept.idempotent && !once,
            ..kept
        });
        (call, kept)
    }

    fn replay(&self, call: &Call<K>) -> Option<Call<K>> {
        self.0.replay(call)
    }

    #[inline]
    fn number(&self, call: &mut Call<K>, attempt: u32) {
        call.set_attempt(attempt);
    }

    fn deadline(&self, call: &Call<K>) -> Option<Deadline> {
        call.deadline()
    }
}
