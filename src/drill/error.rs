//! The errors of a drill itself, and of a call in it.

use std::{error::Error, fmt};

use tower::BoxError;

use super::jobs::UpstreamAnswer;

/// A call of a [plain](super::Drill::plain) drill that its upstream did not answer successfully.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamError {
    /// There was no connection.
    Refused,
    /// The connection broke before the answer.
    Reset,
    /// The upstream failed, with this status.
    Failed(u16),
    /// The upstream was overloaded.
    Overloaded,
}

impl UpstreamError {
    /// Returns the error for an answer. `None` if it is a success.
    pub(super) fn of(answer: UpstreamAnswer) -> Option<Self> {
        let error = match answer {
            UpstreamAnswer::Well => return None,
            UpstreamAnswer::Failed(status) => Self::Failed(status),
            UpstreamAnswer::Overloaded => Self::Overloaded,
            UpstreamAnswer::Refused => Self::Refused,
            UpstreamAnswer::Reset => Self::Reset,
        };
        Some(error)
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the modelled upstream refused the connection"),
            Self::Reset => f.write_str("the modelled upstream reset the connection"),
            Self::Failed(status) => write!(f, "the modelled upstream failed with {status}"),
            Self::Overloaded => f.write_str("the modelled upstream is overloaded"),
        }
    }
}

impl Error for UpstreamError {}

/// A drill that could not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum DrillError {
    /// A setting of the drill is invalid: which, and the fix.
    Setting {
        /// The setter.
        field: &'static str,
        /// The remedy.
        fix: String,
    },
    /// The closure that builds the stack failed.
    Stack(BoxError),
}

impl DrillError {
    pub(super) fn setting(field: &'static str, fix: impl Into<String>) -> Self {
        let fix = fix.into();
        Self::Setting { field, fix }
    }
}

impl fmt::Display for DrillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { field, fix } => write!(f, "drill: `{field}`: {fix}"),
            Self::Stack(error) => write!(f, "drill: the stack does not build: {error}"),
        }
    }
}

impl Error for DrillError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Stack(error) => Some(&**error),
            Self::Setting { .. } => None,
        }
    }
}
