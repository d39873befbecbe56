//! The decision on what follows a failed attempt.

use std::time::Duration;

use crate::protocol::Advice;

/// The time at which the next attempt follows one that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextAttempt {
    AtOnce,
    /// Not before the time that the answer has asked for.
    After(Duration),
    /// At its own time: the attempt was rejected on its way, which says nothing about the upstream.
    AsPlanned,
    /// Never. Attempts under way may succeed.
    Never,
    /// Never. The result is the answer if the first attempt has ended, with this or another result.
    Fatal,
}

impl NextAttempt {
    pub(super) fn after(advice: Advice) -> Self {
        match advice {
            Advice::Stop => Self::Fatal,
            Advice::DoNotRetry => Self::Never,
            Advice::Rejected { .. } => Self::AsPlanned,
            Advice::Retry { after: None, .. } => Self::AtOnce,
            Advice::Retry {
                after: Some(hint), ..
            }
            | Advice::RetryExactly { after: hint, .. } => Self::After(hint),
        }
    }
}
