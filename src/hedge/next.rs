//! What follows a failure.

use std::time::Duration;

use crate::protocol::Advice;

/// When the next attempt follows one that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    AtOnce,
    /// Not before what the answer has asked for.
    After(Duration),
    /// It was rejected on its way, which says nothing about the upstream.
    AsPlanned,
    /// Never. Those under way may do better.
    Never,
    /// Never, and this is the answer if it was the first attempt, or that has ended.
    Fatal,
}

impl Next {
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
