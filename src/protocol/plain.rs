//! The protocol for any request and response, with tower's own assumptions.

use std::{error::Error, time::Duration};

use tower::BoxError;

use crate::{
    CarryDeadline, Classify, Outcome, Rejected,
    protocol::{Advice, Kept, Protocol, Replay, Sent, Settle, in_words, settle},
};

/// The protocol of services about which nothing is known. An `Err` is a failure. Rejections are
/// errors, boxed as is tower's convention.
///
/// Both can be defined more exactly:
///
/// ```
/// use tower_keep::{Outcome, protocol::Plain};
///
/// # struct Query { read_only: bool }
/// # struct Rows { timed_out: bool }
/// # type DbError = std::io::Error;
/// // Above another layer of this crate, the error is a `BoxError`; straight above a service, it
/// // is the service's own.
/// let protocol = Plain::classify(|result: Result<&Rows, &tower::BoxError>| match result {
///     Ok(rows) if rows.timed_out => Outcome::Failure,
///     Ok(_) => Outcome::Success,
///     Err(error) => match error.downcast_ref::<DbError>() {
///         Some(error) if error.kind() == std::io::ErrorKind::InvalidInput => Outcome::Success,
///         _ => Outcome::Failure,
///     },
/// })
/// .idempotent_when(|query: &Query| query.read_only);
/// # let _ = protocol;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain<C = ErrIsFailure, I = Undeclared> {
    classifier: C,
    idempotent: I,
}

/// Classifies an `Err` as a failure and anything else as a success.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrIsFailure;

/// No declaration of idempotent requests. Nothing can be retried, so the retry layer does not
/// compile.
#[derive(Debug, Clone, Copy, Default)]
pub struct Undeclared;

/// Declares all requests idempotent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Always;

/// Declares the requests idempotent for which a closure returns `true`.
#[derive(Debug, Clone, Copy)]
pub struct When<F>(F);

impl Plain {
    /// Creates the protocol. `Err` is a failure, and nothing is retried.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Classifies results with a closure `Fn(Result<&Res, &Err>) -> Outcome`, or a type that
    /// implements [`Classify`]. Write out both types of a closure's argument. Each call of a Tower
    /// service clones the classifier: keep what it captures behind an [`Arc`](std::sync::Arc).
    pub fn classify<F>(classifier: F) -> Plain<F> {
        Plain {
            classifier,
            idempotent: Undeclared,
        }
    }
}

impl<C> Plain<C> {
    /// Declares that every request may be sent more than once.
    pub fn idempotent(self) -> Plain<C, Always> {
        Plain {
            classifier: self.classifier,
            idempotent: Always,
        }
    }

    /// Declares which requests may be sent more than once.
    pub fn idempotent_when<Req, F>(self, idempotent: F) -> Plain<C, When<F>>
    where
        F: Fn(&Req) -> bool,
    {
        Plain {
            classifier: self.classifier,
            idempotent: When(idempotent),
        }
    }
}

impl<Res, Err> Classify<Res, Err> for ErrIsFailure {
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        if result.is_ok() {
            Outcome::Success
        } else {
            Outcome::Failure
        }
    }
}

impl<C, I, Res, Err> Classify<Res, Err> for Plain<C, I>
where
    C: Classify<Res, Err>,
{
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        self.classifier.classify(result)
    }
}

impl<C, I, Res, Err> Protocol<Res, Err> for Plain<C, I>
where
    C: Classify<Res, Err> + Clone,
    I: Clone,
    Err: Into<BoxError>,
{
    type Response<T: Settle> = Res;
    type Error = BoxError;

    #[inline]
    fn settle<T: Settle>(&self, result: Result<Res, Err>, permit: T) -> Result<Res, BoxError> {
        if !permit.reads_outcome() {
            return result.map_err(Into::into);
        }
        let outcome = self.classify(result.as_ref());
        settle_boxed(result, outcome, None, permit)
    }

    fn reject<T: Settle>(&self, rejected: Box<Rejected>) -> Result<Res, BoxError> {
        Err(rejected)
    }

    fn not_ready(&self, error: Err) -> BoxError {
        error.into()
    }

    #[inline]
    fn advise(&self, outcome: Outcome, result: Result<&Res, &BoxError>) -> Advice {
        let failed = matches!(outcome, Outcome::Failure | Outcome::Overload);
        if let Some(rejected) = result.err().and_then(local_rejection) {
            return rejected.into();
        }
        if failed {
            Advice::Retry {
                sent: Sent::Maybe,
                after: None,
            }
        } else {
            Advice::Stop
        }
    }

    #[inline]
    fn judge(&self, classified: Outcome, result: Result<&Res, &BoxError>) -> Outcome {
        let rejected = result.err().and_then(|error| Rejected::find(&**error));
        rejected.and_then(Rejected::outcome).unwrap_or(classified)
    }

    fn error<'a>(&self, error: &'a BoxError) -> Option<&'a (dyn Error + 'static)> {
        Some(&**error)
    }

    fn describe(&self, result: Result<&Res, &BoxError>) -> String {
        match result {
            Ok(_) => "a response that means a failure".into(),
            Err(error) => in_words(&**error),
        }
    }
}

/// Requests of unknown types carry no deadline.
impl<C, I, Req> CarryDeadline<Req> for Plain<C, I> {}

impl<C, Req: Clone> Replay<Req> for Plain<C, Always> {
    type Request = Req;
    type Snapshot = Req;

    fn once(&self, request: Req) -> Req {
        request
    }

    fn prepare(&self, request: Req) -> (Req, Option<Kept<Req>>) {
        let kept = Kept {
            snapshot: request.clone(),
            idempotent: true,
            attempts: None,
        };
        (request, Some(kept))
    }

    fn replay(&self, snapshot: &Req) -> Option<Req> {
        Some(snapshot.clone())
    }
}

impl<C, F, Req> Replay<Req> for Plain<C, When<F>>
where
    F: Fn(&Req) -> bool,
    Req: Clone,
{
    type Request = Req;
    type Snapshot = Req;

    fn once(&self, request: Req) -> Req {
        request
    }

    fn prepare(&self, request: Req) -> (Req, Option<Kept<Req>>) {
        // A request that is not idempotent is not kept: no generic error proves that it was not
        // sent.
        let kept = (self.idempotent.0)(&request).then(|| Kept {
            snapshot: request.clone(),
            idempotent: true,
            attempts: None,
        });
        (request, kept)
    }

    fn replay(&self, snapshot: &Req) -> Option<Req> {
        Some(snapshot.clone())
    }
}

/// Boxes the error, and settles the permit with the outcome, unless the error is an inner layer's
/// rejection.
#[inline]
pub(super) fn settle_boxed<Res, Err, T>(
    result: Result<Res, Err>,
    outcome: Outcome,
    retry_after: Option<Duration>,
    permit: T,
) -> Result<Res, BoxError>
where
    Err: Into<BoxError>,
    T: Settle,
{
    let error: BoxError = match result {
        Ok(response) => {
            permit.settle(outcome, retry_after);
            return Ok(response);
        }
        Err(error) => error.into(),
    };
    match Rejected::find(&*error) {
        None => permit.settle(outcome, retry_after),
        Some(rejected) => {
            let outcome = rejected.outcome().unwrap_or(outcome);
            settle(permit, Some(rejected), (outcome, retry_after));
        }
    }
    Err(error)
}

/// Returns the rejection in an error, if it was made before the call reached the upstream.
pub(super) fn local_rejection(error: &BoxError) -> Option<&Rejected> {
    Rejected::find(&**error).filter(|rejected| rejected.kind.is_local())
}
