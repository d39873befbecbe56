//! The outcome of a finished call.

/// The meaning of a finished call for the health of the upstream.
///
/// Layers that learn from results see only this. A [`Classify`] decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The upstream did its work, or rejected a bad request: a plain HTTP 4xx is a success.
    Success,
    /// The upstream failed, or did not answer in time.
    Failure,
    /// The upstream answered "too much" (HTTP 429 or 529). It counts as a failure in a circuit
    /// breaker's rate, but is not a crash.
    Overload,
    /// The result says nothing about the upstream, as for a local rejection or a dropped call.
    Ignore,
}

/// Classifies a result as an [`Outcome`].
///
/// Implementations are pure: they depend on nothing but the result. A closure `Fn(Result<&Res,
/// &Err>) -> Outcome` is one.
///
/// Rejections by inner layers of this crate (an open circuit, a full bulkhead) need no case of
/// their own. The protocol turns them into [`Outcome::Ignore`], whatever the classifier returns.
pub trait Classify<Res, Err> {
    /// Returns the outcome of a result.
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
