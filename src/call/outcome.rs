//! What a finished call meant.

/// What a finished call says about the peer that answered it.
///
/// Every layer that learns from results sees only this; a [`Classify`] decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The peer did its work, or refused a bad request: a plain HTTP 4xx is a success.
    Success,
    /// The peer failed, or did not answer in time.
    Failure,
    /// The peer said "too much" (HTTP 429): a failure to a circuit breaker's rate, but not a crash.
    Overload,
    /// Says nothing about the peer: a local rejection, or a call that was dropped.
    Ignore,
}

/// Turns a result into an [`Outcome`].
///
/// Implementations are pure: they look at the result and at nothing else. A closure
/// `Fn(Result<&Res, &Err>) -> Outcome` is one.
///
/// Rejections made by this crate further in (an open circuit, a full bulkhead) never need a case of
/// their own: the protocol turns them into [`Outcome::Ignore`] whatever the classifier says.
pub trait Classify<Res, Err> {
    /// Says what the result meant.
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome;
}

impl<F, Res, Err> Classify<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Outcome,
{
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        self(result)
    }
}
