//! The course of a call through several backends.

use std::{fmt, time::Duration};

use crate::RejectedKind;

/// The course of one call through a [`Spill`](crate::fallback::Spill). Over HTTP a response has it
/// in its extensions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SpillReport {
    /// The backend whose answer it is. `None` if none has answered.
    pub answered_by: Option<&'static str>,
    /// The backends that did not answer, in the order in which they were come to, and why.
    pub passed_over: Vec<(&'static str, SpillReason)>,
}

/// The reason for which a backend did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpillReason {
    /// Such a request is not one that it accepts.
    Unfit,
    /// An answer of it has asked for a pause, of which so much is left.
    Cooling(Duration),
    /// A layer of its own stack rejected the call, before it was sent.
    Rejected(RejectedKind),
    /// A failure, in these words.
    Failed(String),
    /// Its answer was not accepted by the predicate, in these words.
    Unwanted(String),
    /// The budget does not pay for another backend.
    Unpaid,
    /// The request cannot be made again: its body is too long to be kept, for example.
    Unsendable,
}

impl SpillReason {
    /// The name in metrics.
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

/// The fates of a backend in a call, as metrics name them.
pub(crate) const RESULTS: [&str; 8] = [
    "answered",
    "unfit",
    "cooling",
    "rejected",
    "failed",
    "unwanted",
    "unpaid",
    "unsendable",
];
