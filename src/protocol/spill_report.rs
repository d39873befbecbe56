//! The path of a call through several backends.

use std::{error::Error, fmt, time::Duration};

use tower::BoxError;

use crate::{RejectedKind, call::causes};

/// The path of one call through a [`Spill`](crate::fallback::Spill). Over HTTP it is an extension
/// of the response. In the error of a call it is found by [`find`](Self::find).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SpillReport {
    /// The backend that made the response. `None` if none did.
    pub answered_by: Option<&'static str>,
    /// The backends that did not respond, in the order in which they were tried, with the reasons.
    pub passed_over: Vec<(&'static str, SpillReason)>,
}

/// The reason why a backend did not respond.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpillReason {
    /// The backend does not accept such a request.
    Unfit,
    /// An earlier response of the backend asked for a pause, of which this much is left.
    Cooling(Duration),
    /// A layer of the backend's own stack rejected the call before it was sent.
    Rejected(RejectedKind),
    /// The call failed, with this description.
    Failed(String),
    /// The predicate did not accept the response, with this description.
    Unwanted(String),
    /// The budget has no token for another backend.
    Unpaid,
    /// The request cannot be replayed, for example because its body is too long to be kept.
    Unsendable,
    /// The time of the whole call ended while, or just before, the backend was asked.
    OutOfTime,
}

/// The error of a call through several backends: the report, around the error itself.
#[derive(Debug)]
struct SpillError {
    report: SpillReport,
    cause: BoxError,
}

impl SpillReport {
    /// Returns the report in the error of a call, or in one of its causes. The error itself is the
    /// cause of the report, so [`Rejected::find`](crate::Rejected::find) still finds a rejection.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| Some(&cause.downcast_ref::<SpillError>()?.report))
    }

    /// Puts the report around the error of its call.
    pub(crate) fn around(self, cause: BoxError) -> BoxError {
        let report = self;
        SpillError { report, cause }.into()
    }
}

impl fmt::Display for SpillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)
    }
}

impl Error for SpillError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

impl SpillReason {
    /// Returns the name in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        RESULTS[self.index()]
    }

    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Unfit => 1,
            Self::Cooling(_) => 2,
            Self::Rejected(_) => 3,
            Self::Failed(_) => 4,
            Self::Unwanted(_) => 5,
            Self::Unpaid => 6,
            Self::Unsendable => 7,
            Self::OutOfTime => 8,
        }
    }
}

impl fmt::Display for SpillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit => f.write_str("does not accept the request"),
            Self::Cooling(left) => write!(f, "pauses for another {left:?}"),
            Self::Rejected(kind) => write!(f, "rejected it: {}", kind.as_str()),
            Self::Failed(words) => write!(f, "failed: {words}"),
            Self::Unwanted(words) => write!(f, "gave no wanted answer: {words}"),
            Self::Unpaid => f.write_str("is not paid for by the budget"),
            Self::Unsendable => f.write_str("cannot get the request again"),
            Self::OutOfTime => f.write_str("did not answer in time"),
        }
    }
}

impl fmt::Display for SpillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answered by {}", self.answered_by.unwrap_or("none"))?;
        for (name, reason) in &self.passed_over {
            write!(f, ", {name} {reason}")?;
        }
        Ok(())
    }
}

/// The results of a backend in a call, by their names in metrics.
pub(crate) const RESULTS: [&str; 9] = [
    "answered",
    "unfit",
    "cooling",
    "rejected",
    "failed",
    "unwanted",
    "unpaid",
    "unsendable",
    "out_of_time",
];
