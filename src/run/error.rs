//! The error of a call through layers.

use std::{error::Error, fmt};

use tower::BoxError;

use crate::Rejected;

/// The error of a call that was [run](super::Run::run) through layers.
///
/// ```
/// use tower_keep::run::CallError;
///
/// fn answer(error: CallError<std::io::Error>) -> String {
///     match error {
///         CallError::Inner(error) => format!("the database said: {error}"),
///         CallError::Rejected(why) => format!("busy, come back in {:?}", why.retry_after),
///     }
/// }
/// # assert!(answer(CallError::Inner(std::io::Error::other("down"))).ends_with("down"));
/// ```
///
/// In a chain of errors it comes before the error that it holds. So
/// [`Rejected::find`](crate::Rejected::find) and a search for the function's own error both work.
/// Its text is that of the error that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError<E> {
    /// The function's own error, of its last attempt.
    Inner(E),
    /// A layer has rejected the call, or given it up: why, and when to come back if that is known.
    /// No attempt has failed before, or the layers did not keep its error.
    Rejected(Rejected),
}

impl<E> CallError<E> {
    /// Returns the function's own error, if it is that.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected(_) => None,
        }
    }

    /// Returns the rejection, if a layer has rejected the call or given it up.
    pub fn rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Inner(_) => None,
            Self::Rejected(rejected) => Some(rejected),
        }
    }

    /// Changes the function's own error.
    pub fn map_inner<T>(self, change: impl FnOnce(E) -> T) -> CallError<T> {
        match self {
            Self::Inner(error) => CallError::Inner(change(error)),
            Self::Rejected(rejected) => CallError::Rejected(rejected),
        }
    }

    /// Returns the error that it holds, boxed, as a Tower service behind the same layers would.
    pub fn into_boxed(self) -> BoxError
    where
        E: Into<BoxError>,
    {
        match self {
            Self::Inner(error) => error.into(),
            Self::Rejected(rejected) => rejected.into(),
        }
    }
}

impl<E> From<Rejected> for CallError<E> {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(error) => error.fmt(f),
            Self::Rejected(rejected) => rejected.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected(rejected) => Some(rejected),
        }
    }
}
