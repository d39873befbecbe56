//! What goes wrong with a drill itself, and with a call in it.

use std::{error::Error, fmt, io};

use tower::BoxError;

use super::jobs::Answer;

/// A call that ended without a response.
///
/// Over HTTP its source is an [`io::Error`] of the kind that hyper's client has, so that a layer
/// reads the same from it: after a refused connection nothing was sent, after a reset nobody knows.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpstreamError {
    /// There was no connection.
    Refused(io::Error),
    /// The connection broke before the answer came.
    Reset(io::Error),
    /// The upstream answered that it failed, with this status. Only of [plain](super::Drill::plain)
    /// drills.
    Failed(u16),
    /// The upstream answered that there is too much. Only of plain drills.
    Overloaded,
    /// The user's own [handler](super::Drill::handler) failed.
    Handler(BoxError),
}

impl UpstreamError {
    /// What an answer means where errors are all there is; `None` if it is well.
    pub(super) fn of(answer: Answer) -> Option<Self> {
        let error = match answer {
            Answer::Well => return None,
            Answer::Failed(status) => Self::Failed(status),
            Answer::Overloaded => Self::Overloaded,
            Answer::Refused => Self::Refused(io::ErrorKind::ConnectionRefused.into()),
            Answer::Reset => Self::Reset(io::ErrorKind::ConnectionReset.into()),
        };
        Some(error)
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("the modelled upstream refused the connection"),
            Self::Reset(_) => f.write_str("the modelled upstream reset the connection"),
            Self::Failed(status) => write!(f, "the modelled upstream failed with {status}"),
            Self::Overloaded => f.write_str("the modelled upstream is overloaded"),
            Self::Handler(_) => f.write_str("the handler failed"),
        }
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(error) | Self::Reset(error) => Some(error),
            Self::Handler(error) => Some(&**error),
            Self::Failed(_) | Self::Overloaded => None,
        }
    }
}

/// A drill that could not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum DrillError {
    /// A setting of the drill makes no sense: which, and what to do.
    Setting {
        /// The setter.
        field: &'static str,
        /// What to do.
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
